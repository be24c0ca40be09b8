//! The integer program.
//!
//! ```text
//! run[k], in[k, m], read[k, v], store[k, v] ∈ {0, 1};  in[k, 0] = run[k]
//! in[k, m] ≤ run[k]
//! read[k, v] + Σ in[k, p] ≥ in[k, m]              over p that m can take v from, for every v that m needs
//! store[k, v] ≤ Σ in[k, m]                        over m that make v
//! Σ store[j, v] ≥ read[k, v]                      over j ≠ k, for every v that is not given
//! Σ store[k, v] ≥ 1                               over k, for every wanted v
//! Σ store[k, v] ≤ outputs · run[k]                over v
//! seconds[k] ≥ Σ compute · in[k, m]
//! seconds[k] ≥ Σ traffic · (read[k, v] + store[k, v])
//! minimise Σ seconds[k] + launch · run[k]
//! ```
//!
//! That says nothing of order, so a solution may contain kernels that wait for each other in a circle. It is cut and the program
//! solved again: where a kernel reads what cannot be made without a value that only this kernel computes, it must not do
//! both; else one step of the circle must not be. Circles that no solution contains cost nothing. The bound of the last
//! program holds for the whole, since every row is true of every selection that can run.

use super::{Choice, ExtractError, Problem, Selection, Stuck, ValueIx, greedy};
use crate::solver::{Column, Limits, Model};
use good_lp::{Constraint, Expression, constraint};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How the solver came to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Effort {
    /// Programs solved: one, and one for each round of cuts.
    pub rounds: usize,
    /// Circles cut.
    pub cuts: usize,
    /// Variables of a program.
    pub variables: usize,
}

/// Costs are handed to the solver in such units that the greedy selection costs this much: its tolerances are absolute.
const SCALE: f64 = 1e3;

/// A kernel stores a value that another reads.
type Step = (usize, ValueIx, usize);

/// What a selection that can run keeps, and a solution did not.
#[derive(Clone, Debug, PartialEq)]
enum Cut {
    /// Kernels that store a value with those that read it, the last for the first: not all of them do.
    Circle(Vec<Step>),
    /// `made` comes before `read` in every way of making that: a kernel that computes the one and reads the other takes
    /// another kernel that computes the first.
    Before {
        kernel: usize,
        member: usize,
        made: ValueIx,
        read: ValueIx,
    },
}

/// What rounds of solving learn.
#[derive(Clone, Debug, Default)]
pub struct Search {
    cuts: Vec<Cut>,
    /// How the solver came to its answer.
    pub effort: Effort,
    spent: f64,
}

impl Search {
    /// The cheapest selection, from a greedy one as a start. May be called again after the problem forbids more.
    ///
    /// It ends when what is known is within the gap of the bound, or at the limit of seconds, with the gap that is left.
    pub fn select(&mut self, problem: &Problem, limits: &Limits) -> Result<Selection, ExtractError> {
        let start = greedy::select(problem)?;
        let limits = limits.worth(start.seconds);
        let before = problem.ancestors();
        loop {
            let begun = std::time::Instant::now();
            let program = Program::new(problem, start.seconds.max(f64::MIN_POSITIVE) / SCALE);
            self.effort.rounds += 1;
            self.effort.variables = program.model.columns();
            let left = Limits {
                seconds: (limits.seconds - self.spent).max(0.1),
                ..limits
            };
            let solved = program.solve(&start, &before, &self.cuts, left)?;
            self.spent += begun.elapsed().as_secs_f64();
            let with_bound = |selection: Selection| Selection {
                bound: solved.bound.min(selection.seconds),
                ..selection
            };
            let stuck = match problem.realise(&solved.choice) {
                Ok(found) if found.seconds <= start.seconds => return Ok(with_bound(found)),
                Ok(_) => return Ok(with_bound(start)),
                Err(stuck) => stuck,
            };
            if start.seconds <= solved.bound * (1.0 + limits.gap) || self.spent > limits.seconds {
                return Ok(with_bound(start));
            }
            let mut new = orders(problem, &before, &solved.choice, &stuck);
            if new.iter().all(|cut| self.cuts.contains(cut)) {
                new = circles(&solved, &stuck);
            }
            new.retain(|cut| !self.cuts.contains(cut));
            if new.is_empty() {
                let missing = stuck.missing.0;
                let found = format!("value {missing} is not made, though no kernel waits for another");
                return Err(ExtractError::Solver(found));
            }
            self.cuts.append(&mut new);
            self.effort.cuts = self.cuts.len();
        }
    }
}

