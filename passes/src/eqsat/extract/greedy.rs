//! A selection without search: every value by the way that is cheapest if nothing is shared, then what is shared is
//! shared.

use super::{ExtractError, Problem, Selection, ValueIx};
use std::collections::BTreeSet;

/// Selects greedily. Its bound is zero: it proves nothing.
pub fn select(problem: &Problem) -> Result<Selection, ExtractError> {
    let best = cheapest(problem);
    let mut chosen: BTreeSet<usize> = BTreeSet::new();
    let mut open: Vec<ValueIx> = problem.wanted.iter().copied().collect();
    let mut seen: BTreeSet<ValueIx> = problem.given.clone();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let (_, candidate) = best[value.0].ok_or(ExtractError::Unmade(value.0))?;
        chosen.insert(candidate);
        open.extend(&problem.candidates[candidate].needs);
    }
    let chosen: Vec<usize> = chosen.into_iter().collect();
    let taken = problem
        .order(&chosen)
        .map_err(|missing| ExtractError::Unmade(missing.0))?;
    Ok(Selection {
        seconds: problem.seconds(&taken),
        taken,
        bound: 0.0,
    })
}

/// For every value the seconds of its cheapest tree, and the candidate at its root. A candidate's needs are cheaper than
/// what it makes, so no value waits for itself.
fn cheapest(problem: &Problem) -> Vec<Option<(f64, usize)>> {
    let mut best: Vec<Option<(f64, usize)>> = vec![None; problem.values];
    loop {
        let mut changed = false;
        for (c, candidate) in problem.candidates.iter().enumerate() {
            let cost = |v: &ValueIx| match problem.given.contains(v) {
                true => Some(0.0),
                false => best[v.0].map(|b| b.0),
            };
            let Some(needs) = candidate.needs.iter().map(cost).sum::<Option<f64>>() else {
                continue;
            };
            for &(value, _) in &candidate.offers {
                // The smallest step keeps the order strict where candidates cost nothing.
                let seconds = needs + candidate.seconds(|v| v == value).max(1e-12);
                if best[value.0].is_none_or(|(known, _)| seconds < known * (1.0 - 1e-12)) {
                    best[value.0] = Some((seconds, c));
                    changed = true;
                }
            }
        }
        if !changed {
            return best;
        }
    }
}
