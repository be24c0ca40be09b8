//! A strategy improved block by block, for [`super::search`].
//!
//! A search of the whole program is long in finding a good strategy, and quick in proving that one is: what holds it up are
//! kernels that have to change together, as the layers that read a parameter, its gradient and its update. So the solver is
//! asked for the cheapest places of a *block* at a time, a kernel and those that share values with it, nearest first, all
//! others being where they are; until no block gets cheaper. The limit of each is one of nodes, so that what is found does not
//! depend on what else the machine does.

use super::program::Stated;
use super::search::Problem;
use crate::solver::{Answer, Effort, Limits};
use good_lp::constraint;
use std::collections::BTreeSet;
use std::time::Instant;

/// Kernels of a block.
const BLOCK: usize = 10;
/// Kernels between the middles of two blocks.
const STEP: usize = 3;
/// Nodes of a search for the places of a block.
const NODES: i32 = 20;
/// What must be gained by a block, relative to the cost.
const GAIN: f64 = 2e-3;
/// What of the seconds blocks may take, at the most; the rest is for the bound.
const SHARE: f64 = 0.6;

/// A choice for every kernel.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) chosen: Vec<usize>,
    /// In the solver's units.
    pub(super) cost: f64,
}

impl Problem<'_> {
    /// The start, improved; `None` for programs that are no larger than two blocks, or if no block was solved.
    pub(super) fn improved(&self, stated: &Stated, start: &[usize], limits: Limits) -> Option<Known> {
        if self.kernels.len() <= 2 * BLOCK {
            return None;
        }
        let begun = Instant::now();
        let left = || limits.seconds * SHARE - begun.elapsed().as_secs_f64();
        let relaxed = stated.model.answer(&stated.cost, limits, Effort::Relaxed);
        let bound = match relaxed {
            Ok(Answer::Solved(relaxed)) => relaxed.bound,
            Ok(Answer::Infeasible | Answer::Unknown { .. }) | Err(_) => 0.0,
        };
        let neighbours = self.neighbours();
        let mut known: Option<Known> = None;
        loop {
            let mut better = false;
            for middle in (0..self.kernels.len()).step_by(STEP) {
                let near = |known: &Known| known.cost * (1.0 - limits.gap) <= bound;
                if left() <= 0.0 || known.as_ref().is_some_and(near) {
                    return known;
                }
                let limits = Limits {
                    seconds: left(),
                    gap: GAIN,
                };
                let block = around(&neighbours, middle);
                if let Some(found) = self.of_block(stated, &block, start, known.as_ref(), limits) {
                    known = Some(found);
                    better = true;
                }
            }
            if !better {
                return known;
            }
        }
    }

    /// Better places for the kernels of a block than what is known, or than the start, if there are.
    fn of_block(
        &self,
        stated: &Stated,
        block: &BTreeSet<usize>,
        start: &[usize],
        known: Option<&Known>,
        limits: Limits,
    ) -> Option<Known> {
        let chosen = known.map_or(start, |known| &known.chosen);
        let mut model = stated.model.clone();
        let others = |(k, _): &(usize, _)| !block.contains(k);
        for (k, columns) in stated.place.iter().enumerate().filter(others) {
            model.row(constraint!(columns[chosen[k]].variable == 1));
        }
        if let Some(known) = known {
            model.row(constraint!(stated.cost.clone() <= known.cost * (1.0 - GAIN)));
        }
        match model.answer(&stated.cost, limits, Effort::Nodes(NODES)) {
            Ok(Answer::Solved(solution)) => Some(Known {
                chosen: stated.chosen(&solution)?,
                cost: solution.cost,
            }),
            Ok(Answer::Infeasible | Answer::Unknown { .. }) | Err(_) => None,
        }
    }

    /// Of each kernel those that make or read a value that it makes or reads.
    fn neighbours(&self) -> Vec<BTreeSet<usize>> {
        let mut neighbours = vec![BTreeSet::new(); self.kernels.len()];
        for (need, users) in &self.needs {
            let users = users.iter().map(|(k, _)| *k);
            let all: BTreeSet<usize> = users.chain([self.maker[&need.value]]).collect();
            for &k in &all {
                neighbours[k].extend(all.iter().filter(|&&other| other != k));
            }
        }
        neighbours
    }
}

/// A kernel and others, the nearest first, that are a block.
fn around(neighbours: &[BTreeSet<usize>], middle: usize) -> BTreeSet<usize> {
    let mut block = vec![middle];
    let mut next = 0;
    while next < block.len() && block.len() < BLOCK {
        let more = neighbours[block[next]].iter().copied();
        let more: Vec<usize> = more.filter(|k| !block.contains(k)).collect();
        block.extend(more);
        next += 1;
    }
    block.into_iter().take(BLOCK).collect()
}