/// Kernels that wait for what cannot be made without themselves.
fn orders(problem: &Problem, before: &[BTreeSet<ValueIx>], choice: &Choice, stuck: &Stuck) -> Vec<Cut> {
    let makes = |k: usize, m: usize, v: ValueIx| problem.kernels[k].members[m].makes.contains(&v);
    let mut found = vec![];
    for (&kernel, reads) in &stuck.waiting {
        for &member in &choice[&kernel] {
            for &made in &problem.kernels[kernel].members[member].makes {
                let others = choice.iter().filter(|(other, _)| **other != kernel);
                let mut others =
                    others.flat_map(|(&other, members)| members.iter().map(move |&m| (other, m)));
                if others.any(|(other, m)| makes(other, m, made)) {
                    continue;
                }
                let late = reads.iter().filter(|read| before[read.0].contains(&made));
                found.extend(late.map(|&read| Cut::Before {
                    kernel,
                    member,
                    made,
                    read,
                }));
            }
        }
    }
    found
}

struct Solved {
    choice: Choice,
    stores: BTreeSet<(usize, ValueIx)>,
    bound: f64,
}

/// A shortest circle through every kernel that waits, each once.
fn circles(solved: &Solved, stuck: &Stuck) -> Vec<Cut> {
    let mut found: Vec<Cut> = vec![];
    for &start in stuck.waiting.keys() {
        if let Some(mut steps) = circle(solved, stuck, start) {
            steps.sort();
            let cut = Cut::Circle(steps);
            if !found.contains(&cut) {
                found.push(cut);
            }
        }
    }
    found
}

/// Breadth first from a kernel to those it waits for, until one of them waits for it.
fn circle(solved: &Solved, stuck: &Stuck, start: usize) -> Option<Vec<Step>> {
    let mut ways: BTreeMap<usize, Vec<Step>> = [(start, vec![])].into();
    let mut open: VecDeque<usize> = [start].into();
    while let Some(k) = open.pop_front() {
        for &value in stuck.waiting.get(&k).into_iter().flatten() {
            let makers = stuck.waiting.keys().copied();
            for maker in makers.filter(|&j| solved.stores.contains(&(j, value))) {
                let mut way = ways[&k].clone();
                way.push((maker, value, k));
                if maker == start {
                    return Some(way);
                }
                ways.entry(maker).or_insert_with(|| {
                    open.push_back(maker);
                    way
                });
            }
        }
    }
    None
}

struct Program<'a> {
    problem: &'a Problem,
    model: Model,
    /// Seconds of one unit of cost.
    unit: f64,
    /// By kernel and member; that of the core says whether the kernel runs.
    member: BTreeMap<(usize, usize), Column>,
    read: BTreeMap<(usize, ValueIx), Column>,
    store: BTreeMap<(usize, ValueIx), Column>,
    seconds: BTreeMap<usize, Column>,
}

