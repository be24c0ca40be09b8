//! A part too large to solve at once, in windows along a known selection.
//!
//! What the selection stores in one window and reads in another stays stored there; within a window everything is open. That
//! improves the selection, and proves nothing: the bound of the part is counted ([`Part::counted_bound`]).

use super::bits::Bits;
use super::parts::Part;
use super::{ClassValueId, ExtractionProblem, Selection};
use std::collections::{BTreeMap, BTreeSet};

/// The most decisions of a window. What is larger by one kernel of the selection alone stays as it is.
pub const MAX_WINDOW: usize = 400;

/// A piece of a part that is solved by itself.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub part: Part,
    /// Values that it may store.
    pub home: Bits,
    /// Values that are in memory whatever it selects, those that others store among them.
    pub pinned: Bits,
}

/// The windows of a part; `forced` are values that are in memory in every selection.
pub(super) fn windows(
    problem: &ExtractionProblem,
    part: &Part,
    start: &Selection,
    forced: &Bits,
) -> Vec<Window> {
    let own = |k: usize| part.kernels.binary_search(&k).is_ok();
    let taken: Vec<_> = start.taken.iter().filter(|taken| own(taken.kernel)).collect();
    // The kernel of the selection that a value belongs to: the one that stores it, or computes it.
    let mut home: BTreeMap<ClassValueId, usize> = BTreeMap::new();
    for (position, taken) in taken.iter().enumerate() {
        taken.stores.iter().for_each(|&v| _ = home.insert(v, position));
    }
    for (position, taken) in taken.iter().enumerate() {
        let ops = &problem.kernels[taken.kernel].ops;
        for &value in taken.ops.iter().flat_map(|&m| &ops[m].makes) {
            home.entry(value).or_insert(position);
        }
    }
    let running: BTreeMap<usize, usize> = taken.iter().enumerate().map(|(i, t)| (t.kernel, i)).collect();
    let mut candidates: Vec<Vec<usize>> = vec![vec![]; taken.len()];
    for &k in &part.kernels {
        let first = problem.kernels[k].ops[0].makes.first();
        let position = running.get(&k).or_else(|| home.get(first?));
        if let Some(&position) = position {
            candidates[position].push(k);
        }
    }
    let one = |kernels: &[usize]| {
        let part = Part {
            kernels: kernels.to_vec(),
        };
        part.decisions(problem)
    };
    let sizes: Vec<usize> = candidates.iter().map(|kernels| one(kernels)).collect();
    let mut found = vec![];
    let mut first = 0;
    while first < taken.len() {
        let mut last = first + 1;
        let mut size = sizes[first];
        while last < taken.len() && size + sizes[last] <= MAX_WINDOW {
            size += sizes[last];
            last += 1;
        }
        let range = first..last;
        first = last;
        if size > MAX_WINDOW {
            continue;
        }
        let mut kernels: Vec<usize> = range
            .clone()
            .flat_map(|i| candidates[i].iter().copied())
            .collect();
        kernels.sort_unstable();
        let mut window = Window {
            part: Part { kernels },
            home: Bits::none(problem.traffic.len()),
            pinned: forced.clone(),
        };
        for (&value, position) in &home {
            if range.contains(position) {
                window.home.insert(value);
            }
        }
        let inside: BTreeSet<ClassValueId> = range
            .clone()
            .flat_map(|i| taken[i].stores.iter().copied())
            .collect();
        for (position, taken) in taken.iter().enumerate() {
            let is_here = range.contains(&position);
            for &value in &taken.reads {
                if inside.contains(&value) != is_here {
                    window.pinned.insert(value);
                }
            }
        }
        found.push(window);
    }
    found
}
