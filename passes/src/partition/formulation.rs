//! The integer program of [`super::search`].
//!
//! ```text
//! place[k, p] ∈ {0, 1}          kernel k runs as placement p:        Σ over p of place[k, p] = 1
//! transfer[v, p, n] ≥ 0            v, made as p, is transferred where the required region n is
//! Σ over p of transfer[v, p, n] ≥ Σ place[k, q]                         over placements q of a reader k that need n
//! transfer[v, p, n] ≤ place[producer of v, p]
//! seconds[d] = Σ work of d in place[k, p] + Σ transfers to d in transfer[v, p, n]
//! length[k] = Σ longest work of a device in place[k, p]
//! start[k] ≥ start[j] + length[j] + transfers of v                   for every v that k reads and j makes
//! minimise makespan + a little of the sum of all,  makespan ≥ seconds[d], makespan ≥ start[k] + length[k]
//! ```
//!
//! Of the longest path, and for every device `d`, also: between the ends of two of its kernels lies all work of `d` that waits
//! for the one and that the other waits for, and after each of them all work that waits for it ([`super::intervals`]).
//!
//! A *required region* is a region of a value on a device. `transfer` costs nothing where the region was made on that device; else the transfer
//! counts for the device that receives, and whoever reads a value waits until it is everywhere where it is needed. A parameter
//! is needed where it is read, and made by the kernel that updates it. So the makespan is the largest of these bounds; that
//! the queues keep to it is what a simulation checks.

use super::resident::PeakPoints;
use super::search::PlacementProblem;
use crate::solver::{Column, Model, Solution};
use good_lp::{Expression, constraint};
use std::collections::{BTreeMap, BTreeSet};

/// What the work of all devices counts beside the makespan: of equal ones the strategy with less work is better.
const TOTAL: f64 = 0.01;
/// The makespan in the solver's units: its tolerances are absolute.
const SCALE: f64 = 1e3;

/// The program.
pub(super) struct Formulation {
    pub(super) model: Model,
    /// Of each kernel a column a choice.
    pub(super) place: Vec<Vec<Column>>,
    pub(super) cost: Expression,
    /// Seconds of one of the solver's units.
    unit: f64,
    devices: usize,
}

/// What rows are made of.
pub(super) struct Columns<'a> {
    /// Of each kernel a column a choice.
    pub(super) place: &'a [Vec<Column>],
    /// Of each required region what bringing it takes.
    pub(super) transfers: &'a [Expression],
    pub(super) makespan: Column,
    /// Seconds of one of the solver's units.
    pub(super) unit: f64,
}

impl Formulation {
    /// The choice of every kernel; `None` if the solver leaves one without.
    pub(super) fn chosen(&self, solution: &Solution) -> Option<Vec<usize>> {
        let chosen = |columns: &Vec<Column>| columns.iter().position(|&c| solution.is_set(c));
        self.place.iter().map(chosen).collect()
    }

    /// The bound on the makespan, in seconds, that follows from one of the cost.
    pub(super) fn makespan(&self, cost: f64) -> f64 {
        // The total is a part of the cost that the makespan bounds from above.
        cost * self.unit / (1.0 + TOTAL * self.devices as f64)
    }
}

impl PlacementProblem<'_> {
    /// States that all kernels have a place, how long makespans are at the least, and that no more is held than there is
    /// room for. They are in units of that of a start.
    pub(super) fn state(&self, start: &[usize], room: Option<(&PeakPoints, &[f64])>) -> Formulation {
        let unit = self.seconds(start).into_iter().fold(f64::MIN_POSITIVE, f64::max) / SCALE;
        let mut model = Model::default();
        let place: Vec<Vec<Column>> = self
            .kernels
            .iter()
            .map(|choices| choices.iter().map(|_| model.binary()).collect())
            .collect();
        let mut seconds = vec![Expression::default(); self.costs.len()];
        for (columns, choices) in place.iter().zip(&self.kernels) {
            let one: Expression = columns.iter().map(|c| c.variable).sum();
            model.row(constraint!(one == 1));
            for (column, choice) in columns.iter().zip(choices) {
                for (sum, s) in seconds.iter_mut().zip(&choice.seconds) {
                    *sum += *s / unit * column.variable;
                }
            }
        }
        let mut transfers = vec![];
        for (need, users) in &self.required {
            let mut delay = Expression::default();
            let producer = self.producer[&need.value];
            let mut there = Expression::default();
            for (p, made) in self.kernels[producer].iter().enumerate() {
                let cost = self.transfer(made, need);
                if cost == 0.0 {
                    there += place[producer][p].variable;
                    continue;
                }
                let transfer = model.positive();
                model.row(constraint!(transfer.variable <= place[producer][p].variable));
                seconds[need.device] += cost / unit * transfer.variable;
                delay += cost / unit * transfer.variable;
                there += transfer.variable;
            }
            let mut readers: BTreeMap<usize, Expression> = BTreeMap::new();
            for &(k, p) in users {
                *readers.entry(k).or_default() += place[k][p].variable;
            }
            for reads in readers.into_values() {
                model.row(constraint!(there.clone() >= reads));
            }
            transfers.push(delay);
        }
        let makespan = model.positive();
        if let Some((peak_points, room)) = room {
            self.bound_resident(&mut model, &place, peak_points, room);
        }
        let columns = Columns {
            place: &place,
            transfers: &transfers,
            makespan,
            unit,
        };
        self.critical_path(&mut model, &columns);
        self.intervals(&mut model, &columns);
        let mut cost: Expression = makespan.variable.into();
        for sum in seconds {
            model.row(constraint!(makespan.variable >= sum.clone()));
            cost += TOTAL * sum;
        }
        Formulation {
            model,
            place,
            cost,
            unit,
            devices: self.costs.len(),
        }
    }

    /// The kernels that need the value of a required region and run after its producer.
    pub(super) fn readers_of(&self, need: usize) -> BTreeSet<usize> {
        let (need, users) = &self.required[need];
        let producer = self.producer[&need.value];
        users.iter().map(|(k, _)| *k).filter(|&k| k > producer).collect()
    }

    /// Every kernel begins when what it reads is there.
    fn critical_path(&self, model: &mut Model, columns: &Columns) {
        let Columns {
            place,
            transfers,
            makespan,
            unit,
        } = columns;
        let begin: Vec<Column> = self.kernels.iter().map(|_| model.positive()).collect();
        let mut end: Vec<Expression> = vec![];
        for ((places, choices), begin) in place.iter().zip(&self.kernels).zip(&begin) {
            let mut end_of: Expression = begin.variable.into();
            for (column, choice) in places.iter().zip(choices) {
                let longest = choice.seconds.iter().copied().fold(0.0, f64::max);
                end_of += longest / unit * column.variable;
            }
            end.push(end_of);
        }
        for end in &end {
            model.row(constraint!(makespan.variable >= end.clone()));
        }
        for ((n, (need, _)), delay) in self.required.iter().enumerate().zip(*transfers) {
            let producer = self.producer[&need.value];
            for k in self.readers_of(n) {
                model.row(constraint!(
                    begin[k].variable >= end[producer].clone() + delay.clone()
                ));
            }
        }
    }
}
