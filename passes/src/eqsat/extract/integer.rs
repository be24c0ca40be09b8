//! The integer program.
//!
//! ```text
//! run[k], in[k, m], read[k, v], store[k, v] ∈ {0, 1};  in[k, 0] = run[k]
//! in[k, m] ≤ run[k]
//! read[k, v] + Σ in[k, p] ≥ in[k, m]              over p that m can take v from, for every v that m needs
//! store[k, v] ≤ Σ in[k, m]                        over m that make v
//! Σ store[j, v] ≥ read[k, v]                      over j ≠ k, for every v that is not given
//! Σ store[k, v] ≥ 1                               over k, for every v that is in memory in every selection
//! Σ store[k, v] ≤ outputs · run[k]                over v
//! seconds[k] ≥ Σ compute · in[k, m]
//! seconds[k] ≥ Σ traffic · (read[k, v] + store[k, v])
//! minimise Σ seconds[k] + launch · run[k]
//! ```
//!
//! It is solved in [`super::parts`] that share no decision; equal parts are solved once. A part with more than
//! [`MAX_DECISIONS`] is improved in [`super::windows`], and its bound is counted.
//!
//! The rows say nothing of order, so a solution may contain kernels that wait for each other in a circle. The circle is cut
//! and the parts concerned are solved again: where a kernel reads what cannot be made without a value that only this kernel
//! computes, it must not do both; else one step of the circle must not be, and the parts it leads through become one.
//! Circles that no solution contains cost nothing. The bound of the last programs holds for the whole, since every row is
//! true of every selection that can run.

use super::bits::Bits;
use super::cuts::{Cut, Step};
use super::parts::{Part, parts};
use super::program::{Program, Solved, Stated};
use super::windows::windows;
use super::{ClassValueId, ExtractError, ExtractionProblem, FusionChoice, Selection, Stuck, greedy};
use crate::solver::Limits;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

/// The most decisions of a part that is solved as a whole.
pub const MAX_DECISIONS: usize = 1_500;
/// The most nodes of the search for a part's optimum. Unlike seconds they do not depend on what else a machine does.
const MAX_NODES: i32 = 200;
/// The largest gap that a part may be left with, relative to its seconds.
const MAX_GAP: f64 = 0.05;
/// The most rounds of cuts; then parts keep the greedy selection where their optimum waits for itself.
const MAX_ROUNDS: usize = 40;
/// Seconds of all parts and rounds together, as a multiple of those of a part. What is left then keeps the greedy selection.
const ALL_PARTS: f64 = 4.0;

/// How the solver came to its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct SolveStats {
    /// Rounds of solving: one, and one for each round of cuts.
    pub rounds: usize,
    /// Circles cut.
    pub cuts: usize,
    /// Variables of all programs of a round.
    pub variables: usize,
    /// Parts of the problem that share no decision.
    pub parts: usize,
    /// Parts that are equal to none before them: those that are solved.
    pub different: usize,
    /// Parts with more than [`MAX_DECISIONS`], which are not solved as a whole.
    pub too_large: usize,
}

/// The least share of the whole that a part is taken to cost for that: of nothing there are no units.
const MIN_SHARE: f64 = 1e-6;

/// A part's solution by the numbers of its signature.
#[derive(Clone, Debug)]
struct Numbered {
    ops: Vec<(usize, usize)>,
    stores: Vec<(usize, usize)>,
    bound: f64,
}

/// What rounds of solving learn.
#[derive(Clone, Debug, Default)]
pub struct Search {
    cuts: Vec<Cut>,
    /// How the solver came to its answer.
    pub effort: SolveStats,
    known: HashMap<Vec<u64>, Numbered>,
    /// Seconds in the solver so far.
    spent: f64,
}

/// The limits of a part: where it costs less than the mean of kernels, its gap may be larger by as much.
fn limits_of(seconds: f64, known: &Known) -> Limits {
    let mean = known.start.seconds / known.start.taken.len().max(1) as f64;
    Limits {
        gap: (known.limits.gap * (mean / seconds.max(f64::MIN_POSITIVE)).max(1.0)).min(MAX_GAP),
        ..known.limits
    }
}

/// What all rounds of a selection work on.
struct Known<'a> {
    problem: &'a ExtractionProblem,
    before: Vec<Bits>,
    forced: Bits,
    start: Selection,
    limits: Limits,
    /// Seconds that the solver may take in all: no more than the program is worth.
    seconds: f64,
}

