//! The cheapest tree of every value, as if nothing were shared: the start of a greedy selection.

use super::{ClassValueId, ExtractError, ExtractionProblem, FusedOp, FusionChoice};
use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};

/// A place and what has it; the greatest is the one with the least.
#[derive(PartialEq)]
pub(super) struct Next(pub f64, pub usize);

impl Eq for Next {}

impl Ord for Next {
    fn cmp(&self, other: &Next) -> Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Next) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The kernels, each with its core alone, at the roots of the cheapest trees of all that is wanted.
pub(super) fn cheapest_trees(problem: &ExtractionProblem) -> Result<FusionChoice, ExtractError> {
    let best = cheapest(problem);
    let mut choice = FusionChoice::new();
    let mut open: Vec<ClassValueId> = problem.wanted.iter().copied().collect();
    let mut seen: BTreeSet<ClassValueId> = problem.given.clone();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let kernel = best[value.0].ok_or(ExtractError::Unmade(value.0))?;
        choice.entry(kernel).or_default().insert(0);
        open.extend(problem.kernels[kernel].ops[0].needs.iter().map(|n| n.value));
    }
    Ok(choice)
}

/// For every value the kernel at the root of its cheapest tree. Trees are found from the cheapest on, so no value waits for
/// itself.
fn cheapest(problem: &ExtractionProblem) -> Vec<Option<usize>> {
    let core = |k: usize| -> &FusedOp { &problem.kernels[k].ops[0] };
    let mut users: Vec<Vec<usize>> = vec![vec![]; problem.traffic.len()];
    let mut missing: Vec<usize> = vec![];
    // Trees by their seconds: the value, and the kernel at the root.
    let mut open: BinaryHeap<Next> = BinaryHeap::new();
    let mut trees: Vec<(ClassValueId, usize)> = vec![];
    let mut known: Vec<Option<f64>> = vec![None; problem.traffic.len()];
    problem.given.iter().for_each(|v| known[v.0] = Some(0.0));
    let mut best: Vec<Option<usize>> = vec![None; problem.traffic.len()];
    let push = |k: usize, known: &[Option<f64>], open: &mut BinaryHeap<Next>, trees: &mut Vec<_>| {
        let needs = &core(k).needs;
        let below: f64 = needs.iter().filter_map(|n| known[n.value.0]).sum();
        let read: f64 = needs.iter().map(|n| problem.traffic[n.value.0]).sum();
        for &value in &core(k).makes {
            let own = core(k).compute.max(read + problem.traffic[value.0]) + problem.kernels[k].launch;
            open.push(Next(below + own, trees.len()));
            trees.push((value, k));
        }
    };
    for k in 0..problem.kernels.len() {
        let needs: BTreeSet<ClassValueId> = core(k).needs.iter().map(|n| n.value).collect();
        let absent = needs.into_iter().filter(|v| known[v.0].is_none());
        let mut count = 0;
        for value in absent {
            users[value.0].push(k);
            count += 1;
        }
        missing.push(count);
        if count == 0 {
            push(k, &known, &mut open, &mut trees);
        }
    }
    while let Some(Next(seconds, tree)) = open.pop() {
        let (value, kernel) = trees[tree];
        if known[value.0].is_some() {
            continue;
        }
        (known[value.0], best[value.0]) = (Some(seconds), Some(kernel));
        for k in std::mem::take(&mut users[value.0]) {
            missing[k] -= 1;
            if missing[k] == 0 {
                push(k, &known, &mut open, &mut trees);
            }
        }
    }
    best
}
