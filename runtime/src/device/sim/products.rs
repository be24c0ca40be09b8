//! Products of `wgmma` that a program has begun and not waited for. They show two faults: a result that is used too early,
//! and shared memory that is written while a product may still read it.

use super::fault::Fault;
use super::lanes::{Mask, WARP};
use super::shared::Shared;

/// Threads of a warpgroup.
pub const THREADS: usize = 128;

/// The message for an instruction that uses a result too early.
pub const EARLY: &str = "uses a sum that wgmma is still making: wgmma.wait_group is missing";

/// An instruction whose results are not waited for yet.
pub struct Product {
    /// The registers of its results.
    pub sums: Vec<u32>,
    /// The words of shared memory that it reads.
    pub words: Vec<u32>,
    /// The time of the reads, as [`Shared`] counts it.
    pub epoch: u64,
}

/// The products of a block that are not waited for yet: per warpgroup, the committed groups and the open one.
#[derive(Default)]
pub struct Products {
    pub groups: Vec<Vec<Vec<Product>>>,
    pub open: Vec<Vec<Product>>,
    /// Whether a register is a result of one of them; empty if there are none.
    pub sums: Vec<bool>,
}

impl Products {
    /// Begins a block of `threads` threads.
    pub fn begin(&mut self, threads: usize) {
        let count = threads.div_ceil(THREADS);
        self.sums.clear();
        self.groups = (0..count).map(|_| vec![]).collect();
        self.open = (0..count).map(|_| vec![]).collect();
    }

    /// Whether one of these registers is a result that is not waited for yet.
    #[inline(always)]
    pub fn make_any(&self, registers: &[u32]) -> bool {
        !self.sums.is_empty() && registers.iter().any(|&r| self.sums[r as usize])
    }

    /// Closes the open group of each warpgroup.
    pub fn commit(&mut self, mask: &Mask) {
        for number in warpgroups(mask) {
            self.groups[number].push(std::mem::take(&mut self.open[number]));
        }
    }

    /// Waits until each warpgroup has at most `left` unfinished groups.
    pub fn wait(&mut self, left: usize, mask: &Mask, shared: &Shared) -> Result<(), Fault> {
        for number in warpgroups(mask) {
            let done = self.groups[number].len().saturating_sub(left);
            for product in self.groups[number].drain(..done).flatten() {
                if let Some(word) = product.words.iter().find(|&&w| shared.changed(w, product.epoch)) {
                    let what = format!(
                        "shared memory at {:#x} was written while wgmma could still read it: wgmma.wait_group comes too late",
                        4 * word
                    );
                    return Err(Fault::new(number * THREADS, what));
                }
            }
        }
        let left = self.groups.iter().flatten().chain(&self.open).flatten();
        let left: Vec<u32> = left.flat_map(|product| product.sums.iter().copied()).collect();
        match left.is_empty() {
            true => self.sums.clear(),
            false => {
                self.sums.fill(false);
                left.into_iter().for_each(|sum| self.sums[sum as usize] = true);
            }
        }
        Ok(())
    }
}

/// The warpgroups that have an active thread.
fn warpgroups(mask: &Mask) -> impl Iterator<Item = usize> {
    let warps = mask.0.chunks(THREADS / WARP).enumerate();
    warps
        .filter(|w| w.1.iter().any(|&active| active != 0))
        .map(|w| w.0)
}
