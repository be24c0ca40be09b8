//! Tensor cores that multiply for warpgroups (`wgmma`): four warps together, both matrices in shared memory, results in
//! registers some time later. Layouts and fragments are those of the PTX ISA's section on asynchronous warpgroup-level
//! matrix instructions.
//!
//! Products are made at once, with the rounding that [`super::matrix`] states; a factor of tf32 is the number without its
//! low 13 bits. What the program may rely on only later is reported where it does so earlier: results before they are
//! waited for, and shared memory that is written while it may still be read.

use super::block::Block;
use super::code::Step;
use super::counts::Detail;
use super::fault::Fault;
use super::lanes::{Mask, Narrow, WARP};
use super::products::{EARLY, Product, THREADS};
use super::shared::Shared;

/// Rows of an instruction's results.
const ROWS: usize = 64;
/// The maximum number of columns.
const COLUMNS: usize = 256;
/// The maximum depth, of bf16.
const DEPTHS: usize = 16;
/// Words of a row of a matrix, which both types fill.
const WORDS: usize = 8;
/// Bits of a descriptor that have a meaning: address, two distances, base offset, swizzle.
const MEANING: u64 = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62;

/// A matrix in shared memory, its rows along the depth.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    start: u64,
    /// Bytes from one part of 16 bytes to the next in the depth, where nothing is swizzled.
    leading: u64,
    /// Bytes from eight rows to the next eight.
    stride: u64,
    /// Bytes of a row of the pattern; 16 where nothing is swizzled.
    line: u64,
}

impl Layout {
    /// Reads a descriptor.
    fn of(descriptor: u64) -> Result<Layout, String> {
        let bytes = |shift: u32| (descriptor >> shift & 0x3fff) << 4;
        let layout = Layout {
            start: bytes(0),
            leading: bytes(16),
            stride: bytes(32),
            line: [16, 128, 64, 32][(descriptor >> 62) as usize],
        };
        if descriptor & !MEANING != 0 || descriptor >> 49 & 7 != 0 {
            return Err(format!(
                "unknown layout: the matrix descriptor {descriptor:#x} has a base offset, or bits without a meaning"
            ));
        }
        // The pattern repeats after eight rows, and depends on the address alone.
        let pattern = 8 * layout.line;
        if layout.line > 16 && layout.start % pattern / layout.line.max(128) != 0 {
            return Err(format!(
                "unknown layout: the matrix at {:#x} has lines of {} bytes that are swizzled, and does not begin at a \
                 multiple of {pattern} bytes",
                layout.start, layout.line
            ));
        }
        Ok(layout)
    }

    /// The address of a part of 16 bytes of a row.
    fn address(&self, row: usize, part: usize) -> u64 {
        let (row, part) = (row as u64, part as u64);
        let apart = if self.line == 16 { self.leading } else { 16 };
        let plain = self.start + row / 8 * self.stride + row % 8 * self.line + part * apart;
        plain ^ plain >> 3 & (self.line - 16)
    }
}

