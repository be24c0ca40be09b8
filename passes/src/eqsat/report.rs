//! What a search found, and why: phases, sizes, the bound, and of every chosen kernel the rules that led to it.

use super::extract::{Selection, integer};
use super::language::{Tensors, label};
use super::problem::Extraction;
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
    /// The node that it is built around.
    pub host: String,
    /// What it computes besides, each with the rule that lets it in.
    pub guests: Vec<(String, &'static str)>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Phases in their order.
    pub phases: Vec<Phase>,
    /// Kernels that could run, each with any of its guests.
    pub kernels: usize,
    /// Values that could be stored.
    pub values: usize,
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
    pub(super) fn record(&mut self, egraph: &Tensors, extraction: &Extraction, selection: &Selection) {
        let Extraction { problem, members, .. } = extraction;
        self.seconds = selection.seconds;
        self.bound = selection.bound;
        self.gap = selection.gap();
        self.values = problem.traffic.len();
        self.chosen = selection
            .taken
            .iter()
            .map(|taken| {
                let launch = problem.kernels[taken.kernel].launch;
                let (seconds, memory) = (problem.seconds(taken), problem.memory(taken));
                let classes: Vec<Id> = taken.members.iter().map(|&m| members[taken.kernel][m]).collect();
                let host = members[taken.kernel][0];
                let rule = |guest: &Id| egraph.analysis.hosts.guests.get(&(host, *guest)).copied();
                let guests = classes.iter().filter_map(|g| Some((label(egraph, *g).to_string(), rule(g)?)));
                let mut names: Vec<&str> = classes.iter().map(|&class| label(egraph, class)).collect();
                names.dedup();
                Chosen {
                    label: names.join("+"),
                    host: label(egraph, host).to_string(),
                    guests: guests.collect(),
                    seconds,
                    bound: match seconds - launch {
                        work if work < launch => "launch",
                        work if work > memory => "compute",
                        _ => "memory",
                    },
                }
            })
            .collect();
    }
}
