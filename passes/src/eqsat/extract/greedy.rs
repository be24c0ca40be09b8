//! A selection without search: every value by the kernel that is cheapest if nothing is shared, then ops moved into
//! kernels one by one for as long as that helps.
//!
//! A move is judged by what it changes: the kernel that takes an op in, those that no longer have to store what it makes,
//! and those that only they needed. A move that does not help is taken back. One move is compound: a value is computed again
//! in all kernels that read it.

use super::trees::{Next, cheapest_trees};
use super::{ClassValueId, ExtractError, ExtractionProblem, FusedOp, Selection, Taken};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// The most rounds over all kernels; each ends where nothing is better, as a rule after three.
const MAX_ROUNDS: usize = 20;

/// Selects greedily. Its bound is zero: it proves nothing.
pub fn select(problem: &ExtractionProblem) -> Result<Selection, ExtractError> {
    let start = problem
        .realise(&cheapest_trees(problem)?)
        .map_err(|stuck| ExtractError::Unmade(stuck.missing.0))?;
    let mut state = State::new(problem, &start);
    let mut open: BTreeSet<usize> = state.runs.keys().copied().collect();
    for _ in 0..MAX_ROUNDS {
        let mut next = BTreeSet::new();
        for kernel in std::mem::take(&mut open) {
            for op in 1..problem.kernels[kernel].ops.len() {
                if state.improve(kernel, op) {
                    next.extend(state.neighbours());
                }
            }
        }
        for value in (0..problem.traffic.len()).map(ClassValueId) {
            if state.recompute(value) {
                next.extend(state.neighbours());
            }
        }
        if next.is_empty() {
            break;
        }
        open = next;
    }
    Ok(state.selection())
}

/// A kernel of a selection that changes.
#[derive(Clone, Debug)]
struct Run {
    taken: Taken,
    seconds: f64,
    /// Its place in the order: greater than those of the kernels that store what it reads.
    place: f64,
}

/// A selection that changes kernel by kernel.
struct State<'a> {
    problem: &'a ExtractionProblem,
    impossible: BTreeMap<usize, Vec<&'a BTreeSet<usize>>>,
    runs: BTreeMap<usize, Run>,
    /// The kernel that stores each value.
    storer: Vec<Option<usize>>,
    /// The kernels that read each value from memory.
    readers: Vec<BTreeSet<usize>>,
    /// The kernels that could store each value, since they compute it.
    computing: Vec<BTreeSet<usize>>,
    /// Kernels of the move under way, as they were before it.
    changed: BTreeMap<usize, Option<Run>>,
}