impl<'a> Program<'a> {
    fn new(problem: &'a Problem, unit: f64) -> Program<'a> {
        let mut program = Program {
            problem,
            model: Model::default(),
            unit,
            member: BTreeMap::new(),
            read: BTreeMap::new(),
            store: BTreeMap::new(),
            seconds: BTreeMap::new(),
        };
        let useful = problem.useful();
        let used: BTreeSet<ValueIx> = useful
            .iter()
            .flat_map(|&k| &problem.kernels[k].members)
            .flat_map(|m| m.needs.iter().map(|n| n.value))
            .chain(problem.wanted.iter().copied())
            .collect();
        let Program {
            model,
            member: members,
            read,
            store,
            seconds,
            ..
        } = &mut program;
        for k in useful {
            seconds.insert(k, model.positive());
            for (m, member) in problem.kernels[k].members.iter().enumerate() {
                members.insert((k, m), model.binary());
                for need in &member.needs {
                    read.entry((k, need.value)).or_insert_with(|| model.binary());
                }
                let makes = member
                    .makes
                    .iter()
                    .filter(|v| member.is_stored && used.contains(v) && !problem.given.contains(v));
                for &value in makes {
                    store.entry((k, value)).or_insert_with(|| model.binary());
                }
            }
        }
        program
    }

    fn solve(
        mut self,
        start: &Selection,
        before: &[BTreeSet<ValueIx>],
        cuts: &[Cut],
        limits: Limits,
    ) -> Result<Solved, ExtractError> {
        let cost = self.cost();
        self.rows(before, cuts)?;
        let known = self.columns(start);
        let Program {
            model,
            unit,
            member,
            store,
            ..
        } = self;
        let solution = model
            .minimise(cost, &known, limits)
            .map_err(ExtractError::Solver)?;
        let mut choice = Choice::new();
        for (&(k, m), &column) in &member {
            if solution.is_set(column) && solution.is_set(member[&(k, 0)]) {
                choice.entry(k).or_default().insert(m);
            }
        }
        let stores = store.iter().filter(|(_, column)| solution.is_set(**column));
        Ok(Solved {
            choice,
            stores: stores.map(|(&store, _)| store).collect(),
            bound: solution.bound * unit,
        })
    }

    fn cost(&self) -> Expression {
        let mut cost = Expression::default();
        for (&k, seconds) in &self.seconds {
            cost += seconds.variable;
            cost += self.problem.kernels[k].launch / self.unit * self.member[&(k, 0)].variable;
        }
        cost
    }

    fn rows(&mut self, before: &[BTreeSet<ValueIx>], cuts: &[Cut]) -> Result<(), ExtractError> {
        let problem = self.problem;
        let mut rows = vec![];
        let mut made: BTreeMap<ValueIx, Expression> = BTreeMap::new();
        for (&(_, value), stored) in &self.store {
            *made.entry(value).or_default() += stored.variable;
        }
        let mut traffic: BTreeMap<usize, Expression> = BTreeMap::new();
        let mut count: BTreeMap<usize, Expression> = BTreeMap::new();
        for (&(k, value), read) in &self.read {
            *traffic.entry(k).or_default() += problem.traffic[value.0] / self.unit * read.variable;
            if problem.given.contains(&value) {
                continue;
            }
            // What needs the core of a kernel is not there before that kernel ran.
            let mut own = problem.kernels[k].members[0].makes.iter();
            if own.any(|made| before[value.0].contains(made)) {
                rows.push(constraint!(read.variable <= 0));
                continue;
            }
            let Some(made) = made.get(&value) else {
                rows.push(constraint!(read.variable <= 0));
                continue;
            };
            let mut elsewhere = made.clone();
            if let Some(own) = self.store.get(&(k, value)) {
                elsewhere -= own.variable;
            }
            rows.push(constraint!(elsewhere >= read.variable));
        }
        for (&(k, value), stored) in &self.store {
            *traffic.entry(k).or_default() += problem.traffic[value.0] / self.unit * stored.variable;
            *count.entry(k).or_default() += stored.variable;
            let makers = problem.kernels[k].members.iter().enumerate();
            let makers = makers.filter(|(_, m)| m.is_stored && m.makes.contains(&value));
            let chosen: Expression = makers.map(|(m, _)| self.member[&(k, m)].variable).sum();
            rows.push(constraint!(chosen >= stored.variable));
        }
        for (&k, seconds) in &self.seconds {
            let run = self.member[&(k, 0)].variable;
            let mut compute = Expression::default();
            for (m, member) in problem.kernels[k].members.iter().enumerate() {
                let chosen = self.member[&(k, m)].variable;
                compute += member.compute / self.unit * chosen;
                if m != 0 {
                    rows.push(constraint!(chosen <= run));
                }
                for need in &member.needs {
                    let inside = need.inside.iter().map(|&p| self.member[&(k, p)].variable);
                    let mut here: Expression = inside.sum();
                    here += self.read[&(k, need.value)].variable;
                    rows.push(constraint!(here >= chosen));
                }
            }
            rows.push(constraint!(seconds.variable >= compute));
            if let Some(traffic) = traffic.remove(&k) {
                rows.push(constraint!(seconds.variable >= traffic));
            }
            if let Some(count) = count.remove(&k) {
                rows.push(constraint!(count <= problem.outputs as f64 * run));
            }
        }
        for value in problem.wanted.iter().filter(|v| !problem.given.contains(v)) {
            let made = made.get(value).cloned().ok_or(ExtractError::Unmade(value.0))?;
            rows.push(constraint!(made >= 1));
        }
        rows.extend(cuts.iter().map(|cut| self.cut(cut)));
        for (k, members) in &problem.impossible {
            if self.seconds.contains_key(k) {
                let together: Expression = members.iter().map(|&m| self.member[&(*k, m)].variable).sum();
                rows.push(constraint!(together <= members.len() as f64 - 1.0));
            }
        }
        rows.into_iter().for_each(|row| self.model.row(row));
        Ok(())
    }

    fn cut(&self, cut: &Cut) -> Constraint {
        match cut {
            Cut::Circle(steps) => {
                let mut taken = Expression::default();
                for (j, value, k) in steps {
                    taken += self.store[&(*j, *value)].variable + self.read[&(*k, *value)].variable;
                }
                constraint!(taken <= 2.0 * steps.len() as f64 - 1.0)
            }
            Cut::Before {
                kernel,
                member,
                made,
                read,
            } => {
                let others = self.member.iter().filter(|((k, m), _)| {
                    k != kernel && self.problem.kernels[*k].members[*m].makes.contains(made)
                });
                let elsewhere: Expression = others.map(|(_, column)| column.variable).sum();
                let both = self.member[&(*kernel, *member)].variable + self.read[&(*kernel, *read)].variable;
                constraint!(both <= 1.0 + elsewhere)
            }
        }
    }

    /// The variables that are not zero in a selection, with their values.
    fn columns(&self, selection: &Selection) -> Vec<(Column, f64)> {
        let mut known = vec![];
        for taken in &selection.taken {
            let k = taken.kernel;
            let members = taken.members.iter().map(|&m| self.member[&(k, m)]);
            let reads = taken.reads.iter().map(|&v| self.read[&(k, v)]);
            let stores = taken.stores.iter().map(|&v| self.store[&(k, v)]);
            known.extend(members.chain(reads).chain(stores).map(|column| (column, 1.0)));
            let seconds = self.problem.seconds(taken) - self.problem.kernels[k].launch;
            known.push((self.seconds[&k], seconds / self.unit));
        }
        known
    }
}

impl Problem {
    /// Kernels that make, over any number of steps, something that is wanted.
    fn useful(&self) -> Vec<usize> {
        let mut wanted: BTreeSet<ValueIx> = self.wanted.clone();
        let mut found: BTreeSet<usize> = BTreeSet::new();
        loop {
            let makes = |k: &usize| {
                let mut made = self.kernels[*k].members.iter().flat_map(|m| &m.makes);
                made.any(|v| wanted.contains(v))
            };
            let new: Vec<usize> = (0..self.kernels.len())
                .filter(|k| !found.contains(k) && makes(k))
                .collect();
            if new.is_empty() {
                return found.into_iter().collect();
            }
            for k in new {
                found.insert(k);
                let needs = self.kernels[k].members.iter().flat_map(|m| &m.needs);
                wanted.extend(needs.map(|n| n.value).filter(|v| !self.given.contains(v)));
            }
        }
    }
}