impl Search {
    /// The cheapest selection, from a greedy one as a start. May be called again after the problem forbids more.
    ///
    /// It ends when what is known is within the gap of the bound, or at a limit, with the gap that is left.
    pub fn select(
        &mut self,
        problem: &ExtractionProblem,
        limits: &Limits,
    ) -> Result<Selection, ExtractError> {
        let start = greedy::select(problem)?;
        let all = Limits {
            seconds: ALL_PARTS * limits.seconds,
            ..*limits
        };
        let known = Known {
            problem,
            before: problem.ancestors(),
            forced: problem.forced(),
            seconds: all.worth(start.seconds).seconds,
            start,
            limits: *limits,
        };
        let mut parts = parts(problem, &known.forced);
        let mut solved: Vec<Option<Solved>> = vec![None; parts.len()];
        loop {
            self.effort.rounds += 1;
            self.effort.parts = parts.len();
            self.effort.too_large = 0;
            for (part, solved) in parts.iter().zip(&mut solved) {
                if part.decisions(problem) > MAX_DECISIONS {
                    self.effort.too_large += 1;
                }
                if solved.is_none() {
                    *solved = Some(self.solve(&known, part)?);
                }
            }
            self.effort.different = self.known.len();
            let all = || solved.iter().flatten();
            let bound: f64 = all().map(|solved| solved.bound).sum();
            let choice: FusionChoice = all().flat_map(|solved| solved.choice.clone()).collect();
            let better = |a: Selection, b: Selection| if a.seconds <= b.seconds { a } else { b };
            let with_bound = |selection: Selection| Selection {
                bound: bound.min(selection.seconds),
                ..selection
            };
            let stuck = match problem.realise(&choice) {
                Ok(found) => return Ok(with_bound(better(found, known.start))),
                Err(stuck) => stuck,
            };
            if known.start.seconds <= bound * (1.0 + limits.gap) {
                return Ok(with_bound(known.start));
            }
            let mut new = orders(&known, &parts, &choice, &stuck);
            new.retain(|cut| !self.cuts.contains(cut));
            if new.is_empty() {
                let stores = all().flat_map(|solved| solved.stores.iter().copied());
                new = circles(stores, &stuck);
                new.retain(|cut| !self.cuts.contains(cut));
            }
            if new.is_empty() || self.effort.rounds >= MAX_ROUNDS || self.spent >= known.seconds {
                let solved: Vec<Solved> = solved.into_iter().flatten().collect();
                return Ok(with_bound(patched(&known, &parts, &solved)));
            }
            for cut in &new {
                concerned(&cut.kernels(), &mut parts, &mut solved);
            }
            self.cuts.append(&mut new);
            self.effort.cuts = self.cuts.len();
        }
    }

    /// A part's optimum: that of an equal part, if one was solved.
    fn solve(&mut self, known: &Known, part: &Part) -> Result<Solved, ExtractError> {
        let Known {
            problem,
            before,
            forced,
            start,
            ..
        } = known;
        if part.decisions(problem) <= MAX_DECISIONS {
            return self.solve_stated(known, part, forced, None);
        }
        let mut solved = kept(part, start);
        for window in windows(problem, part, start, forced) {
            let better = self.solve_stated(known, &window.part, &window.pinned, Some(&window.home))?;
            let is_elsewhere = |k: &usize| window.part.kernels.binary_search(k).is_err();
            solved.choice.retain(|k, _| is_elsewhere(k));
            solved.stores.retain(|(k, _)| is_elsewhere(k));
            solved.choice.extend(better.choice);
            solved.stores.extend(better.stores);
        }
        solved.bound = part
            .counted_bound(problem, forced, before)
            .min(part.seconds(problem, start));
        Ok(solved)
    }

    fn solve_stated(
        &mut self,
        known: &Known,
        part: &Part,
        forced: &Bits,
        home: Option<&Bits>,
    ) -> Result<Solved, ExtractError> {
        let Known {
            problem,
            before,
            start,
            ..
        } = known;
        let stated = Stated {
            problem,
            part,
            before,
            forced,
            cuts: &self.cuts,
            home,
        };
        let (signature, values) = stated.signature();
        if let Some(numbered) = self.known.get(&signature) {
            return Ok(numbered.solved(part, &values));
        }
        if self.spent >= known.seconds {
            let bound = part.counted_bound(problem, forced, before);
            return Ok(Solved {
                bound: bound.min(part.seconds(problem, start)),
                ..kept(part, start)
            });
        }
        let program = Program::new(
            &stated,
            part.seconds(problem, start).max(MIN_SHARE * start.seconds),
        );
        self.effort.variables += program.columns();
        let limits = limits_of(part.seconds(problem, start), known);
        let limits = Limits {
            seconds: limits.seconds.min(known.seconds - self.spent),
            ..limits
        };
        let begun = Instant::now();
        let solved = program.solve(start, limits, MAX_NODES)?;
        self.spent += begun.elapsed().as_secs_f64();
        self.known.insert(signature, Numbered::of(&solved, part, &values));
        Ok(solved)
    }
}

impl Numbered {
    fn of(solved: &Solved, part: &Part, values: &[ClassValueId]) -> Numbered {
        let kernels: BTreeMap<usize, usize> = part.kernels.iter().copied().zip(0..).collect();
        let numbers: BTreeMap<ClassValueId, usize> = values.iter().copied().zip(0..).collect();
        let ops = solved.choice.iter();
        Numbered {
            ops: ops
                .flat_map(|(k, ops)| ops.iter().map(|&m| (kernels[k], m)))
                .collect(),
            stores: solved
                .stores
                .iter()
                .map(|(k, v)| (kernels[k], numbers[v]))
                .collect(),
            bound: solved.bound,
        }
    }

