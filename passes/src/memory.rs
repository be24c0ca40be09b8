//! Where temporaries lie: values that are never alive together share bytes of their device's arena.
//!
//! Placing intervals in little memory is bin packing, so several orders are tried, greedily, and the smallest
//! arena wins: large values first, long-lived ones first, and by birth, each improved by placing first what
//! reached farthest. A value goes into the tightest gap between those that are alive at the same time, where what is
//! left above them up to some end may count as a gap, too. The most bytes alive at once bound the arena from below.

use crate::trail::trails;
use ir::live::{Live, liveness};
use ir::plan::{Place, Role};
use ir::program::{Program, ValueId};
use std::cmp::Reverse;

/// How often an order is improved where it misses the bound.
const ATTEMPTS: usize = 100;

/// The size of the arenas beside what no packing can go below; of several devices, the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// The most bytes alive during one kernel.
    pub lower_bound: u64,
}

/// What values are placed by, the least first.
type Order = fn(&Live) -> (Reverse<u64>, usize);

/// Places every value of the program.
pub fn plan(program: &mut Program) -> Packing {
    for result in program
        .kernels
        .iter()
        .filter(|k| k.prepare)
        .flat_map(|k| &k.results)
    {
        program.values[result.0].role = Role::Prepared;
    }
    let live = liveness(program);
    for value in &mut program.values {
        value.place = Place::Own;
    }
    let mut total = Packing {
        arena_bytes: 0,
        lower_bound: 0,
    };
    for device in 0..program.arena_bytes.len() {
        let here = |l: &&Live| program.value(l.value).device.0 == device;
        let live: Vec<Live> = live.iter().filter(here).copied().collect();
        let trails = trails(program, &live);
        let (placed, packing) = pack_best(trails.iter().map(|trail| trail.live).collect());
        for (live, offset) in placed {
            let own = trails.iter().filter(|trail| trail.live.value == live.value);
            for &(id, within) in own.flat_map(|trail| &trail.offsets) {
                program.values[id.0].place = Place::Arena(offset + within);
            }
        }
        program.arena_bytes[device] = packing.arena_bytes;
        total.arena_bytes += packing.arena_bytes;
        total.lower_bound += packing.lower_bound;
    }
    // A value that shares a buffer lies where the buffer does.
    for v in 0..program.values.len() {
        program.values[v].place = program.value(program.owner(ValueId(v))).place;
    }
    total
}

/// Bytes that each device needs for its values: the arena, and what lies outside of it.
pub fn bytes_of_devices(program: &Program) -> Vec<u64> {
    let mut bytes = program.arena_bytes.clone();
    for (v, value) in program.values.iter().enumerate() {
        let own = value.place == Place::Own && value.role != Role::Temporary;
        if own && program.owner(ValueId(v)) == ValueId(v) {
            bytes[value.device.0] += value.bytes();
        }
    }
    bytes
}

/// The smallest packing of all orders.
fn pack_best(live: Vec<Live>) -> (Vec<(Live, u64)>, Packing) {
    let orders: [Order; 4] = [
        |l| (Reverse(l.bytes), l.first),
        |l| (Reverse((l.last - l.first) as u64), l.first),
        |l| {
            (
                Reverse(l.bytes.saturating_mul((l.last - l.first + 1) as u64)),
                l.first,
            )
        },
        |l| (Reverse(0), l.first),
    ];
    let bound = lower_bound(&live);
    let packings = orders.into_iter().flat_map(|order| {
        let mut sorted = live.clone();
        sorted.sort_by_key(order);
        // Either an arena without an end, or one of the least bytes that it can have.
        [0, bound].map(|end| improve(sorted.clone(), bound, end))
    });
    let (placed, arena_bytes) = packings
        .min_by_key(|p| p.1)
        .expect("there is at least one order to try");
    let packing = Packing {
        arena_bytes,
        lower_bound: bound,
    };
    (placed, packing)
}

fn lower_bound(live: &[Live]) -> u64 {
    fullest(live).map_or(0, |(_, bytes)| bytes)
}

/// The kernel during which the most bytes are alive, the first of several, and how many.
pub fn fullest(live: &[Live]) -> Option<(usize, u64)> {
    let at = |k: usize| -> u64 {
        let alive = live.iter().filter(|l| l.at(k));
        alive.map(|l| l.bytes).sum()
    };
    let moments = live.iter().map(|l| (l.first, at(l.first)));
    moments.max_by_key(|&(k, bytes)| (bytes, std::cmp::Reverse(k)))
}

/// Packs in this order, then again and again with the value that reaches farthest placed first; the best of all. `end` as
/// in [`pack`].
fn improve(mut order: Vec<Live>, bound: u64, end: u64) -> (Vec<(Live, u64)>, u64) {
    let mut best = pack(&order, end);
    let mut latest = best.clone();
    for _ in 0..ATTEMPTS {
        if best.1 == bound {
            break;
        }
        let Some((highest, _)) = latest.0.iter().find(|(live, at)| at + live.bytes == latest.1) else {
            break;
        };
        let position = order
            .iter()
            .position(|l| l.value == highest.value)
            .expect("every value is placed");
        order[..=position].rotate_right(1);
        latest = pack(&order, end);
        if latest.1 < best.1 {
            best = latest.clone();
        }
    }
    best
}

/// Places values one after the other and returns the end of the last byte. What lies between the last neighbour and
/// `gap_end` is a gap.
fn pack(live: &[Live], gap_end: u64) -> (Vec<(Live, u64)>, u64) {
    let mut placed: Vec<(Live, u64)> = vec![];
    let mut end = 0;
    for &next in live {
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|(l, _)| l.meets(&next))
            .map(|(l, at)| (*at, at + l.bytes))
            .collect();
        taken.sort_unstable();
        let above = taken.iter().map(|&(_, to)| to).max().unwrap_or(0);
        let (mut best, mut top) = (None, 0);
        for (from, to) in taken.into_iter().chain([(gap_end, gap_end)]) {
            if from >= top + next.bytes && best.is_none_or(|(room, _)| from - top < room) {
                best = Some((from - top, top));
            }
            top = top.max(to);
        }
        let offset = best.map_or(above, |(_, at)| at);
        end = end.max(offset + next.bytes);
        placed.push((next, offset));
    }
    (placed, end)
}
