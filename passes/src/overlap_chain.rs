//! What is written in micro-batches follows what the same micro-batches read for the last time, one micro-batch behind it in the same bytes.
//!
//! A gradient through a normalisation, say, is made from what was normalised, and takes its place:
//!
//! ```text
//! micro-batch 0   [      | old 0 | old 1 | old 2 ]     reads old 0, writes new 0 in front of it
//! micro-batch 1   [ new 0|       | old 1 | old 2 ]     reads old 1, writes new 1 where old 0 was
//! micro-batch 2   [ new 0| new 1 |       | old 2 ]
//! ```
//!
//! Both together need one batch slice more than the larger of them, and nothing is computed or moved for it. What follows may
//! itself be followed. All of an overlap chain keeps its shape when memory is planned, and others may lie where one of its values is
//! not there yet, or no more.

use ir::live::LiveRange;
use ir::program::{Kernel, Program, ValueId};
use std::cmp::Reverse;
use std::ops::RangeInclusive;

/// Values that follow each other through the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlapChain {
    /// The values, and where each of them lies in the overlap chain.
    pub parts: Vec<(LiveRange, u64)>,
}

impl OverlapChain {
    /// From its first byte to its last.
    pub fn bytes(&self) -> u64 {
        let ends = self.parts.iter().map(|(live, offset)| offset + live.bytes);
        ends.max().unwrap_or(0)
    }

    /// The first and last kernel during which some of it is alive.
    pub fn live_range(&self) -> (usize, usize) {
        let first = self.parts.iter().map(|(live, _)| live.first).min();
        let last = self.parts.iter().map(|(live, _)| live.last).max();
        (first.unwrap_or(0), last.unwrap_or(0))
    }

    /// The bytes that it needs during a kernel.
    pub fn bytes_at(&self, k: usize) -> u64 {
        let alive = || self.parts.iter().filter(|(live, _)| live.at(k));
        let start = alive().map(|&(_, offset)| offset).min().unwrap_or(0);
        let end = alive().map(|(live, offset)| offset + live.bytes).max();
        end.unwrap_or(0) - start
    }
}

/// A value that can follow another, by their positions among those alive.
#[derive(Clone, Copy, Debug)]
struct Pair {
    old: usize,
    new: usize,
    micro_batches: u64,
}

/// Every value of the arena in an overlap chain, most of them alone: as many follow each other as can without more bytes being
/// alive at the peak point, the largest first.
pub fn chains(program: &Program, live: &[LiveRange]) -> Vec<OverlapChain> {
    let alone = |&live: &LiveRange| OverlapChain {
        parts: vec![(live, 0)],
    };
    let mut chains: Vec<OverlapChain> = live.iter().map(alone).collect();
    let mut pairs = pairs(program, live);
    pairs.sort_by_key(|pair| std::cmp::Reverse(live[pair.old].bytes.min(live[pair.new].bytes)));
    let mut taken: Vec<Pair> = vec![];
    let mut least = peak_bytes(&chains);
    for pair in pairs {
        if taken
            .iter()
            .any(|other| other.old == pair.old || other.new == pair.new)
        {
            continue;
        }
        let joined = join(&chains, live, pair);
        let most = peak_bytes(&joined);
        if most <= least {
            least = most;
            chains = joined;
            taken.push(pair);
        }
    }
    chains
}

fn peak_bytes(chains: &[OverlapChain]) -> u64 {
    peak(chains).map_or(0, |(_, bytes)| bytes)
}

