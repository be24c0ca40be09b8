//! The cheapest strategy: which device runs which part of which kernel.
//!
//! A strategy costs what the integer program of [`super::formulation`] says: its makespan by balance, by the critical path and by
//! what devices do while others wait. It is improved neighbourhood by neighbourhood ([`super::neighbourhoods`]), and then the solver is asked for
//! anything that costs less by more than the gap. Of what is near the bound, a strategy with a shorter simulated schedule is
//! preferred ([`super::local_search`]). The strategy that splits the batch is the answer where nothing is found.

use super::choice::{PlacementOption, ShardSpec, undominated};
use super::choose::{batch_loops, by_batch, candidates};
use super::neighbourhoods::Incumbent;
use super::resident::PeakPoints;
use super::{Placement, Strategy, parts_of};
use crate::cost::{Candidate, Costs, Stored};
use crate::region::{contains, cut, finish, hull, overlap, partial, touched, volume, written};
use crate::solver::{Answer, Budget, Limits};
use crate::substitute::normalize;
use crate::winograd;
use good_lp::constraint;
use ir::nest::{Loop, Nest, Source};
use ir::program::{DeviceId, Kernel, Program, ValueId};
use std::collections::BTreeMap;
use std::time::Instant;

/// What neighbourhoods may take of the seconds that there are for a bound.
const SHARE: f64 = 0.4;
/// How often all neighbourhoods are looked at before then, at the most.
const SWEEPS: usize = 10;
/// What a neighbourhood must gain of the cost before the bound is asked for, and afterwards.
const MUCH: f64 = 2e-3;
const LITTLE: f64 = 1e-5;
/// Nodes of the solver's search for a bound: unlike seconds, they do not depend on what else a machine does.
const NODES: i32 = 500;
/// Strategies with a makespan by balance within so many gaps of the bound may differ in their simulated one.
const NEAR: f64 = 2.0;

/// Which strategies are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Splits {
    /// Along any loop.
    #[default]
    All,
    /// Of channels and layers, not of the batch.
    WithoutBatch,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct PlacementResult {
    /// Where every kernel runs.
    pub strategy: Strategy,
    /// The makespan by balance, in seconds.
    pub seconds: f64,
    /// No strategy has a shorter one.
    pub bound: f64,
    /// Of each kernel every placement that was looked at.
    pub alternatives: Vec<Vec<Alternative>>,
    /// Why the solver's answer was not used, if it was not.
    pub fallback: Option<String>,
}

impl PlacementResult {
    /// How far the makespan may be from the shortest, relative to it.
    pub fn gap(&self) -> f64 {
        match self.seconds > 0.0 {
            true => ((self.seconds - self.bound) / self.seconds).max(0.0),
            false => 0.0,
        }
    }
}

/// A placement of a kernel with its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Where it runs.
    pub placement: Placement,
    /// Seconds of work on each device.
    pub seconds: Vec<f64>,
    /// Seconds of work and transfers of the busier device, if this kernel were placed so and all others as chosen.
    pub busiest: f64,
}

/// What a strategy would be compiled to.
#[derive(Clone, Copy)]
pub struct Measures<'m> {
    /// What each device would need of its memory, in bytes.
    pub bytes: &'m dyn Fn(&Strategy) -> Vec<u64>,
    /// Seconds of a run, the queues of the devices simulated; infinite if kernels cannot be placed so.
    pub seconds: &'m dyn Fn(&Strategy) -> f64,
}

/// Devices that have so many times the memory of what a whole program holds are not looked at.
const PLENTY: f64 = 8.0;

/// How often a search is repeated with less room where a device has too little memory for what it found.
const ATTEMPTS: usize = 6;

