//! The cheapest strategy as an integer program: which device runs which part of which kernel.
//!
//! ```text
//! place[k, p] ∈ {0, 1}          kernel k runs as placement p:        Σ over p of place[k, p] = 1
//! bring[v, p, n] ≥ 0            v, made as p, is brought where the need n is
//! Σ over p of bring[v, p, n] ≥ Σ place[k, q]                         over placements q of a reader k that need n
//! bring[v, p, n] ≤ place[maker of v, p]
//! seconds[d] = Σ work of d in place[k, p] + Σ transfers to d in bring[v, p, n]
//! length[k] = Σ longest work of a device in place[k, p]
//! start[k] ≥ start[j] + length[j] + transfers of v                   for every v that k reads and j makes
//! minimise makespan + a little of the sum of all,  makespan ≥ seconds[d], makespan ≥ start[k] + length[k]
//! ```
//!
//! Of the longest path, and for every device `d`, also: between the ends of two of its kernels lies all work of `d` that waits
//! for the one and that the other waits for, and after each of them all work that waits for it ([`super::windows`]).
//!
//! A *need* is a box of a value on a device. `bring` costs nothing where the box was made on that device; else the transfer
//! counts for the device that receives, and whoever reads a value waits until it is everywhere where it is needed. A parameter
//! is needed where it is read, and made by the kernel that updates it. So the makespan is the largest of these bounds; that
//! the queues keep to it is what a simulation checks. The greedy strategy of [`super::choose`] is the answer where
//! the solver finds none.

