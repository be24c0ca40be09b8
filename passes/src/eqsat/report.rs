//! What a search found, and why: phases, sizes, the bound, and of every chosen kernel the rules that led to it.

use super::extract::{Choice, Selection, Taken, integer};
use super::kernel::{Kernel, class_of, nest_of};
use super::language::{Tensors, fastest, label, value_name};
use super::problem::Extraction;
use super::ways::{Way, original};
use crate::winograd;
use egg::Id;
use ir::program::Algorithm;
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

/// A part of a chosen kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// The node of the graph, or the operation that a rule of algebra made.
    pub node: String,
    /// The rule of fusion that lets it into the kernel; none lets in what the kernel is built around.
    pub fused_by: Option<&'static str>,
    /// The rule of algebra that made it; none made what the graph has.
    pub made_by: Option<&'static str>,
    /// Where else it could have been computed.
    pub alternatives: Vec<Alternative>,
}

/// Where a member could have been computed, all else being equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alternative {
    /// The node that the other kernel is built around; the node itself means a kernel of its own.
    pub host: String,
    /// Predicted seconds that the whole would take more.
    pub more: f64,
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
    /// How its sums are computed: `direct`, with what is read in vectors and how that lies, or Winograd's F(outputs, taps).
    pub way: String,
    /// In which other ways they could have been.
    pub ways: Vec<OtherWay>,
    /// What it computes: first what it is built around, then its guests.
    pub members: Vec<Member>,
}

/// A way that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherWay {
    /// As [`Chosen::way`].
    pub way: String,
    /// Predicted seconds that the arithmetic and what it wants rearranged would take more.
    pub more: f64,
}

/// A tensor that is rearranged in every step, for those kernels that read it in vectors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rearranged {
    /// The tensor.
    pub value: String,
    /// Its dimension that runs fastest then.
    pub dimension: usize,
    /// Predicted time in seconds.
    pub seconds: f64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Phases in their order.
    pub phases: Vec<Phase>,
    /// Kernels that could run, each with any of its guests.
    pub kernels: usize,
    /// Kernels with more candidates for fusion than [`super::rules::fusion::MAX_FUSED_OPS`]: the others were left out.
    pub crowded: usize,
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
    /// What is rearranged for them, by kernels of its own.
    pub rearranged: Vec<Rearranged>,
}

impl Report {
    /// Alternatives of guests are computed only where they are asked for: each takes a selection of its own.
    pub(super) fn record(
        &mut self,
        egraph: &Tensors,
        extraction: &Extraction,
        selection: &Selection,
        with_alternatives: bool,
    ) {
        let Extraction {
            problem,
            members,
            hosts,
            ..
        } = extraction;
        self.seconds = selection.seconds;
        self.bound = selection.bound;
        self.gap = selection.gap();
        self.values = problem.traffic.len();
        let choice = selection.choice();
        let rearranges = |taken: &&Taken| taken.kernel >= hosts.len();
        self.rearranged = selection
            .taken
            .iter()
            .filter(rearranges)
            .map(|taken| {
                let class = members[taken.kernel][0];
                Rearranged {
                    value: value_name(egraph, original(egraph, class))
                        .unwrap_or("a value")
                        .to_string(),
                    dimension: fastest(egraph, class).expect("it was rearranged for a dimension"),
                    seconds: problem.seconds(taken),
                }
            })
            .collect();
        for taken in extraction.computing(selection) {
            let launch = problem.kernels[taken.kernel].launch;
            let (seconds, memory) = (problem.seconds(taken), problem.memory(taken));
            let classes = taken.members.iter().map(|&m| members[taken.kernel][m]);
            let mut names: Vec<&str> = classes.map(|class| label(egraph, class)).collect();
            names.dedup();
            let describe = |&m: &usize| {
                let (host, class) = (members[taken.kernel][0], members[taken.kernel][m]);
                Member {
                    node: label(egraph, class).to_string(),
                    fused_by: egraph
                        .analysis
                        .hosts
                        .guests
                        .get(&(host, class))
                        .map(|rule| rule.name()),
                    made_by: egraph.analysis.kernels_by.get(&class).copied(),
                    alternatives: match m {
                        _ if m == 0 || !with_alternatives => vec![],
                        _ => alternatives(egraph, extraction, &choice, selection.seconds, (taken.kernel, m)),
                    },
                }
            };
            let host = members[taken.kernel][0];
            let way = &hosts[taken.kernel];
            let others = extraction.ways[&host].iter().filter(|other| *other != way);
            let other = |other: &Way| OtherWay {
                way: name(egraph, host, other),
                more: other.seconds() - way.seconds(),
            };
            self.chosen.push(Chosen {
                label: names.join("+"),
                way: name(egraph, host, way),
                ways: others.map(other).collect(),
                members: taken.members.iter().map(describe).collect(),
                seconds,
                bound: match seconds - launch {
                    work if work < launch => "launch",
                    work if work > memory => "compute",
                    _ => "memory",
                },
            });
        }
    }
}

fn name(egraph: &Tensors, kernel: Id, way: &Way) -> String {
    let forms = winograd::candidates(nest_of(egraph, kernel).0);
    let form = |products| forms.iter().find(|form| form.products() == products);
    match (way.algorithm, way.vectors) {
        (Algorithm::Winograd(products), _) => form(products).map_or(String::new(), winograd::Form::name),
        (Algorithm::Direct, None) => "direct".to_string(),
        (Algorithm::Direct, Some((vectors, panel))) => {
            let class = class_of(Kernel::of(egraph, kernel).nest.reads[panel].source);
            let panel = value_name(egraph, class).unwrap_or("a value");
            let rearranged = if way.rearranged.is_some() {
                ", rearranged"
            } else {
                ""
            };
            format!(
                "direct, {panel} in vectors along dimension {}{rearranged}",
                vectors.dimension
            )
        }
    }
}

/// What the whole would take if a guest were computed elsewhere: in a kernel of its own, or in another that runs.
fn alternatives(
    egraph: &Tensors,
    extraction: &Extraction,
    choice: &Choice,
    seconds: f64,
    (kernel, member): (usize, usize),
) -> Vec<Alternative> {
    let Extraction { problem, members, .. } = extraction;
    let class = members[kernel][member];
    let mut found = vec![];
    for (other, classes) in members.iter().enumerate().filter(|(other, _)| *other != kernel) {
        let Some(place) = classes.iter().position(|c| *c == class) else {
            continue;
        };
        if place != 0 && !choice.contains_key(&other) {
            continue;
        }
        let mut tried = choice.clone();
        tried
            .entry(kernel)
            .and_modify(|members| _ = members.remove(&member));
        tried.entry(other).or_default().extend([0, place]);
        if let Ok(selection) = problem.realise(&tried) {
            found.push(Alternative {
                host: label(egraph, classes[0]).to_string(),
                more: selection.seconds - seconds,
            });
        }
    }
    found.sort_by(|a, b| a.more.total_cmp(&b.more));
    found
}