/// The cheapest strategy for devices that take these shares of what is split, one model of costs a device, and that have
/// the memory for what it would be compiled to, if there is one.
pub fn search(
    program: &Program,
    shares: &[usize],
    costs: &[Costs],
    splits: Splits,
    limits: Limits,
    measures: Measures,
) -> PlacementResult {
    let problem = PlacementProblem::new(program, shares, costs, splits);
    let peak_points = PeakPoints::of(program);
    let capacity: Vec<f64> = costs.iter().map(|c| c.profile.memory.capacity_gb * 1e9).collect();
    let start = problem.start(&by_batch(program, shares));
    let incumbent = problem.busiest(&start);
    let solved = problem.solve(&start, None, limits.worth(incumbent));
    // What is worth little time may find nothing in it.
    let solved = solved.or_else(|_| problem.solve(&start, None, limits));
    let mut found = match solved {
        Ok((chosen, bound)) => {
            let chosen =
                problem.improved_locally(shares, chosen, bound / (1.0 - NEAR * limits.gap), measures);
            problem.found(shares, chosen, bound, None)
        }
        Err(error) => problem.found(shares, start.clone(), 0.0, Some(error)),
    };
    // Without what kernels keep to themselves, which is never this much.
    if capacity
        .iter()
        .all(|&capacity| PLENTY * peak_points.most() < capacity)
    {
        return found.0;
    }
    let mut rest = vec![0.0_f64; capacity.len()];
    for _ in 0..ATTEMPTS {
        let (strategy, chosen) = (&found.0.strategy, &found.1);
        let need = (measures.bytes)(strategy);
        if need
            .iter()
            .zip(&capacity)
            .all(|(&need, &capacity)| need as f64 <= capacity)
        {
            return found.0;
        }
        let resident = problem.resident(&peak_points, chosen);
        // The most so far: equal devices may change places from one attempt to the next.
        for ((rest, &need), &resident) in rest.iter_mut().zip(&need).zip(&resident) {
            *rest = rest.max(need as f64 - resident);
        }
        let room: Vec<f64> = capacity
            .iter()
            .zip(&rest)
            .map(|(capacity, rest)| capacity - rest)
            .collect();
        let solved = match room.iter().all(|&room| room > 0.0) {
            true => problem.solve(&start, Some((&peak_points, &room)), limits),
            false => Err("a device has no room".to_string()),
        };
        match solved {
            Ok((chosen, bound)) => found = problem.found(shares, chosen, bound, None),
            Err(error) => {
                let no_room =
                    format!("no placement was found that the memory of all devices holds ({error})");
                found.0.fallback.get_or_insert(no_room);
                return found.0;
            }
        }
    }
    found.0
}

pub(super) struct PlacementProblem<'a> {
    pub(super) program: &'a Program,
    pub(super) costs: &'a [Costs<'a>],
    /// Whether convolutions stay as they are: among processors they get the algorithm that is cheapest.
    direct: bool,
    /// Of each kernel.
    pub(super) kernels: Vec<Vec<PlacementOption>>,
    /// The kernel that makes each value; of a parameter that which updates it.
    pub(super) producer: BTreeMap<ValueId, usize>,
    /// The distinct required regions of values that a kernel makes, each with the kernels and placements that have it.
    pub(super) required: Vec<(ShardSpec, Vec<(usize, usize)>)>,
}

