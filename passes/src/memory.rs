//! Where temporaries lie: values that are never alive together share bytes of their device's arena.
//!
//! Placing intervals in little memory is bin packing, so several orders are tried, greedily, and the smallest
//! arena wins: large values first, long-lived ones first, and by birth, each improved by placing first what
//! reached farthest. A value goes into the tightest gap between those that are alive at the same time, where what is
//! left above them up to some end may count as a gap, too. The most bytes alive at once bound the arena from below. What is
//! placed are [`mod@crate::overlap_chain`]s, most of them a value each.

use crate::overlap_chain::{OverlapChain, chains, peak};
use ir::live::{LiveRange, liveness};
use ir::plan::{Allocation, Role};
use ir::program::{Program, ValueId};
use std::cmp::Reverse;

/// How often an order is improved where it misses the bound.
const ATTEMPTS: usize = 100;
/// Pairs of overlap chains that the improvements of an order inspect at most: of many overlap chains an order is improved less often.
const PAIRS: usize = 20_000_000;

/// The size of the arenas beside what no packing can go below; of several devices, the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// The most bytes alive during one kernel.
    pub lower_bound: u64,
}

/// What values are placed by, the least first.
type Order = fn(&OverlapChain) -> (Reverse<u64>, usize);

/// Places every value of the program.
pub fn plan(program: &mut Program) -> Packing {
    for result in program
        .kernels
        .iter()
        .filter(|k| k.prepack)
        .flat_map(|k| &k.results)
    {
        program.values[result.0].role = Role::Packed;
    }
    let live = liveness(program);
    for value in &mut program.values {
        value.allocation = Allocation::Dedicated;
    }
    let mut total = Packing {
        arena_bytes: 0,
        lower_bound: 0,
    };
    for device in 0..program.arena_bytes.len() {
        let here = |l: &&LiveRange| program.value(l.value).device.0 == device;
        let live: Vec<LiveRange> = live.iter().filter(here).copied().collect();
        let (placed, packing) = pack_best(&chains(program, &live));
        for (chain, offset) in placed {
            for (live, within) in chain.parts {
                program.values[live.value.0].allocation = Allocation::Arena(offset + within);
            }
        }
        program.arena_bytes[device] = packing.arena_bytes;
        total.arena_bytes += packing.arena_bytes;
        total.lower_bound += packing.lower_bound;
    }
    // A value that shares a buffer lies where the buffer does.
    for v in 0..program.values.len() {
        program.values[v].allocation = program.value(program.owner(ValueId(v))).allocation;
    }
    total
}

/// Bytes that each device needs for its values: the arena, and what lies outside of it.
pub fn bytes_of_devices(program: &Program) -> Vec<u64> {
    let mut bytes = program.arena_bytes.clone();
    for (v, value) in program.values.iter().enumerate() {
        let own = value.allocation == Allocation::Dedicated && value.role != Role::Temporary;
        if own && program.owner(ValueId(v)) == ValueId(v) {
            bytes[value.device.0] += value.bytes();
        }
    }
    bytes
}

/// The smallest packing of all orders.
fn pack_best(chains: &[OverlapChain]) -> (Vec<(OverlapChain, u64)>, Packing) {
    let orders: [Order; 4] = [
        |t| (Reverse(t.bytes()), t.live_range().0),
        |t| (Reverse(kernels_of(t)), t.live_range().0),
        |t| {
            (
                Reverse(t.bytes().saturating_mul(kernels_of(t) + 1)),
                t.live_range().0,
            )
        },
        |t| (Reverse(0), t.live_range().0),
    ];
    let bound = peak(chains).map_or(0, |(_, bytes)| bytes);
    let mut best: Option<Arrangement> = None;
    // Either an arena without an end, or one of the least bytes that it can have.
    for (order, end) in orders.into_iter().flat_map(|order| [(order, 0), (order, bound)]) {
        if best.as_ref().is_some_and(|best| best.1 == bound) {
            break;
        }
        let mut sorted: Vec<&OverlapChain> = chains.iter().collect();
        sorted.sort_by_key(|chain| order(chain));
        let packed = improve(sorted, bound, end);
        if best.as_ref().is_none_or(|best| packed.1 < best.1) {
            best = Some(packed);
        }
    }
    let (placed, arena_bytes) = best.expect("there is at least one order to try");
    let packing = Packing {
        arena_bytes,
        lower_bound: bound,
    };
    let placed = placed.into_iter().map(|(chain, at)| (chain.clone(), at));
    (placed.collect(), packing)
}

fn kernels_of(chain: &OverlapChain) -> u64 {
    let (first, last) = chain.live_range();
    (last - first) as u64
}

/// What lies where, and the end of the last byte.
type Arrangement<'t> = (Vec<(&'t OverlapChain, u64)>, u64);

/// Packs in this order, then again and again with the overlap chain that reaches farthest placed first; the best of all. `end` as
/// in [`pack`].
fn improve(mut order: Vec<&OverlapChain>, bound: u64, end: u64) -> Arrangement<'_> {
    let mut best = pack(&order, end);
    let mut latest = best.clone();
    let affordable = PAIRS / (order.len() * order.len()).max(1);
    for _ in 0..ATTEMPTS.min(affordable.max(1)) {
        if best.1 == bound {
            break;
        }
        let mut placed = latest.0.iter();
        let Some((highest, _)) = placed.find(|(chain, at)| at + chain.bytes() == latest.1) else {
            break;
        };
        let position = order
            .iter()
            .position(|chain| chain == highest)
            .expect("every overlap chain is placed");
        order[..=position].rotate_right(1);
        latest = pack(&order, end);
        if latest.1 < best.1 {
            best = latest.clone();
        }
    }
    best
}

/// Places overlap chains one after the other and returns the end of the last byte. What lies between the last neighbour and
/// `gap_end` is a gap.
fn pack<'t>(chains: &[&'t OverlapChain], gap_end: u64) -> Arrangement<'t> {
    let mut placed: Vec<(&OverlapChain, u64)> = vec![];
    let mut lives: Vec<(usize, usize)> = vec![];
    let mut end = 0;
    for &next in chains {
        let bytes = next.bytes();
        let (first, last) = next.live_range();
        // Where it may not begin, both ends excluded.
        let mut taken: Vec<(i64, i64)> = vec![];
        for ((other, at), life) in placed.iter().zip(&lives) {
            if life.1 < first || last < life.0 {
                continue;
            }
            for (theirs, offset) in &other.parts {
                let from = (at + offset) as i64;
                let meeting = next.parts.iter().filter(|(own, _)| own.overlaps(theirs));
                taken.extend(meeting.map(|(own, offset)| {
                    let within = *offset as i64;
                    (
                        from - within - own.bytes as i64,
                        from + theirs.bytes as i64 - within,
                    )
                }));
            }
        }
        taken.sort_unstable();
        let above = taken.iter().map(|&(_, to)| to).max().unwrap_or(0).max(0);
        let lowest_end = gap_end as i64 - bytes as i64;
        let (mut best, mut top) = (None, 0);
        for (from, to) in taken.into_iter().chain([(lowest_end, lowest_end)]) {
            if from >= top && best.is_none_or(|(room, _)| from - top < room) {
                best = Some((from - top, top));
            }
            top = top.max(to);
        }
        let offset = best.map_or(above, |(_, at)| at) as u64;
        end = end.max(offset + bytes);
        placed.push((next, offset));
        lives.push((first, last));
    }
    (placed, end)
}
