//! Counts of what kernels do: instructions, bytes, and how well the accesses of warps are coalesced.

use super::lanes::WARP;
use std::collections::BTreeMap;

/// The smallest number of bytes that global memory moves.
const SECTOR: u64 = 32;
/// Banks of shared memory, each a word wide.
const BANKS: usize = 32;

/// The counts of a kernel, summed over its launches.
///
/// Sectors and conflicts are counted for the first blocks of a launch and a fixed fraction of the others, and scaled up.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Counts {
    /// How often it was launched.
    pub launches: u64,
    /// Blocks of all launches.
    pub blocks: u64,
    /// Executions by threads of each instruction, by its name without types: `fma`, `ld.global`.
    pub instructions: BTreeMap<String, u64>,
    /// Bytes that threads read from global memory.
    pub read_bytes: u64,
    /// Bytes that threads wrote to global memory.
    pub written_bytes: u64,
    /// Bytes of global memory that a launch read, each counted once.
    pub distinct_read_bytes: u64,
    /// Bytes of global memory that a launch wrote, each counted once.
    pub distinct_written_bytes: u64,
    /// Sectors of 32 bytes that warps' accesses to global memory touched.
    pub sectors: u64,
    /// The fewest sectors those accesses could have touched.
    pub min_sectors: u64,
    /// Cycles that warps' accesses to shared memory take.
    pub shared_cycles: u64,
    /// The part of these cycles that bank conflicts cause: lanes that access different words of one bank.
    pub conflicts: u64,
}

impl Counts {
    /// Adds the counts of another part of the launches.
    pub fn add(&mut self, other: &Counts) {
        self.launches += other.launches;
        self.blocks += other.blocks;
        for (name, count) in &other.instructions {
            *self.instructions.entry(name.clone()).or_default() += count;
        }
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.distinct_read_bytes += other.distinct_read_bytes;
        self.distinct_written_bytes += other.distinct_written_bytes;
        self.sectors += other.sectors;
        self.min_sectors += other.min_sectors;
        self.shared_cycles += other.shared_cycles;
        self.conflicts += other.conflicts;
    }

    /// Executions of an instruction by threads.
    pub fn executed(&self, name: &str) -> u64 {
        self.instructions.get(name).copied().unwrap_or(0)
    }
}

/// Counts in detail of some blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detail {
    /// See [`Counts::sectors`].
    pub sectors: u64,
    /// See [`Counts::min_sectors`].
    pub min_sectors: u64,
    /// See [`Counts::shared_cycles`].
    pub shared_cycles: u64,
    /// See [`Counts::conflicts`].
    pub conflicts: u64,
}

impl Detail {
    /// Counts an access of a warp's active lanes to global memory, of `bytes` bytes each.
    pub fn global(&mut self, addresses: &[u64], bytes: usize) {
        let mut sectors: Vec<u64> = vec![];
        for &address in addresses {
            let (first, last) = (address / SECTOR, (address + bytes as u64 - 1) / SECTOR);
            sectors.extend(first..=last);
        }
        sectors.sort_unstable();
        sectors.dedup();
        let mut distinct: Vec<u64> = addresses.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        self.sectors += sectors.len() as u64;
        self.min_sectors += (distinct.len() as u64 * bytes as u64).div_ceil(SECTOR);
    }

    /// An access of a warp's active lanes to shared memory. Of 8 and 16 bytes, half and quarter warps go one after the
    /// other; equal words are read once for all.
    pub fn shared(&mut self, addresses: &[u64], bytes: usize) {
        let words = bytes.div_ceil(4);
        for together in addresses.chunks(WARP / words) {
            let mut wanted: Vec<u64> = vec![];
            for &address in together {
                wanted.extend((0..words as u64).map(|i| address / 4 + i));
            }
            wanted.sort_unstable();
            wanted.dedup();
            let mut banks = [0u64; BANKS];
            for word in wanted {
                banks[word as usize % BANKS] += 1;
            }
            let turns = banks.into_iter().max().unwrap_or(0);
            self.shared_cycles += turns;
            self.conflicts += turns.saturating_sub(1);
        }
    }
}
