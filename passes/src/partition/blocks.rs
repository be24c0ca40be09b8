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

/// A choice for every kernel.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) chosen: Vec<usize>,
    /// In the solver's units.
    pub(super) cost: f64,
}

impl Problem<'_> {
    /// What is known, or else the start, improved by blocks that gain so much of the cost, until it costs no more than is
    /// enough, or for so many seconds and sweeps over the program. `None` for programs that are no larger than two blocks, or
    /// if no block was solved.
    pub(super) fn improved(
        &self,
        stated: &Stated,
        start: &[usize],
        mut known: Option<Known>,
        gain: f64,
        enough: f64,
        (sweeps, seconds): (usize, f64),
    ) -> Option<Known> {
        if self.kernels.len() <= 2 * BLOCK {
            return known;
        }
        let begun = Instant::now();
        let left = || seconds - begun.elapsed().as_secs_f64();
        let neighbours = self.neighbours();
        for _ in 0..sweeps {
            let mut better = false;
            for middle in (0..self.kernels.len()).step_by(STEP) {
                if left() <= 0.0 || known.as_ref().is_some_and(|known| known.cost <= enough) {
                    return known;
                }
                let limits = Limits {
                    seconds: left(),
                    gap: gain,
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
        known
    }

    /// A bound on the cost: that of the program if nothing has to be whole.
    pub(super) fn relaxed(stated: &Stated, limits: Limits) -> f64 {
        match stated.model.answer(&stated.cost, limits, Effort::Relaxed) {
            Ok(Answer::Solved(relaxed)) => relaxed.bound,
            Ok(Answer::Infeasible | Answer::Unknown { .. }) | Err(_) => 0.0,
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
            model.row(constraint!(
                stated.cost.clone() <= known.cost * (1.0 - limits.gap)
            ));
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
