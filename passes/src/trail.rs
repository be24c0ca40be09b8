//! What is written in turns follows what the same turns read for the last time, one turn behind it in the same bytes.
//!
//! A gradient through a normalisation, say, is made from what was normalised, and takes its place:
//!
//! ```text
//! turn 0   [      | old 0 | old 1 | old 2 ]     reads old 0, writes new 0 in front of it
//! turn 1   [ new 0|       | old 1 | old 2 ]     reads old 1, writes new 1 where old 0 was
//! turn 2   [ new 0| new 1 |       | old 2 ]
//! ```
//!
//! Both together need one window more than the larger of them, and nothing is computed or moved for it. What follows may
//! itself be followed. All of a trail keeps its shape when memory is planned, and others may lie where one of its values is
//! not there yet, or no more.

use ir::live::Live;
use ir::program::{KernelCall, Program, ValueId};
use std::ops::RangeInclusive;

/// Values that follow each other through the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// The values, and where each of them lies in the trail.
    pub parts: Vec<(Live, u64)>,
}

impl Trail {
    /// From its first byte to its last.
    pub fn bytes(&self) -> u64 {
        let ends = self.parts.iter().map(|(live, offset)| offset + live.bytes);
        ends.max().unwrap_or(0)
    }

    /// The first and last kernel during which some of it is alive.
    pub fn life(&self) -> (usize, usize) {
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
    turns: u64,
}

/// Every value of the arena in a trail, most of them alone: as many follow each other as can without more bytes being
/// alive at the fullest moment, the largest first.
pub fn trails(program: &Program, live: &[Live]) -> Vec<Trail> {
    let alone = |&live: &Live| Trail {
        parts: vec![(live, 0)],
    };
    let mut trails: Vec<Trail> = live.iter().map(alone).collect();
    let mut pairs = pairs(program, live);
    pairs.sort_by_key(|pair| std::cmp::Reverse(live[pair.old].bytes.min(live[pair.new].bytes)));
    let mut taken: Vec<Pair> = vec![];
    let mut least = most_alive(&trails);
    for pair in pairs {
        if taken
            .iter()
            .any(|other| other.old == pair.old || other.new == pair.new)
        {
            continue;
        }
        let joined = join(&trails, live, pair);
        let most = most_alive(&joined);
        if most <= least {
            least = most;
            trails = joined;
            taken.push(pair);
        }
    }
    trails
}

fn most_alive(trails: &[Trail]) -> u64 {
    crate::memory::fullest(trails).map_or(0, |(_, bytes)| bytes)
}

/// What a group reads for the last time, with what it makes for others, where it touches nothing but windows of both.
fn pairs(program: &Program, live: &[Live]) -> Vec<Pair> {
    let mut pairs = vec![];
    let mut first = 0;
    for run in program.runs() {
        let last = first + run.len() - 1;
        if run[0].turns() == 1 {
            first = last + 1;
            continue;
        }
        let in_turns = |l: &Live| only_windows(program, run, l.value);
        let ends = |l: &Live| l.first < first && l.last == last && in_turns(l);
        let begins = |l: &Live| l.first == first && l.last > last && in_turns(l);
        let positions = |of: &dyn Fn(&Live) -> bool| (0..live.len()).filter(|&i| of(&live[i])).collect();
        let (olds, news): (Vec<usize>, Vec<usize>) = (positions(&ends), positions(&begins));
        for &old in &olds {
            let device = program.value(live[old].value).device;
            let here = news
                .iter()
                .filter(|&&new| program.value(live[new].value).device == device);
            let turns = run[0].turns() as u64;
            pairs.extend(here.map(|&new| Pair { old, new, turns }));
        }
        first = last + 1;
    }
    pairs
}

fn only_windows(program: &Program, run: &[KernelCall], id: ValueId) -> bool {
    let touched = run
        .iter()
        .flat_map(|call| call.operands.iter().chain(&call.results));
    let mut own = touched.filter(|&&v| program.owner(v) == id);
    own.all(|&v| program.value(v).window)
}

/// The trails with two of them in one.
fn join(trails: &[Trail], live: &[Live], pair: Pair) -> Vec<Trail> {
    let (old, new) = (live[pair.old], live[pair.new]);
    let of = |id: ValueId| {
        let has = |trail: &&Trail| trail.parts.iter().any(|(live, _)| live.value == id);
        trails.iter().find(has).expect("every value is in a trail")
    };
    let (before, after) = (of(old.value), of(new.value));
    let within = |trail: &Trail, id: ValueId| {
        let found = trail.parts.iter().find(|(live, _)| live.value == id);
        found.expect("the value is in its trail").1 as i64
    };
    let windows = (old.bytes / pair.turns) as i64..=(new.bytes / pair.turns) as i64;
    // Where the later trail begins in terms of the earlier one, and where both do.
    let shift = within(before, old.value) - behind(windows, pair.turns as i64) - within(after, new.value);
    let start = shift.min(0);
    let moved = |trail: &Trail, by: i64| -> Vec<(Live, u64)> {
        let at = |&(live, offset): &(Live, u64)| (live, (offset as i64 + by - start) as u64);
        trail.parts.iter().map(at).collect()
    };
    let joined = Trail {
        parts: [moved(before, 0), moved(after, shift)].concat(),
    };
    let others = trails.iter().filter(|trail| *trail != before && *trail != after);
    others.cloned().chain([joined]).collect()
}

/// How many bytes before the old value the new one begins, so that the end of its window is never after the beginning of
/// the old one's.
fn behind(windows: RangeInclusive<i64>, turns: i64) -> i64 {
    let (&old, &new) = (windows.start(), windows.end());
    new.max(turns * new - (turns - 1) * old)
}
