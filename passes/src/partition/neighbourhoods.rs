//! A strategy improved neighbourhood by neighbourhood, for [`super::search`].
//!
//! A search of the whole program is long in finding a good strategy, and quick in proving that one is: what holds it up are
//! kernels that have to change together, as the layers that read a parameter, its gradient and its update. So the solver is
//! asked for the cheapest places of a neighbourhood at a time, a kernel and those that share values with it, nearest first, all
//! others being where they are; until no neighbourhood gets cheaper. The limit of each is one of nodes, so that what is found does not
//! depend on what else the machine does.

use super::formulation::Formulation;
use super::search::PlacementProblem;
use crate::solver::{Answer, Budget, Limits};
use good_lp::constraint;
use std::collections::BTreeSet;
use std::time::Instant;

/// Kernels of a neighbourhood.
const NEIGHBOURHOOD: usize = 10;
/// Kernels between the middles of two neighbourhoods.
const STEP: usize = 3;
/// Nodes of a search for the places of a neighbourhood.
const NODES: i32 = 20;

/// A choice for every kernel.
#[derive(Clone, Debug)]
pub(super) struct Incumbent {
    pub(super) chosen: Vec<usize>,
    /// In the solver's units.
    pub(super) cost: f64,
}

impl PlacementProblem<'_> {
    /// What is known, or else the start, improved by neighbourhoods that gain so much of the cost, until it costs no more than is
    /// enough, or for so many seconds and sweeps over the program. `None` for programs that are no larger than two neighbourhoods, or
    /// if no neighbourhood was solved.
    pub(super) fn improved(
        &self,
        formulation: &Formulation,
        start: &[usize],
        mut incumbent: Option<Incumbent>,
        gain: f64,
        enough: f64,
        (sweeps, seconds): (usize, f64),
    ) -> Option<Incumbent> {
        if self.kernels.len() <= 2 * NEIGHBOURHOOD {
            return incumbent;
        }
        let begun = Instant::now();
        let left = || seconds - begun.elapsed().as_secs_f64();
        let neighbours = self.neighbours();
        for _ in 0..sweeps {
            let mut better = false;
            for middle in (0..self.kernels.len()).step_by(STEP) {
                if left() <= 0.0
                    || incumbent
                        .as_ref()
                        .is_some_and(|incumbent| incumbent.cost <= enough)
                {
                    return incumbent;
                }
                let limits = Limits {
                    seconds: left(),
                    gap: gain,
                };
                let neighbourhood = around(&neighbours, middle);
                if let Some(found) =
                    self.in_neighbourhood(formulation, &neighbourhood, start, incumbent.as_ref(), limits)
                {
                    incumbent = Some(found);
                    better = true;
                }
            }
            if !better {
                return incumbent;
            }
        }
        incumbent
    }

    /// A bound on the cost: that of the program if nothing has to be whole.
    pub(super) fn relaxed(formulation: &Formulation, limits: Limits) -> f64 {
        match formulation
            .model
            .answer(&formulation.cost, limits, Budget::Relaxed)
        {
            Ok(Answer::Solved(relaxed)) => relaxed.bound,
            Ok(Answer::Infeasible | Answer::Unknown { .. }) | Err(_) => 0.0,
        }
    }

    /// Better places for the kernels of a neighbourhood than what is known, or than the start, if there are.
    fn in_neighbourhood(
        &self,
        formulation: &Formulation,
        neighbourhood: &BTreeSet<usize>,
        start: &[usize],
        incumbent: Option<&Incumbent>,
        limits: Limits,
    ) -> Option<Incumbent> {
        let chosen = incumbent.map_or(start, |incumbent| &incumbent.chosen);
        let mut model = formulation.model.clone();
        let others = |(k, _): &(usize, _)| !neighbourhood.contains(k);
        for (k, columns) in formulation.place.iter().enumerate().filter(others) {
            model.row(constraint!(columns[chosen[k]].variable == 1));
        }
        if let Some(incumbent) = incumbent {
            model.row(constraint!(
                formulation.cost.clone() <= incumbent.cost * (1.0 - limits.gap)
            ));
        }
        match model.answer(&formulation.cost, limits, Budget::Nodes(NODES)) {
            Ok(Answer::Solved(solution)) => Some(Incumbent {
                chosen: formulation.chosen(&solution)?,
                cost: solution.cost,
            }),
            Ok(Answer::Infeasible | Answer::Unknown { .. }) | Err(_) => None,
        }
    }

    /// Of each kernel those that make or read a value that it makes or reads.
    fn neighbours(&self) -> Vec<BTreeSet<usize>> {
        let mut neighbours = vec![BTreeSet::new(); self.kernels.len()];
        for (need, users) in &self.required {
            let users = users.iter().map(|(k, _)| *k);
            let all: BTreeSet<usize> = users.chain([self.producer[&need.value]]).collect();
            for &k in &all {
                neighbours[k].extend(all.iter().filter(|&&other| other != k));
            }
        }
        neighbours
    }
}

/// A kernel and others, the nearest first, that are a neighbourhood.
fn around(neighbours: &[BTreeSet<usize>], middle: usize) -> BTreeSet<usize> {
    let mut neighbourhood = vec![middle];
    let mut next = 0;
    while next < neighbourhood.len() && neighbourhood.len() < NEIGHBOURHOOD {
        let more = neighbours[neighbourhood[next]].iter().copied();
        let more: Vec<usize> = more.filter(|k| !neighbourhood.contains(k)).collect();
        neighbourhood.extend(more);
        next += 1;
    }
    neighbourhood.into_iter().take(NEIGHBOURHOOD).collect()
}