impl Block<'_> {
    /// `d = a·b + d` of every active warpgroup: descriptors in `a` and `b`, whether there is a sum before in `c`, the sums in
    /// the list.
    #[inline(always)]
    pub(super) fn warpgroup_multiply(
        &mut self,
        step: &Step,
        columns: usize,
        bf16: bool,
        mask: &Mask,
    ) -> Result<(), Fault> {
        for (number, warps) in mask.0.chunks(THREADS / WARP).enumerate() {
            let first = number * THREADS;
            if warps.iter().all(|&active| active == 0) {
                continue;
            }
            if let Some(missing) = (0..THREADS / WARP).find(|&w| warps.get(w) != Some(&u32::MAX)) {
                let what = format!(
                    "does not take part in an instruction of its whole warpgroup, with warp {missing} of it"
                );
                return Err(Fault::new(first, what));
            }
            // Sums of the same shape follow each other in order; other uses of a sum do not wait.
            let waiting = self.products.groups[number]
                .iter()
                .flatten()
                .chain(&self.products.open[number]);
            for product in waiting {
                let shared = product.sums.iter().any(|sum| step.list.contains(sum));
                if shared && product.sums != step.list {
                    return Err(Fault::new(first, EARLY));
                }
            }
            let mut words = vec![];
            let mut matrix = |register: u32, rows: usize, values: &mut [[u32; WORDS]]| {
                let descriptor = self.registers.get_wide(register, first);
                let all =
                    (first..first + THREADS).all(|t| self.registers.get_wide(register, t) == descriptor);
                if !all {
                    return Err(Fault::new(
                        first,
                        "the threads of a warpgroup have different matrix descriptors",
                    ));
                }
                let detail = self.detailed.then_some(&mut self.detail);
                read(
                    &mut self.shared,
                    descriptor,
                    rows,
                    first,
                    values,
                    &mut words,
                    detail,
                )
            };
            let (mut left, mut right) = ([[0; WORDS]; ROWS], [[0; WORDS]; COLUMNS]);
            matrix(step.a, ROWS, &mut left)?;
            matrix(step.b, columns, &mut right)?;
            // By depth, so that columns are next to each other.
            let mut by_depth = [[0f64; COLUMNS]; DEPTHS];
            for (column, words) in right.iter().enumerate().take(columns) {
                for (depth, value) in factors(words, bf16).into_iter().enumerate() {
                    by_depth[depth][column] = value;
                }
            }
            let depths = if bf16 { 16 } else { 8 };
            for warp in 0..THREADS / WARP {
                let mut sums = [[0f64; COLUMNS]; 16];
                let adds = self.registers.get(step.c, first) != 0;
                for (i, &register) in step.list.iter().enumerate().filter(|_| adds) {
                    let values = self.registers.narrow(register, first / WARP + warp);
                    for (lane, &value) in values.iter().enumerate() {
                        let (row, column) = place(lane, i);
                        sums[row][column] = f64::from(f32::from_bits(value));
                    }
                }
                for (sums, words) in sums.iter_mut().zip(&left[16 * warp..]) {
                    for (value, right) in factors(words, bf16).iter().zip(&by_depth[..depths]) {
                        for (sum, right) in sums[..columns].iter_mut().zip(right) {
                            *sum += value * right;
                        }
                    }
                }
                for (i, &register) in step.list.iter().enumerate() {
                    let mut out: Narrow = [0; WARP];
                    for (lane, out) in out.iter_mut().enumerate() {
                        let (row, column) = place(lane, i);
                        *out = (sums[row][column] as f32).to_bits();
                    }
                    self.registers
                        .set_narrow(register, first / WARP + warp, u32::MAX, &out);
                }
            }
            let products = &mut self.products;
            products.sums.resize(self.kernel.program.registers.0, false);
            step.list
                .iter()
                .for_each(|&sum| products.sums[sum as usize] = true);
            products.open[number].push(Product {
                sums: step.list.clone(),
                words,
                epoch: self.shared.epoch(),
            });
        }
        Ok(())
    }
}

/// Reads the rows of a matrix; adds the words it read to `all`.
fn read(
    shared: &mut Shared,
    descriptor: u64,
    rows: usize,
    thread: usize,
    values: &mut [[u32; WORDS]],
    all: &mut Vec<u32>,
    mut detail: Option<&mut Detail>,
) -> Result<(), Fault> {
    let layout = Layout::of(descriptor).map_err(|what| Fault::new(thread, what))?;
    for first in (0..rows).step_by(8) {
        for part in 0..2 {
            let addresses: [u64; 8] = std::array::from_fn(|row| layout.address(first + row, part));
            if let Some(detail) = &mut detail {
                detail.shared(&addresses, 16);
            }
            for (row, address) in addresses.into_iter().enumerate() {
                let words = shared.load_matrix_part(address, thread)?;
                values[first + row][4 * part..4 * part + 4].copy_from_slice(&words);
                all.extend((0..4).map(|i| address as u32 / 4 + i));
            }
        }
    }
    Ok(())
}

/// The factors in a row: 8 of tf32, or 16 of bf16.
#[inline(always)]
fn factors(words: &[u32; WORDS], bf16: bool) -> [f64; DEPTHS] {
    let float = |bits: u32| f64::from(f32::from_bits(bits));
    let mut factors = [0.0; DEPTHS];
    for (i, &word) in words.iter().enumerate() {
        match bf16 {
            true => (factors[2 * i], factors[2 * i + 1]) = (float(word << 16), float(word & 0xffff_0000)),
            false => factors[i] = float(word & 0xffff_e000),
        }
    }
    factors
}

/// Row (of the warp's 16) and column of a lane's sum.
#[inline(always)]
fn place(lane: usize, sum: usize) -> (usize, usize) {
    (lane / 4 + sum % 4 / 2 * 8, sum / 4 * 8 + lane % 4 * 2 + sum % 2)
}