impl<'a> State<'a> {
    fn new(problem: &'a ExtractionProblem, start: &Selection) -> State<'a> {
        let count = problem.traffic.len();
        let mut impossible: BTreeMap<usize, Vec<&BTreeSet<usize>>> = BTreeMap::new();
        for (k, ops) in &problem.impossible {
            impossible.entry(*k).or_default().push(ops);
        }
        let mut state = State {
            problem,
            impossible,
            runs: BTreeMap::new(),
            storer: vec![None; count],
            readers: vec![BTreeSet::new(); count],
            computing: vec![BTreeSet::new(); count],
            changed: BTreeMap::new(),
        };
        for (place, taken) in start.taken.iter().enumerate() {
            state.set(taken.kernel, Some(taken.clone()), place as f64);
        }
        state.changed.clear();
        state
    }

    /// Replaces a kernel of the selection, adds or removes it.
    fn set(&mut self, kernel: usize, taken: Option<Taken>, place: f64) {
        let run = taken.map(|taken| Run {
            seconds: self.problem.seconds(&taken),
            taken,
            place,
        });
        let old = self.put(kernel, run);
        self.changed.entry(kernel).or_insert(old);
    }

    fn put(&mut self, kernel: usize, run: Option<Run>) -> Option<Run> {
        let old = self.runs.remove(&kernel);
        if let Some(old) = &old {
            for value in &old.taken.reads {
                self.readers[value.0].remove(&kernel);
            }
            for value in &old.taken.stores {
                if self.storer[value.0] == Some(kernel) {
                    self.storer[value.0] = None;
                }
            }
            for value in self.problem.made(&old.taken) {
                self.computing[value.0].remove(&kernel);
            }
        }
        if let Some(run) = run {
            for value in &run.taken.reads {
                self.readers[value.0].insert(kernel);
            }
            for value in &run.taken.stores {
                self.storer[value.0] = Some(kernel);
            }
            for value in self.problem.made(&run.taken) {
                self.computing[value.0].insert(kernel);
            }
            self.runs.insert(kernel, run);
        }
        old
    }

    /// Takes an op into a kernel if that makes the whole cheaper.
    fn improve(&mut self, kernel: usize, op: usize) -> bool {
        self.improve_by(&[(kernel, op)])
    }

    /// Computes a value again in all kernels that read it, if that makes the whole cheaper. The store is saved only if all of
    /// them do: one of them alone gains nothing.
    fn recompute(&mut self, value: ClassValueId) -> bool {
        let problem = self.problem;
        let again = |&kernel: &usize| {
            let ops = &problem.kernels[kernel].ops;
            let makes = |m: &FusedOp| !m.is_stored && m.makes.contains(&value);
            Some((kernel, ops.iter().position(makes)?))
        };
        let moves: Option<Vec<(usize, usize)>> = self.readers[value.0].iter().map(again).collect();
        moves.is_some_and(|moves| moves.len() > 1 && self.improve_by(&moves))
    }

    /// Takes ops into kernels, all or none, if that makes the whole cheaper.
    fn improve_by(&mut self, moves: &[(usize, usize)]) -> bool {
        self.changed.clear();
        let better = moves.iter().all(|&(kernel, op)| self.take_in(kernel, op))
            && self.gain() > 0.0
            && moves.iter().all(|&(kernel, _)| self.is_ordered(kernel));
        if !better {
            for (kernel, run) in std::mem::take(&mut self.changed) {
                self.put(kernel, run);
            }
        }
        better
    }

    /// Seconds that the move under way saves.
    fn gain(&self) -> f64 {
        let before = self.changed.values().flatten().map(|run| run.seconds);
        let after = self.changed.keys().filter_map(|k| self.runs.get(k));
        let (before, after): (f64, f64) = (before.sum(), after.map(|run| run.seconds).sum());
        // What rounding makes of equal sums is no gain.
        match before - after {
            gain if gain > 1e-12 * before => gain,
            _ => 0.0,
        }
    }

    /// The kernels of the last move, and those that read what they store or store what they read.
    fn neighbours(&self) -> BTreeSet<usize> {
        let runs = self.changed.keys().filter_map(|k| self.runs.get(k));
        let mut found: BTreeSet<usize> = BTreeSet::new();
        for Run { taken, .. } in runs {
            found.insert(taken.kernel);
            found.extend(taken.reads.iter().filter_map(|v| self.storer[v.0]));
            found.extend(taken.stores.iter().flat_map(|v| &self.readers[v.0]));
        }
        found
    }

    /// Whether anybody but a kernel needs a value in memory.
    fn is_needed(&self, value: ClassValueId, kernel: usize) -> bool {
        self.problem.wanted.contains(&value) || self.readers[value.0].iter().any(|&k| k != kernel)
    }

    /// Changes the selection so that a kernel computes one more op, and stores what others need of that; `false` where
    /// something would be missing or a limit is met.
    fn take_in(&mut self, kernel: usize, op: usize) -> bool {
        let problem = self.problem;
        let Some(run) = self.runs.get(&kernel) else {
            return false;
        };
        let mut ops: BTreeSet<usize> = run.taken.ops.iter().copied().collect();
        if !ops.insert(op) {
            return false;
        }
        let mut excluded = self.impossible.get(&kernel).into_iter().flatten();
        if excluded.any(|set| set.is_subset(&ops)) {
            return false;
        }
        let (place, mut stores) = (run.place, run.taken.stores.clone());
        let added = &problem.kernels[kernel].ops[op];
        let mut losers: BTreeSet<usize> = BTreeSet::new();
        for &value in added
            .makes
            .iter()
            .filter(|v| added.is_stored && !problem.given.contains(v))
        {
            if self.is_needed(value, kernel) && !stores.contains(&value) {
                stores.push(value);
                losers.extend(self.storer[value.0]);
            }
        }
        let taken_over: BTreeSet<ClassValueId> = stores.iter().copied().collect();
        let whole = Taken {
            stores,
            ..problem.inside(kernel, &ops)
        };
        let mut open: BTreeSet<usize> = BTreeSet::new();
        let mut dropped = self.replace(kernel, problem.trimmed(whole), place);
        for loser in losers {
            let Run { mut taken, place, .. } = self.runs[&loser].clone();
            taken.stores.retain(|v| !taken_over.contains(v));
            dropped.extend(self.replace(loser, taken, place));
        }
        // Values that nobody reads any more are not stored, and what only they needed is not computed.
        open.insert(kernel);
        loop {
            for value in std::mem::take(&mut dropped) {
                open.extend(self.storer[value.0]);
            }
            let Some(next) = open.pop_first() else { break };
            let Some(run) = self.runs.get(&next) else { continue };
            let unread = |v: &ClassValueId| !problem.wanted.contains(v) && self.readers[v.0].is_empty();
            if run.taken.stores.iter().any(unread) {
                let Run { mut taken, place, .. } = run.clone();
                taken.stores.retain(|v| !unread(v));
                dropped = self.replace(next, taken, place);
            }
        }
        self.supply(kernel) && self.fits()
    }

    /// Replaces a kernel by itself with other stores, or removes it where there are none. Returns the values that it no longer
    /// reads.
    fn replace(&mut self, kernel: usize, taken: Taken, place: f64) -> Vec<ClassValueId> {
        let before = self.runs[&kernel].taken.reads.clone();
        let taken = (!taken.stores.is_empty()).then(|| self.problem.trimmed(taken));
        let reads: BTreeSet<ClassValueId> = taken.iter().flat_map(|t| t.reads.iter().copied()).collect();
        self.set(kernel, taken, place);
        before.into_iter().filter(|v| !reads.contains(v)).collect()
    }

    /// Has what a kernel reads stored where it is computed already.
    fn supply(&mut self, kernel: usize) -> bool {
        let Some(run) = self.runs.get(&kernel) else {
            return false;
        };
        let given = &self.problem.given;
        let missing = run.taken.reads.iter().copied();
        let missing = missing.filter(|v| !given.contains(v) && self.storer[v.0].is_none());
        for value in missing.collect::<Vec<_>>() {
            let maker = self.computing[value.0].iter().copied().find(|&k| k != kernel);
            let Some(maker) = maker else { return false };
            let Run { mut taken, place, .. } = self.runs[&maker].clone();
            taken.stores.push(value);
            self.set(maker, Some(taken), place);
        }
        true
    }

    /// Whether no kernel stores more than it can, or as much as before.
    fn fits(&self) -> bool {
        let stores = |run: Option<&Run>| run.map_or(0, |run| run.taken.stores.len());
        self.changed.iter().all(|(k, before)| {
            let now = stores(self.runs.get(k));
            now <= self.problem.outputs || now <= stores(before.as_ref())
        })
    }

    /// Whether a changed kernel can run after those that store what it reads, and before those that read what it stores. Its
    /// place follows.
    fn is_ordered(&mut self, kernel: usize) -> bool {
        let run = &self.runs[&kernel];
        let storers = run.taken.reads.iter().filter_map(|v| self.storer[v.0]);
        let after = storers
            .map(|k| self.runs[&k].place)
            .fold(f64::NEG_INFINITY, f64::max);
        let readers = run.taken.stores.iter().flat_map(|v| &self.readers[v.0]);
        let before = readers.map(|k| self.runs[k].place).fold(f64::INFINITY, f64::min);
        if after < run.place && run.place < before {
            return true;
        }
        if after < before {
            let place = match (after.is_finite(), before.is_finite()) {
                (true, true) => 0.5 * (after + before),
                (true, false) => after + 1.0,
                (false, true) => before - 1.0,
                (false, false) => 0.0,
            };
            if after < place && place < before {
                self.runs.get_mut(&kernel).expect("it is here").place = place;
                return true;
            }
        } else if self.waits_for_itself(kernel, before) {
            return false;
        }
        self.number();
        true
    }

    /// Whether a kernel reads, over any number of steps, what it stores. Only kernels from a place on can read that.
    fn waits_for_itself(&self, kernel: usize, from: f64) -> bool {
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let mut open = vec![kernel];
        while let Some(k) = open.pop() {
            for maker in self.runs[&k].taken.reads.iter().filter_map(|v| self.storer[v.0]) {
                if maker == kernel {
                    return true;
                }
                if self.runs[&maker].place >= from && seen.insert(maker) {
                    open.push(maker);
                }
            }
        }
        false
    }

    /// Gives all kernels places in an order in which they can run, by the places they had.
    fn number(&mut self) {
        let order = self.order();
        for (place, k) in order.into_iter().enumerate() {
            self.runs.get_mut(&k).expect("it is in the order").place = place as f64;
        }
    }

    /// Kernels in an order in which they can run.
    fn order(&self) -> Vec<usize> {
        let mut waits: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ready: BinaryHeap<Next> = BinaryHeap::new();
        let next = |k: usize| Next(self.runs[&k].place, k);
        for (&k, run) in &self.runs {
            let count = run
                .taken
                .reads
                .iter()
                .filter(|v| self.storer[v.0].is_some())
                .count();
            waits.insert(k, count);
            if count == 0 {
                ready.push(next(k));
            }
        }
        let mut order = vec![];
        while let Some(Next(_, k)) = ready.pop() {
            order.push(k);
            for reader in self.runs[&k].taken.stores.iter().flat_map(|v| &self.readers[v.0]) {
                let count = waits.get_mut(reader).expect("all kernels wait");
                *count -= 1;
                if *count == 0 {
                    ready.push(next(*reader));
                }
            }
        }
        order
    }

    fn selection(&self) -> Selection {
        let taken: Vec<Taken> = self.order().iter().map(|k| self.runs[k].taken.clone()).collect();
        Selection {
            seconds: taken.iter().map(|taken| self.problem.seconds(taken)).sum(),
            taken,
            bound: 0.0,
        }
    }
}