/// What a micro-batch loop reads for the last time, with what it makes for others, where it touches nothing but batch slices of both.
fn pairs(program: &Program, live: &[LiveRange]) -> Vec<Pair> {
    let mut pairs = vec![];
    let mut first = 0;
    for sequence in program.kernel_sequences() {
        let last = first + sequence.len() - 1;
        if sequence[0].micro_batches() == 1 {
            first = last + 1;
            continue;
        }
        let in_micro_batches = |l: &LiveRange| only_slices(program, sequence, l.value);
        let ends = |l: &LiveRange| l.first < first && l.last == last && in_micro_batches(l);
        let begins = |l: &LiveRange| l.first == first && l.last > last && in_micro_batches(l);
        let positions = |of: &dyn Fn(&LiveRange) -> bool| (0..live.len()).filter(|&i| of(&live[i])).collect();
        let (olds, news): (Vec<usize>, Vec<usize>) = (positions(&ends), positions(&begins));
        for &old in &olds {
            let device = program.value(live[old].value).device;
            let here = news
                .iter()
                .filter(|&&new| program.value(live[new].value).device == device);
            let micro_batches = sequence[0].micro_batches() as u64;
            pairs.extend(here.map(|&new| Pair {
                old,
                new,
                micro_batches,
            }));
        }
        first = last + 1;
    }
    pairs
}

fn only_slices(program: &Program, sequence: &[Kernel], id: ValueId) -> bool {
    let touched = sequence
        .iter()
        .flat_map(|call| call.operands.iter().chain(&call.results));
    let mut own = touched.filter(|&&v| program.owner(v) == id);
    own.all(|&v| program.value(v).batch_slice)
}

/// The overlap chains with two of them in one.
fn join(chains: &[OverlapChain], live: &[LiveRange], pair: Pair) -> Vec<OverlapChain> {
    let (old, new) = (live[pair.old], live[pair.new]);
    let of = |id: ValueId| {
        let has = |chain: &&OverlapChain| chain.parts.iter().any(|(live, _)| live.value == id);
        chains
            .iter()
            .find(has)
            .expect("every value is in an overlap chain")
    };
    let (before, after) = (of(old.value), of(new.value));
    let within = |chain: &OverlapChain, id: ValueId| {
        let found = chain.parts.iter().find(|(live, _)| live.value == id);
        found.expect("the value is in its overlap chain").1 as i64
    };
    let slices = (old.bytes / pair.micro_batches) as i64..=(new.bytes / pair.micro_batches) as i64;
    // Where the later overlap chain begins in terms of the earlier one, and where both do.
    let shift =
        within(before, old.value) - behind(slices, pair.micro_batches as i64) - within(after, new.value);
    let start = shift.min(0);
    let moved = |chain: &OverlapChain, by: i64| -> Vec<(LiveRange, u64)> {
        let at = |&(live, offset): &(LiveRange, u64)| (live, (offset as i64 + by - start) as u64);
        chain.parts.iter().map(at).collect()
    };
    let joined = OverlapChain {
        parts: [moved(before, 0), moved(after, shift)].concat(),
    };
    let others = chains.iter().filter(|chain| *chain != before && *chain != after);
    others.cloned().chain([joined]).collect()
}

/// How many bytes before the old value the new one begins, so that the end of its batch slice is never after the beginning of
/// the old one's.
fn behind(slices: RangeInclusive<i64>, micro_batches: i64) -> i64 {
    let (&old, &new) = (slices.start(), slices.end());
    new.max(micro_batches * new - (micro_batches - 1) * old)
}

/// The kernel during which the most bytes are alive, the first of several, and how many.
pub fn peak(chains: &[OverlapChain]) -> Option<(usize, u64)> {
    let parts = || chains.iter().flat_map(|chain| &chain.parts);
    let kernels = parts().map(|(live, _)| live.last + 1).max()?;
    // By how much kernel k holds more than the one before it: most overlap chains hold all or nothing.
    let mut grown = vec![0i64; kernels + 1];
    for chain in chains {
        let (first, last) = chain.live_range();
        let mut held = 0;
        for (k, grown) in grown.iter_mut().enumerate().take(last + 1).skip(first) {
            if chain.parts.len() == 1 && k > first {
                break;
            }
            let now = chain.bytes_at(k) as i64;
            *grown += now - held;
            held = now;
        }
        grown[last + 1] -= held;
    }
    let mut begins = vec![false; kernels];
    parts().for_each(|(live, _)| begins[live.first] = true);
    let mut held = 0;
    let peaks = (0..kernels).filter_map(|k| {
        held += grown[k];
        begins[k].then_some((k, held as u64))
    });
    peaks.max_by_key(|&(k, bytes)| (bytes, Reverse(k)))
}
