//! The integer program of a part of a problem: its variables, its rows, and its solution. [`super::integer`] states it.

use super::bits::Bits;
use super::cuts::{Cut, SCALE};
use super::parts::Part;
use super::{ClassValueId, ExtractError, ExtractionProblem, FusionChoice, Selection};
use crate::solver::{Budget, Column, Limits, Model};
use good_lp::{Constraint, Expression, constraint};
use std::collections::{BTreeMap, BTreeSet};

/// What is decided together, and what is known around it.
pub(super) struct Stated<'a> {
    pub problem: &'a ExtractionProblem,
    pub part: &'a Part,
    /// For every value those that come before it.
    pub before: &'a [Bits],
    /// Values that are in memory in every selection.
    pub forced: &'a Bits,
    pub cuts: &'a [Cut],
    /// The values that the part may store, where those are not all that its kernels make.
    pub home: Option<&'a Bits>,
}

/// A part's cheapest kernels.
#[derive(Clone, Debug, Default)]
pub(super) struct Solved {
    pub choice: FusionChoice,
    pub stores: BTreeSet<(usize, ClassValueId)>,
    /// No choice of the part takes fewer seconds.
    pub bound: f64,
}

/// The variables of a part.
pub(super) struct Program<'a> {
    stated: &'a Stated<'a>,
    model: Model,
    /// Seconds of one unit of cost.
    unit: f64,
    /// By kernel and op; the one of the first op says whether the kernel runs.
    op: BTreeMap<(usize, usize), Column>,
    read: BTreeMap<(usize, ClassValueId), Column>,
    store: BTreeMap<(usize, ClassValueId), Column>,
    seconds: BTreeMap<usize, Column>,
}