impl<'a> PlacementProblem<'a> {
    fn new(
        program: &'a Program,
        shares: &[usize],
        costs: &'a [Costs<'a>],
        splits: Splits,
    ) -> PlacementProblem<'a> {
        let batch = batch_loops(program);
        let mut problem = PlacementProblem {
            program,
            costs,
            direct: costs.iter().any(|costs| costs.profile.gpu.is_some()),
            kernels: vec![],
            producer: BTreeMap::new(),
            required: vec![],
        };
        for (k, call) in program.kernels.iter().enumerate() {
            let mut placements = candidates(&call.nest, shares);
            placements.push(Placement::Single(DeviceId(0)));
            placements.push(Placement::Single(DeviceId(shares.len() - 1)));
            if let (Splits::WithoutBatch, Some(batch)) = (splits, batch[k]) {
                placements.retain(|placement| !is_along(placement, batch));
            }
            let choices = placements
                .into_iter()
                .filter_map(|p| problem.choice(call, p, shares));
            let choices = undominated(choices.collect());
            problem.kernels.push(choices);
            call.results
                .iter()
                .for_each(|&id| _ = problem.producer.insert(program.owner(id), k));
        }
        for (k, choices) in problem.kernels.iter().enumerate() {
            for (p, choice) in choices.iter().enumerate() {
                for read in choice
                    .reads
                    .iter()
                    .filter(|read| problem.producer.contains_key(&read.value))
                {
                    match problem.required.iter_mut().find(|(need, _)| need == read) {
                        Some((_, users)) => users.push((k, p)),
                        None => problem.required.push((read.clone(), vec![(k, p)])),
                    }
                }
            }
        }
        problem
    }

    /// What follows from placing a kernel so; `None` if it cannot be.
    fn choice(&self, call: &Kernel, placement: Placement, shares: &[usize]) -> Option<PlacementOption> {
        let mut choice = PlacementOption {
            placement: placement.clone(),
            seconds: vec![0.0; shares.len()],
            reads: vec![],
            writes: vec![],
        };
        let Placement::Partial(l, then) = &placement else {
            for (device, nest) in parts_of(&call.nest, &placement, shares)? {
                self.add_part(&mut choice, call, device.0, &nest);
                self.add_writes(&mut choice, call, device.0, &nest)?;
            }
            return Some(choice);
        };
        let extent = call.nest.reduction[l.0 - call.nest.parallel.len()];
        for (device, range) in cut(extent, shares)?.into_iter().enumerate() {
            let sum = normalize(partial(&call.nest, *l, range));
            self.add_part(&mut choice, call, device, &sum);
        }
        let first = call.operands.len();
        let sums = normalize(finish(&call.nest, first, shares.len()));
        for (device, nest) in parts_of(&sums, then, shares)? {
            for read in &nest.reads {
                let Source::Operand(operand) = read.source else {
                    continue;
                };
                if operand < first {
                    continue;
                }
                let moved = 4 * volume(&touched(&nest, read, &call.nest.outputs[0].extents));
                choice.seconds[device.0] += match operand - first == device.0 {
                    true => self.traffic(device.0, moved),
                    false => self.transferred(device.0, moved) + self.traffic(device.0, moved),
                };
            }
            self.add_part(&mut choice, call, device.0, &nest);
            self.add_writes(&mut choice, call, device.0, &nest)?;
        }
        Some(choice)
    }

    /// Adds a part of a kernel: its time, and what it reads.
    fn add_part(&self, choice: &mut PlacementOption, call: &Kernel, device: usize, nest: &Nest) {
        let mut traffic = 0;
        for (i, &id) in call.operands.iter().enumerate() {
            let value = self.program.value(id);
            let reads = nest.reads.iter().filter(|read| read.source == Source::Operand(i));
            let regions = reads.map(|read| touched(nest, read, &value.extents));
            let Some(region) = regions.reduce(|a, b| hull(&a, &b)) else {
                continue;
            };
            traffic += volume(&region) * value.dtype.bytes();
            let read = ShardSpec {
                value: self.program.owner(id),
                device,
                region,
            };
            let mut same = choice.reads.iter_mut();
            match same.find(|r| (r.value, r.device) == (read.value, device)) {
                Some(incumbent) => incumbent.region = hull(&incumbent.region, &read.region),
                None => choice.reads.push(read),
            }
        }
        traffic += (0..nest.outputs.len()).map(|o| bytes(nest, o)).sum::<usize>();
        let operands = call
            .operands
            .iter()
            .map(|&id| self.program.value(id))
            .map(|value| Stored {
                layout: None,
                ..Stored::of(value)
            });
        // A finishing kernel reads partial sums of all devices besides.
        let sums = call.nest.outputs.iter().take(1).map(|output| Stored {
            dtype: output.dtype,
            extents: &output.extents,
            layout: None,
        });
        let sums = sums.cycle().take(self.costs.len());
        let costs = &self.costs[device];
        let share = match self.direct {
            false => winograd::time_ratio(nest, self.program.mode, call.algorithm),
            true => 1.0,
        };
        let compute = share * costs.compute_us(&Candidate::free(nest, operands.chain(sums).collect()));
        choice.seconds[device] += (compute + costs.profile.launch_us) * 1e-6;
        choice.seconds[device] += (self.traffic(device, traffic) - compute * 1e-6).max(0.0);
    }

    /// Seconds that a device takes to read or write bytes once.
    fn traffic(&self, device: usize, bytes: usize) -> f64 {
        self.costs[device].traffic_us(bytes as f64) * 1e-6
    }

    /// Seconds that it takes to bring bytes to a device, from the one before or behind it.
    fn transferred(&self, device: usize, bytes: usize) -> f64 {
        let other = (device + 1) % self.costs.len();
        self.costs[device].transfer(bytes as f64, &self.costs[other]).us() * 1e-6
    }

    fn add_writes(
        &self,
        choice: &mut PlacementOption,
        call: &Kernel,
        device: usize,
        nest: &Nest,
    ) -> Option<()> {
        for (&id, output) in call.results.iter().zip(&nest.outputs) {
            choice.writes.push(ShardSpec {
                value: self.program.owner(id),
                device,
                region: written(nest, output)?,
            });
        }
        Some(())
    }

    /// Seconds that bringing a required region takes, if its value was made as this choice says.
    pub(super) fn transfer(&self, made: &PlacementOption, need: &ShardSpec) -> f64 {
        let shards = || made.writes.iter().filter(|shard| shard.value == need.value);
        if shards().any(|shard| shard.device == need.device && contains(&shard.region, &need.region)) {
            return 0.0;
        }
        let size = self.program.value(need.value).dtype.bytes();
        if shards().any(|shard| contains(&shard.region, &need.region)) {
            return self.transferred(need.device, volume(&need.region) * size);
        }
        let elsewhere = shards().filter(|shard| shard.device != need.device);
        let moved = elsewhere.filter_map(|shard| overlap(&shard.region, &need.region));
        let moved: usize = moved.map(|region| volume(&region) * size).sum();
        self.transferred(need.device, moved) + self.traffic(need.device, 2 * volume(&need.region) * size)
    }

    /// The placements of a strategy; those that are not looked at are replaced by the first.
    fn start(&self, strategy: &Strategy) -> Vec<usize> {
        let placed = self.kernels.iter().zip(&strategy.kernels);
        placed
            .map(|(choices, placement)| {
                choices
                    .iter()
                    .position(|c| c.placement == *placement)
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Seconds of each device.
    pub(super) fn seconds(&self, chosen: &[usize]) -> Vec<f64> {
        let mut seconds = vec![0.0; self.costs.len()];
        for (choices, &p) in self.kernels.iter().zip(chosen) {
            seconds
                .iter_mut()
                .zip(&choices[p].seconds)
                .for_each(|(sum, s)| *sum += s);
        }
        for (need, users) in &self.required {
            if users.iter().any(|&(k, p)| chosen[k] == p) {
                let producer = self.producer[&need.value];
                seconds[need.device] += self.transfer(&self.kernels[producer][chosen[producer]], need);
            }
        }
        seconds
    }

    /// The strategy of these choices.
    pub(super) fn strategy(&self, shares: &[usize], chosen: &[usize]) -> Strategy {
        let placed = self.kernels.iter().zip(chosen);
        Strategy {
            shares: shares.to_vec(),
            kernels: placed.map(|(choices, &p)| choices[p].placement.clone()).collect(),
        }
    }

    /// Seconds of the busiest device.
    pub(super) fn busiest(&self, chosen: &[usize]) -> f64 {
        self.seconds(chosen).into_iter().fold(0.0, f64::max)
    }

    /// What was found, and the choice of every kernel.
    fn found(
        &self,
        shares: &[usize],
        chosen: Vec<usize>,
        bound: f64,
        fallback: Option<String>,
    ) -> (PlacementResult, Vec<usize>) {
        let seconds = self.busiest(&chosen);
        let mut tried = chosen.clone();
        let mut alternatives = vec![];
        for (k, choices) in self.kernels.iter().enumerate() {
            let places = choices.iter().enumerate().map(|(p, choice)| {
                tried[k] = p;
                Alternative {
                    placement: choice.placement.clone(),
                    seconds: choice.seconds.clone(),
                    busiest: self.busiest(&tried),
                }
            });
            alternatives.push(places.collect());
            tried[k] = chosen[k];
        }
        let found = PlacementResult {
            strategy: self.strategy(shares, &chosen),
            seconds,
            bound: bound.min(seconds),
            alternatives,
            fallback,
        };
        (found, chosen)
    }

    /// The chosen placement of every kernel, and the bound on the makespan; with no more held than there is room for.
    fn solve(
        &self,
        start: &[usize],
        room: Option<(&PeakPoints, &[f64])>,
        limits: Limits,
    ) -> Result<(Vec<usize>, f64), String> {
        let begun = Instant::now();
        let left = || limits.seconds - begun.elapsed().as_secs_f64();
        let formulation = self.state(start, room);
        // Where there is too little room, the start is no solution.
        let incumbent = room.is_none().then(|| {
            let enough = Self::relaxed(&formulation, limits) / (1.0 - limits.gap);
            self.improved(&formulation, start, None, MUCH, enough, (SWEEPS, SHARE * left()))
        });
        let incumbent = incumbent.flatten();
        let below = incumbent
            .as_ref()
            .map_or(f64::INFINITY, |incumbent| incumbent.cost * (1.0 - limits.gap));
        let mut model = formulation.model.clone();
        if below.is_finite() {
            model.row(constraint!(formulation.cost.clone() <= below));
        }
        let budget = match incumbent {
            Some(_) => Budget::Nodes(NODES),
            None => Budget::Whole,
        };
        let (incumbent, bound) = match model.answer(&formulation.cost, limits, budget)? {
            Answer::Solved(solution) => {
                let chosen = formulation.chosen(&solution);
                let chosen = chosen.ok_or("the solution leaves a kernel without a place")?;
                let cost = solution.cost;
                (Incumbent { chosen, cost }, solution.bound)
            }
            Answer::Infeasible => (incumbent.ok_or("nothing meets all conditions")?, below),
            Answer::Unknown { bound } => (
                incumbent.ok_or("the solver found nothing within its limits")?,
                bound,
            ),
        };
        let chosen = match room {
            None => self.improved(
                &formulation,
                start,
                Some(incumbent.clone()),
                LITTLE,
                0.0,
                (1, left()),
            ),
            Some(_) => None,
        };
        let chosen = chosen.unwrap_or(incumbent).chosen;
        Ok((chosen, formulation.makespan(bound.min(below).max(0.0))))
    }
}

/// Bytes of an output's elements that a nest writes.
fn bytes(nest: &Nest, output: usize) -> usize {
    nest.parallel_points() as usize * nest.outputs[output].dtype.bytes()
}

fn is_along(placement: &Placement, l: Loop) -> bool {
    match placement {
        Placement::Sharded(split) => *split == l,
        Placement::Partial(split, then) => *split == l || is_along(then, l),
        Placement::Single(_) | Placement::Replicated => false,
    }
}