use super::choice::{Choice, Piece, undominated};
use super::choose::{batch_loops, by_batch, candidates};
use super::held::Moments;
use super::region::{contains, cut, finish, hull, overlap, partial, touched, volume, written};
use super::{Placement, Strategy, parts_of};
use crate::cost::{Candidate, Costs, Stored};
use crate::solver::{Column, Limits, Model};
use crate::substitute::normalize;
use crate::winograd;
use good_lp::{Expression, constraint};
use ir::nest::{Loop, Nest, Source};
use ir::program::{DeviceIx, KernelCall, Program, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What the work of all devices counts beside the makespan: of equal ones the strategy with less work is better.
const TOTAL: f64 = 0.01;
/// The makespan in the solver's units: its tolerances are absolute.
const SCALE: f64 = 1e3;

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
pub struct Found {
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

impl Found {
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

/// What each device would need of its memory, in bytes, if kernels were placed so.
pub type Measure<'m> = &'m dyn Fn(&Strategy) -> Vec<u64>;

/// Devices that have so many times the memory of what a whole program holds are not looked at.
const PLENTY: f64 = 8.0;

/// How often a search is repeated with less room where a device has too little memory for what it found.
const ATTEMPTS: usize = 4;

/// The cheapest strategy for devices that take these shares of what is split, one model of costs a device, and that have
/// the memory for what `measure` says, if there is one.
pub fn search(
    program: &Program,
    shares: &[usize],
    costs: &[Costs],
    splits: Splits,
    limits: Limits,
    measure: Measure,
) -> Found {
    let problem = Problem::new(program, shares, costs, splits);
    let moments = Moments::of(program);
    let capacity: Vec<f64> = costs.iter().map(|c| c.profile.memory.capacity_gb * 1e9).collect();
    let start = problem.start(&by_batch(program, shares));
    let known = problem.seconds(&start).into_iter().fold(0.0, f64::max);
    let solved = problem.solve(&start, None, limits.worth(known));
    // What is worth little time may find nothing in it.
    let solved = solved.or_else(|_| problem.solve(&start, None, limits));
    let mut found = match solved {
        Ok((chosen, bound)) => problem.found(shares, chosen, bound, None),
        Err(error) => problem.found(shares, start.clone(), 0.0, Some(error)),
    };
    // Without what kernels keep to themselves, which is never this much.
    if capacity
        .iter()
        .all(|&capacity| PLENTY * moments.most() < capacity)
    {
        return found.0;
    }
    for _ in 0..ATTEMPTS {
        let (strategy, chosen) = (&found.0.strategy, &found.1);
        let need = measure(strategy);
        if need
            .iter()
            .zip(&capacity)
            .all(|(&need, &capacity)| need as f64 <= capacity)
        {
            return found.0;
        }
        let held = problem.held(&moments, chosen);
        let rest = need
            .iter()
            .zip(&held)
            .map(|(&need, &held)| (need as f64 - held).max(0.0));
        let room: Vec<f64> = capacity
            .iter()
            .zip(rest)
            .map(|(capacity, rest)| capacity - rest)
            .collect();
        let solved = match room.iter().all(|&room| room > 0.0) {
            true => problem.solve(&start, Some((&moments, &room)), limits),
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

pub(super) struct Problem<'a> {
    pub(super) program: &'a Program,
    pub(super) costs: &'a [Costs<'a>],
    /// Whether convolutions stay as they are: among processors they get the algorithm that is cheapest.
    direct: bool,
    /// Of each kernel.
    pub(super) kernels: Vec<Vec<Choice>>,
    /// The kernel that makes each value; of a parameter that which updates it.
    pub(super) maker: BTreeMap<ValueId, usize>,
    /// The distinct needs of values that a kernel makes, each with the kernels and placements that have it.
    pub(super) needs: Vec<(Piece, Vec<(usize, usize)>)>,
}

impl<'a> Problem<'a> {
    fn new(program: &'a Program, shares: &[usize], costs: &'a [Costs<'a>], splits: Splits) -> Problem<'a> {
        let batch = batch_loops(program);
        let mut problem = Problem {
            program,
            costs,
            direct: costs.iter().any(|costs| costs.profile.gpu.is_some()),
            kernels: vec![],
            maker: BTreeMap::new(),
            needs: vec![],
        };
        for (k, call) in program.kernels.iter().enumerate() {
            let mut placements = candidates(&call.nest, shares);
            placements.push(Placement::On(DeviceIx(0)));
            placements.push(Placement::On(DeviceIx(shares.len() - 1)));
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
                .for_each(|&id| _ = problem.maker.insert(program.owner(id), k));
        }
        for (k, choices) in problem.kernels.iter().enumerate() {
            for (p, choice) in choices.iter().enumerate() {
                for read in choice
                    .reads
                    .iter()
                    .filter(|read| problem.maker.contains_key(&read.value))
                {
                    match problem.needs.iter_mut().find(|(need, _)| need == read) {
                        Some((_, users)) => users.push((k, p)),
                        None => problem.needs.push((read.clone(), vec![(k, p)])),
                    }
                }
            }
        }
        problem
    }

    /// What follows from placing a kernel so; `None` if it cannot be.
    fn choice(&self, call: &KernelCall, placement: Placement, shares: &[usize]) -> Option<Choice> {
        let mut choice = Choice {
            placement: placement.clone(),
            seconds: vec![0.0; shares.len()],
            reads: vec![],
            writes: vec![],
        };
        let Placement::Reduction(l, then) = &placement else {
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
    fn add_part(&self, choice: &mut Choice, call: &KernelCall, device: usize, nest: &Nest) {
        let mut traffic = 0;
        for (i, &id) in call.operands.iter().enumerate() {
            let value = self.program.value(id);
            let reads = nest.reads.iter().filter(|read| read.source == Source::Operand(i));
            let boxes = reads.map(|read| touched(nest, read, &value.extents));
            let Some(part) = boxes.reduce(|a, b| hull(&a, &b)) else {
                continue;
            };
            traffic += volume(&part) * value.dtype.bytes();
            let read = Piece {
                value: self.program.owner(id),
                device,
                part,
            };
            let mut same = choice.reads.iter_mut();
            match same.find(|r| (r.value, r.device) == (read.value, device)) {
                Some(known) => known.part = hull(&known.part, &read.part),
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
            false => winograd::share(nest, self.program.mode, call.algorithm),
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

    fn add_writes(&self, choice: &mut Choice, call: &KernelCall, device: usize, nest: &Nest) -> Option<()> {
        for (&id, output) in call.results.iter().zip(&nest.outputs) {
            choice.writes.push(Piece {
                value: self.program.owner(id),
                device,
                part: written(nest, output)?,
            });
        }
        Some(())
    }

    /// Seconds that bringing a need takes, if its value was made as this choice says.
    fn transfer(&self, made: &Choice, need: &Piece) -> f64 {
        let pieces = || made.writes.iter().filter(|piece| piece.value == need.value);
        if pieces().any(|piece| piece.device == need.device && contains(&piece.part, &need.part)) {
            return 0.0;
        }
        let size = self.program.value(need.value).dtype.bytes();
        if pieces().any(|piece| contains(&piece.part, &need.part)) {
            return self.transferred(need.device, volume(&need.part) * size);
        }
        let elsewhere = pieces().filter(|piece| piece.device != need.device);
        let moved = elsewhere.filter_map(|piece| overlap(&piece.part, &need.part));
        let moved: usize = moved.map(|part| volume(&part) * size).sum();
        self.transferred(need.device, moved) + self.traffic(need.device, 2 * volume(&need.part) * size)
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
    fn seconds(&self, chosen: &[usize]) -> Vec<f64> {
        let mut seconds = vec![0.0; self.costs.len()];
        for (choices, &p) in self.kernels.iter().zip(chosen) {
            seconds
                .iter_mut()
                .zip(&choices[p].seconds)
                .for_each(|(sum, s)| *sum += s);
        }
        for (need, users) in &self.needs {
            if users.iter().any(|&(k, p)| chosen[k] == p) {
                let maker = self.maker[&need.value];
                seconds[need.device] += self.transfer(&self.kernels[maker][chosen[maker]], need);
            }
        }
        seconds
    }

    /// What was found, and the choice of every kernel.
    fn found(
        &self,
        shares: &[usize],
        chosen: Vec<usize>,
        bound: f64,
        fallback: Option<String>,
    ) -> (Found, Vec<usize>) {
        let busiest = |chosen: &[usize]| self.seconds(chosen).into_iter().fold(0.0, f64::max);
        let seconds = busiest(&chosen);
        let mut tried = chosen.clone();
        let mut alternatives = vec![];
        for (k, choices) in self.kernels.iter().enumerate() {
            let places = choices.iter().enumerate().map(|(p, choice)| {
                tried[k] = p;
                Alternative {
                    placement: choice.placement.clone(),
                    seconds: choice.seconds.clone(),
                    busiest: busiest(&tried),
                }
            });
            alternatives.push(places.collect());
            tried[k] = chosen[k];
        }
        let placed = self.kernels.iter().zip(&chosen);
        let found = Found {
            strategy: Strategy {
                shares: shares.to_vec(),
                kernels: placed.map(|(choices, &p)| choices[p].placement.clone()).collect(),
            },
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
        room: Option<(&Moments, &[f64])>,
        limits: Limits,
    ) -> Result<(Vec<usize>, f64), String> {
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
        let mut brought = vec![];
        for (need, users) in &self.needs {
            let mut delay = Expression::default();
            let maker = self.maker[&need.value];
            let mut there = Expression::default();
            for (p, made) in self.kernels[maker].iter().enumerate() {
                let cost = self.transfer(made, need);
                if cost == 0.0 {
                    there += place[maker][p].variable;
                    continue;
                }
                let bring = model.positive();
                model.row(constraint!(bring.variable <= place[maker][p].variable));
                seconds[need.device] += cost / unit * bring.variable;
                delay += cost / unit * bring.variable;
                there += bring.variable;
            }
            let mut readers: BTreeMap<usize, Expression> = BTreeMap::new();
            for &(k, p) in users {
                *readers.entry(k).or_default() += place[k][p].variable;
            }
            for reads in readers.into_values() {
                model.row(constraint!(there.clone() >= reads));
            }
            brought.push(delay);
        }
        let makespan = model.positive();
        if let Some((moments, room)) = room {
            self.bound_held(&mut model, &place, moments, room);
        }
        self.critical_path(&mut model, &place, &brought, makespan, unit);
        self.windows(&mut model, &place, &brought, makespan, unit);
        let mut cost: Expression = makespan.variable.into();
        for sum in seconds {
            model.row(constraint!(makespan.variable >= sum.clone()));
            cost += TOTAL * sum;
        }
        let solution = model.minimise(cost, &[], limits)?;
        let chosen = place
            .iter()
            .map(|columns| columns.iter().position(|&c| solution.is_set(c)));
        let chosen: Option<Vec<usize>> = chosen.collect();
        let chosen = chosen.ok_or("the solution leaves a kernel without a place")?;
        // The bound is one of the whole cost, of which the total is a part that the makespan bounds from above.
        let bound = solution.bound * unit / (1.0 + TOTAL * self.costs.len() as f64);
        Ok((chosen, bound))
    }
}

impl Problem<'_> {
    /// Every kernel begins when what it reads is there.
    fn critical_path(
        &self,
        model: &mut Model,
        place: &[Vec<Column>],
        brought: &[Expression],
        makespan: Column,
        unit: f64,
    ) {
        let begin: Vec<Column> = self.kernels.iter().map(|_| model.positive()).collect();
        let mut end: Vec<Expression> = vec![];
        for ((columns, choices), begin) in place.iter().zip(&self.kernels).zip(&begin) {
            let mut end_of: Expression = begin.variable.into();
            for (column, choice) in columns.iter().zip(choices) {
                let longest = choice.seconds.iter().copied().fold(0.0, f64::max);
                end_of += longest / unit * column.variable;
            }
            end.push(end_of);
        }
        for end in &end {
            model.row(constraint!(makespan.variable >= end.clone()));
        }
        for ((need, users), delay) in self.needs.iter().zip(brought) {
            let maker = self.maker[&need.value];
            let readers: BTreeSet<usize> = users.iter().map(|(k, _)| *k).filter(|&k| k > maker).collect();
            for k in readers {
                model.row(constraint!(
                    begin[k].variable >= end[maker].clone() + delay.clone()
                ));
            }
        }
    }
}

/// Bytes of an output's elements that a nest writes.
fn bytes(nest: &Nest, output: usize) -> usize {
    nest.parallel_points() as usize * nest.outputs[output].dtype.bytes()
}

fn is_along(placement: &Placement, l: Loop) -> bool {
    match placement {
        Placement::Parallel(split) => *split == l,
        Placement::Reduction(split, then) => *split == l || is_along(then, l),
        Placement::On(_) | Placement::Everywhere => false,
    }
}
