//! What devices hold, as rows of the integer program of [`super::search`].
//!
//! ```text
//! resident[v, d] ≥ Σ share of v that kernel k touches on d · place[k, p]          for every kernel k that touches v
//! Σ bytes of v · resident[v, d] ≤ room[d]          over parameters, state, interface, and what is alive at a peak point
//! ```
//!
//! That is less than a device will need: what kernels keep to themselves, storage padding and copies on their way are not in it. So a
//! placement is measured as it will be compiled, and where it does not fit the room becomes smaller by what was missed.

use super::search::PlacementProblem;
use crate::solver::{Column, Model};
use good_lp::{Expression, constraint};
use ir::live::liveness;
use ir::plan::Role;
use ir::program::{Program, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// How many of the peak points have a row.
const MAX_PEAK_POINTS: usize = 8;
/// Room in the solver's units: its tolerances are absolute.
const SCALE: f64 = 1e3;

/// Values by what they are alive for.
pub(super) struct PeakPoints {
    /// The values of each peak point, with their bytes as a whole.
    values: Vec<BTreeMap<ValueId, f64>>,
}

impl PeakPoints {
    /// The peak points of a program when it holds the most.
    pub(super) fn of(program: &Program) -> PeakPoints {
        let bytes = |id: ValueId| {
            let value = program.value(id);
            (value.extents.iter().product::<usize>() * value.dtype.bytes()) as f64
        };
        let all = (0..program.values.len()).map(ValueId);
        let stays = |&id: &ValueId| program.owner(id) == id && program.value(id).role != Role::Temporary;
        let always: BTreeMap<ValueId, f64> = all.filter(stays).map(|id| (id, bytes(id))).collect();
        let live = liveness(program);
        let mut values: Vec<BTreeMap<ValueId, f64>> = vec![];
        for k in 0..program.kernels.len() {
            let alive = live.iter().filter(|l| l.at(k));
            let alive = alive.map(|l| (l.value, bytes(l.value)));
            values.push(always.clone().into_iter().chain(alive).collect());
        }
        values.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
        values.truncate(MAX_PEAK_POINTS);
        PeakPoints { values }
    }

    /// The most bytes that one device would hold.
    pub(super) fn most(&self) -> f64 {
        self.values.first().map_or(0.0, sum)
    }
}

fn sum(values: &BTreeMap<ValueId, f64>) -> f64 {
    values.values().sum()
}

impl PlacementProblem<'_> {
    /// The largest share of a value that a choice touches on a device.
    fn touched_share(&self, k: usize, p: usize, id: ValueId, device: usize) -> f64 {
        let choice = &self.kernels[k][p];
        let shards = choice.reads.iter().chain(&choice.writes);
        let here = shards.filter(|shard| (shard.value, shard.device) == (id, device));
        let volumes = here.map(|shard| crate::region::volume(&shard.region) as f64);
        let whole: usize = self.program.value(id).extents.iter().product();
        volumes.fold(0.0, f64::max) / whole.max(1) as f64
    }

    /// The kernels that touch a value.
    fn touching(&self, id: ValueId) -> Vec<usize> {
        let touches = |k: &usize| {
            let choice = self.kernels[*k].iter();
            let mut shards = choice.flat_map(|choice| choice.reads.iter().chain(&choice.writes));
            shards.any(|shard| shard.value == id)
        };
        (0..self.kernels.len()).filter(touches).collect()
    }

    /// Bytes that each device holds at the peak point, by the rows' account.
    pub(super) fn resident(&self, peak_points: &PeakPoints, chosen: &[usize]) -> Vec<f64> {
        let on = |device: usize| {
            let of_value = |(&id, bytes): (&ValueId, &f64)| {
                let kernels = self.touching(id).into_iter();
                bytes
                    * kernels
                        .map(|k| self.touched_share(k, chosen[k], id, device))
                        .fold(0.0, f64::max)
            };
            let at_peak_points = peak_points
                .values
                .iter()
                .map(|values| values.iter().map(of_value).sum::<f64>());
            at_peak_points.fold(0.0, f64::max)
        };
        (0..self.costs.len()).map(on).collect()
    }

    /// States that no device holds more than its room.
    pub(super) fn bound_resident(
        &self,
        model: &mut Model,
        place: &[Vec<Column>],
        peak_points: &PeakPoints,
        room: &[f64],
    ) {
        let values: BTreeSet<ValueId> = peak_points
            .values
            .iter()
            .flat_map(|values| values.keys().copied())
            .collect();
        let mut resident: BTreeMap<(ValueId, usize), Column> = BTreeMap::new();
        for id in values {
            for device in 0..room.len() {
                let column = model.positive();
                resident.insert((id, device), column);
                for k in self.touching(id) {
                    let shares = place[k].iter().enumerate();
                    let touched: Expression = shares
                        .map(|(p, place)| self.touched_share(k, p, id, device) * place.variable)
                        .sum();
                    model.row(constraint!(column.variable >= touched));
                }
            }
        }
        for (device, &room) in room.iter().enumerate() {
            for values in &peak_points.values {
                let of_value =
                    |(&id, bytes): (&ValueId, &f64)| bytes / room * SCALE * resident[&(id, device)].variable;
                let all: Expression = values.iter().map(of_value).sum();
                model.row(constraint!(all <= SCALE));
            }
        }
    }
}
