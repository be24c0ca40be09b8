//! What a search found, and why: phases, sizes, the bound, and of every chosen kernel the rules that led to it.

use super::extract::{Problem, Selection, integer};
use super::language::{Tensors, origin};
use egg::Id;
use serde::Serialize;
use std::collections::BTreeMap;

/// A phase of saturation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Rounds of all its rules.
    pub rounds: usize,
    /// E-nodes at its end.
    pub nodes: usize,
    /// Classes at its end.
    pub classes: usize,
    /// How often each rule found something new.
    pub applied: BTreeMap<String, usize>,
    /// Why it ended.
    pub stopped: String,
    /// How long it took.
    pub seconds: f64,
}

/// A chosen kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// The nodes it computes, joined by `+`.
    pub label: String,
    /// Predicted time in seconds.
    pub seconds: f64,
    /// What bounds it: `compute`, `memory` or `launch`.
    pub bound: &'static str,
    /// The rules that made it, the last first, each with the kernels that it joined.
    pub rules: Vec<String>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Phases in their order.
    pub phases: Vec<Phase>,
    /// Kernels that the extraction chose among.
    pub candidates: usize,
    /// Seconds of extraction.
    pub extraction_seconds: f64,
    /// How the solver came to its answer.
    pub effort: integer::Effort,
    /// Predicted time in seconds.
    pub seconds: f64,
    /// No choice among the candidates is predicted to be faster.
    pub bound: f64,
    /// How far the choice may be from the best, relative to its time.
    pub gap: f64,
    /// Why the solver's answer was not used, if it was not.
    pub fallback: Option<String>,
    /// The chosen kernels in the order they run.
    pub chosen: Vec<Chosen>,
}

impl Report {
    pub(super) fn record(
        &mut self,
        egraph: &Tensors,
        problem: &Problem,
        selection: &Selection,
        kernels: &[Id],
    ) {
        self.seconds = selection.seconds;
        self.bound = selection.bound;
        self.gap = selection.gap();
        for taken in &selection.taken {
            let (candidate, kernel) = (&problem.candidates[taken.candidate], kernels[taken.candidate]);
            let seconds = candidate.seconds(|v| taken.stores.contains(&v));
            let bound = match seconds - candidate.launch {
                work if work < candidate.launch => "launch",
                work if work <= candidate.compute => "compute",
                _ => "memory",
            };
            let mut rules = vec![];
            explain(egraph, kernel, &mut rules);
            self.chosen.push(Chosen {
                label: origin(egraph, kernel).label.clone(),
                seconds,
                bound,
                rules,
            });
        }
    }
}

/// The rule that made a kernel, then those that made what it was made of.
fn explain(egraph: &Tensors, kernel: Id, rules: &mut Vec<String>) {
    let made = origin(egraph, egraph.find(kernel));
    if let [a, b] = made.from[..] {
        let label = |id: Id| &origin(egraph, egraph.find(id)).label;
        rules.push(format!("{}: {} with {}", made.rule, label(a), label(b)));
        explain(egraph, a, rules);
        explain(egraph, b, rules);
    }
}