impl<'a> Program<'a> {
    /// Costs are in units such that `start`, the part of a known selection, costs [`SCALE`].
    pub fn new(stated: &'a Stated<'a>, start: f64) -> Program<'a> {
        let problem = stated.problem;
        let mut program = Program {
            stated,
            model: Model::default(),
            unit: start.max(f64::MIN_POSITIVE) / SCALE,
            op: BTreeMap::new(),
            read: BTreeMap::new(),
            store: BTreeMap::new(),
            seconds: BTreeMap::new(),
        };
        let Program {
            model,
            op: ops,
            read,
            store,
            seconds,
            ..
        } = &mut program;
        let kernels = || stated.part.kernels.iter().map(|&k| (k, &problem.kernels[k]));
        let needs = kernels().flat_map(|(_, kernel)| kernel.ops.iter().flat_map(|m| &m.needs));
        let used: BTreeSet<ClassValueId> = needs.map(|need| need.value).collect();
        let is_used = |v: &ClassValueId| used.contains(v) || stated.forced.contains(*v);
        for (k, kernel) in kernels() {
            seconds.insert(k, model.positive());
            for (m, op) in kernel.ops.iter().enumerate() {
                ops.insert((k, m), model.binary());
                for need in &op.needs {
                    read.entry((k, need.value)).or_insert_with(|| model.binary());
                }
                let makes = op.makes.iter().filter(|v| op.is_stored && is_used(v));
                let is_home = |v: &ClassValueId| stated.home.is_none_or(|home| home.contains(*v));
                for &value in makes.filter(|v| !problem.given.contains(v) && is_home(v)) {
                    store.entry((k, value)).or_insert_with(|| model.binary());
                }
            }
        }
        program
    }

    /// How many variables there are.
    pub fn columns(&self) -> usize {
        self.model.columns()
    }

    /// The cheapest choice, from a selection that is known.
    pub fn solve(mut self, start: &Selection, limits: Limits, nodes: i32) -> Result<Solved, ExtractError> {
        let cost = self.cost();
        self.rows()?;
        let known = self.known(start);
        let Program {
            model,
            unit,
            op,
            store,
            ..
        } = self;
        let solution = model
            .minimise_within(cost, &known, limits, Budget::Nodes(nodes))
            .map_err(ExtractError::Solver)?;
        let mut choice = FusionChoice::new();
        for (&(k, m), &column) in &op {
            if solution.is_set(column) && solution.is_set(op[&(k, 0)]) {
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
            cost += self.stated.problem.kernels[k].launch / self.unit * self.op[&(k, 0)].variable;
        }
        cost
    }

    fn rows(&mut self) -> Result<(), ExtractError> {
        let problem = self.stated.problem;
        let mut rows = vec![];
        let mut made: BTreeMap<ClassValueId, Expression> = BTreeMap::new();
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
            // What needs the first op of a kernel is not there before that kernel ran.
            let mut own = problem.kernels[k].ops[0].makes.iter();
            if own.any(|made| self.stated.before[value.0].contains(*made)) {
                rows.push(constraint!(read.variable <= 0));
                continue;
            }
            let Some(made) = made.get(&value) else {
                // Another part stores it, or nothing does.
                if !self.stated.forced.contains(value) {
                    rows.push(constraint!(read.variable <= 0));
                }
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
            let makers = problem.kernels[k].ops.iter().enumerate();
            let makers = makers.filter(|(_, m)| m.is_stored && m.makes.contains(&value));
            let chosen: Expression = makers.map(|(m, _)| self.op[&(k, m)].variable).sum();
            rows.push(constraint!(chosen >= stored.variable));
        }
        for (&k, seconds) in &self.seconds {
            let run = self.op[&(k, 0)].variable;
            let mut compute = Expression::default();
            for (m, op) in problem.kernels[k].ops.iter().enumerate() {
                let chosen = self.op[&(k, m)].variable;
                compute += op.compute / self.unit * chosen;
                if m != 0 {
                    rows.push(constraint!(chosen <= run));
                }
                for need in &op.needs {
                    let inside = need.inside.iter().map(|&p| self.op[&(k, p)].variable);
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
        for (_, made) in made.into_iter().filter(|(v, _)| self.stated.forced.contains(*v)) {
            rows.push(constraint!(made >= 1));
        }
        rows.extend(self.stated.cuts.iter().filter_map(|cut| self.cut(cut)));
        for (k, ops) in &problem.impossible {
            if self.seconds.contains_key(k) {
                let together: Expression = ops.iter().map(|&m| self.op[&(*k, m)].variable).sum();
                rows.push(constraint!(together <= ops.len() as f64 - 1.0));
            }
        }
        rows.into_iter().for_each(|row| self.model.row(row));
        Ok(())
    }

    /// A cut, if it speaks of this part only.
    fn cut(&self, cut: &Cut) -> Option<Constraint> {
        match cut {
            Cut::Circle(steps) => {
                let mut taken = Expression::default();
                for (j, value, k) in steps {
                    taken += self.store.get(&(*j, *value))?.variable + self.read.get(&(*k, *value))?.variable;
                }
                Some(constraint!(taken <= 2.0 * steps.len() as f64 - 1.0))
            }
            Cut::Before {
                kernel,
                op,
                made,
                read,
            } => {
                let own = self.op.get(&(*kernel, *op))?.variable;
                let others = self.op.iter().filter(|((k, m), _)| {
                    k != kernel && self.stated.problem.kernels[*k].ops[*m].makes.contains(made)
                });
                let elsewhere: Expression = others.map(|(_, column)| column.variable).sum();
                let both = own + self.read[&(*kernel, *read)].variable;
                Some(constraint!(both <= 1.0 + elsewhere))
            }
        }
    }

    /// The variables that are not zero in a selection, with their values.
    fn known(&self, selection: &Selection) -> Vec<(Column, f64)> {
        let mut known = vec![];
        let own = selection
            .taken
            .iter()
            .filter(|taken| self.seconds.contains_key(&taken.kernel));
        for taken in own {
            let k = taken.kernel;
            let ops = taken.ops.iter().map(|&m| self.op[&(k, m)]);
            let reads = taken.reads.iter().map(|&v| self.read[&(k, v)]);
            let stores = taken.stores.iter().map(|&v| self.store[&(k, v)]);
            known.extend(ops.chain(reads).chain(stores).map(|column| (column, 1.0)));
            let seconds = self.stated.problem.seconds(taken) - self.stated.problem.kernels[k].launch;
            known.push((self.seconds[&k], seconds / self.unit));
        }
        known
    }
}

impl Stated<'_> {
    /// All that the part's program is made of, with kernels and values numbered by their first appearance: equal for parts
    /// that have the same solution.
    pub fn signature(&self) -> (Vec<u64>, Vec<ClassValueId>) {
        let problem = self.problem;
        let mut numbers: BTreeMap<ClassValueId, u64> = BTreeMap::new();
        let mut values: Vec<ClassValueId> = vec![];
        let mut text: Vec<u64> = vec![problem.outputs as u64];
        let number = |value: ClassValueId,
                      values: &mut Vec<ClassValueId>,
                      numbers: &mut BTreeMap<ClassValueId, u64>| {
            *numbers.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() as u64 - 1
            })
        };
        for &k in &self.part.kernels {
            let kernel = &problem.kernels[k];
            text.extend([kernel.ops.len() as u64, kernel.launch.to_bits()]);
            for op in &kernel.ops {
                text.extend([
                    u64::from(op.is_stored),
                    op.compute.to_bits(),
                    op.makes.len() as u64,
                    op.needs.len() as u64,
                ]);
                for &value in &op.makes {
                    text.push(number(value, &mut values, &mut numbers));
                }
                for need in &op.needs {
                    text.push(number(need.value, &mut values, &mut numbers));
                    text.push(need.inside.len() as u64);
                    text.extend(need.inside.iter().map(|&p| p as u64));
                    let mut own = kernel.ops[0].makes.iter();
                    let is_late = own.any(|made| self.before[need.value.0].contains(*made));
                    text.push(u64::from(is_late));
                }
            }
        }
        for &value in &values {
            text.push(problem.traffic[value.0].to_bits());
            let given = u64::from(problem.given.contains(&value));
            let home = u64::from(self.home.is_none_or(|home| home.contains(value)));
            text.push(4 * home + 2 * given + u64::from(self.forced.contains(value)));
        }
        let local: BTreeMap<usize, u64> = self.part.kernels.iter().copied().zip(0..).collect();
        for (k, ops) in &problem.impossible {
            if let Some(&k) = local.get(k) {
                text.extend([u64::MAX, k, ops.len() as u64]);
                text.extend(ops.iter().map(|&m| m as u64));
            }
        }
        for cut in self.cuts {
            cut.number(&local, &numbers, &mut text);
        }
        (text, values)
    }
}
