//! A selection without search: every value by the kernel that is cheapest if nothing is shared, then members moved into
//! kernels one by one for as long as that helps.

use super::{Choice, ExtractError, Member, Problem, Selection, ValueIx};
use std::collections::BTreeSet;

/// Selects greedily. Its bound is zero: it proves nothing.
pub fn select(problem: &Problem) -> Result<Selection, ExtractError> {
    let mut choice = cheapest_trees(problem)?;
    let realise = |choice: &Choice| {
        problem
            .realise(choice)
            .map_err(|stuck| ExtractError::Unmade(stuck.missing.0))
    };
    let mut best = realise(&choice)?;
    loop {
        let before = best.seconds;
        for kernel in choice.keys().copied().collect::<Vec<_>>() {
            for member in 1..problem.kernels[kernel].members.len() {
                let mut tried = choice.clone();
                let Some(members) = tried.get_mut(&kernel) else {
                    break;
                };
                if !members.insert(member) || is_impossible(problem, kernel, members) {
                    continue;
                }
                let Ok(found) = problem.realise(&tried) else {
                    continue;
                };
                let fits = found.taken.iter().all(|t| t.stores.len() <= problem.outputs);
                if fits && found.seconds < best.seconds {
                    choice = found.choice();
                    best = found;
                }
            }
        }
        if best.seconds >= before {
            return Ok(best);
        }
    }
}

fn is_impossible(problem: &Problem, kernel: usize, members: &BTreeSet<usize>) -> bool {
    let excluded = |(k, set): &(usize, BTreeSet<usize>)| *k == kernel && set.is_subset(members);
    problem.impossible.iter().any(excluded)
}

/// The kernels, each with its core alone, at the roots of the cheapest trees of all that is wanted.
fn cheapest_trees(problem: &Problem) -> Result<Choice, ExtractError> {
    let best = cheapest(problem);
    let mut choice = Choice::new();
    let mut open: Vec<ValueIx> = problem.wanted.iter().copied().collect();
    let mut seen: BTreeSet<ValueIx> = problem.given.clone();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let (_, kernel) = best[value.0].ok_or(ExtractError::Unmade(value.0))?;
        choice.entry(kernel).or_default().insert(0);
        open.extend(problem.kernels[kernel].members[0].needs.iter().map(|n| n.value));
    }
    Ok(choice)
}

/// For every value the seconds of its cheapest tree, and the kernel at its root. What a kernel reads is cheaper than what it
/// makes, so no value waits for itself.
fn cheapest(problem: &Problem) -> Vec<Option<(f64, usize)>> {
    let mut best: Vec<Option<(f64, usize)>> = vec![None; problem.traffic.len()];
    loop {
        let mut changed = false;
        for (k, kernel) in problem.kernels.iter().enumerate() {
            let core: &Member = &kernel.members[0];
            let cost = |v: ValueIx| match problem.given.contains(&v) {
                true => Some(0.0),
                false => best[v.0].map(|b| b.0),
            };
            let Some(needs) = core.needs.iter().map(|n| cost(n.value)).sum::<Option<f64>>() else {
                continue;
            };
            let read: f64 = core.needs.iter().map(|n| problem.traffic[n.value.0]).sum();
            for &value in &core.makes {
                let own = core.compute.max(read + problem.traffic[value.0]) + kernel.launch;
                // The smallest step keeps the order strict where kernels cost nothing.
                let seconds = needs + own.max(1e-12);
                if best[value.0].is_none_or(|(known, _)| seconds < known * (1.0 - 1e-12)) {
                    best[value.0] = Some((seconds, k));
                    changed = true;
                }
            }
        }
        if !changed {
            return best;
        }
    }
}