    fn solved(&self, part: &Part, values: &[ClassValueId]) -> Solved {
        let mut choice = FusionChoice::new();
        for &(k, m) in &self.ops {
            choice.entry(part.kernels[k]).or_default().insert(m);
        }
        let stores = self.stores.iter().map(|&(k, v)| (part.kernels[k], values[v]));
        Solved {
            choice,
            stores: stores.collect(),
            bound: self.bound,
        }
    }
}

/// What a selection has of a part.
fn kept(part: &Part, selection: &Selection) -> Solved {
    let mut kept = Solved::default();
    let own = |k: &usize| part.kernels.binary_search(k).is_ok();
    for taken in selection.taken.iter().filter(|taken| own(&taken.kernel)) {
        kept.choice
            .insert(taken.kernel, taken.ops.iter().copied().collect());
        kept.stores
            .extend(taken.stores.iter().map(|&v| (taken.kernel, v)));
    }
    kept
}

/// Makes one part of those that some kernels are in, to be solved again.
fn concerned(kernels: &[usize], parts: &mut Vec<Part>, solved: &mut Vec<Option<Solved>>) {
    let holds = |part: &Part| kernels.iter().any(|k| part.kernels.binary_search(k).is_ok());
    let mut found: Vec<usize> = (0..parts.len()).filter(|&p| holds(&parts[p])).collect();
    let first = found.remove(0);
    for p in found.into_iter().rev() {
        let part = parts.remove(p);
        solved.remove(p);
        parts[first].kernels.extend(part.kernels);
    }
    parts[first].kernels.sort_unstable();
    solved[first] = None;
}

/// The greedy selection with the optima of those parts that wait for nothing of their own.
fn patched(known: &Known, parts: &[Part], solved: &[Solved]) -> Selection {
    let mut best = known.start.clone();
    let mut choice = best.choice();
    for (part, solved) in parts.iter().zip(solved) {
        let before = kept(part, &best);
        if before.choice == solved.choice {
            continue;
        }
        let mut tried = choice.clone();
        tried.retain(|k, _| part.kernels.binary_search(k).is_err());
        tried.extend(solved.choice.clone());
        if let Ok(found) = known.problem.realise(&tried)
            && found.seconds < best.seconds
        {
            (choice, best) = (tried, found);
        }
    }
    best
}

/// Kernels that wait for what cannot be made without themselves.
fn orders(known: &Known, parts: &[Part], choice: &FusionChoice, stuck: &Stuck) -> Vec<Cut> {
    let problem = known.problem;
    let mut makers: BTreeMap<ClassValueId, Vec<usize>> = BTreeMap::new();
    for (&k, ops) in choice {
        for &value in ops.iter().flat_map(|&m| &problem.kernels[k].ops[m].makes) {
            makers.entry(value).or_default().push(k);
        }
    }
    let all = problem.makers();
    let ops = parts.iter().enumerate();
    let part_of: HashMap<usize, usize> = ops
        .flat_map(|(p, part)| part.kernels.iter().map(move |&k| (k, p)))
        .collect();
    let mut found = vec![];
    for (&kernel, reads) in &stuck.waiting {
        for &op in &choice[&kernel] {
            for &made in &problem.kernels[kernel].ops[op].makes {
                let elsewhere = makers[&made].iter().any(|&k| k != kernel);
                // Where others could make it too, their part must be this one: the cut speaks of all of them.
                let is_own = |k: &usize| part_of.get(k).is_none_or(|p| *p == part_of[&kernel]);
                if elsewhere || problem.given.contains(&made) || !all[made.0].iter().all(is_own) {
                    continue;
                }
                let late = reads.iter().filter(|read| known.before[read.0].contains(made));
                found.extend(late.map(|&read| Cut::Before {
                    kernel,
                    op,
                    made,
                    read,
                }));
            }
        }
    }
    found
}

/// A shortest circle through every kernel that waits, each once.
fn circles(stores: impl Iterator<Item = (usize, ClassValueId)>, stuck: &Stuck) -> Vec<Cut> {
    let mut makers: BTreeMap<ClassValueId, Vec<usize>> = BTreeMap::new();
    for (k, value) in stores.filter(|(k, _)| stuck.waiting.contains_key(k)) {
        makers.entry(value).or_default().push(k);
    }
    let mut found: Vec<Cut> = vec![];
    for &start in stuck.waiting.keys() {
        if let Some(mut steps) = circle(&makers, stuck, start) {
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
fn circle(makers: &BTreeMap<ClassValueId, Vec<usize>>, stuck: &Stuck, start: usize) -> Option<Vec<Step>> {
    let mut paths: BTreeMap<usize, Vec<Step>> = [(start, vec![])].into();
    let mut open: VecDeque<usize> = [start].into();
    while let Some(k) = open.pop_front() {
        for &value in stuck.waiting.get(&k).into_iter().flatten() {
            for &maker in makers.get(&value).into_iter().flatten() {
                let mut path = paths[&k].clone();
                path.push((maker, value, k));
                if maker == start {
                    return Some(path);
                }
                paths.entry(maker).or_insert_with(|| {
                    open.push_back(maker);
                    path
                });
            }
        }
    }
    None
}
