//! What a search found, and why: phases, sizes, the bound, and of every chosen kernel the rules that led to it.

use super::extract::{FusionChoice, Selection, Taken, integer};
use super::kernel::{ClassKernel, class_of, nest_of};
use super::language::{TensorEGraph, innermost, label, value_name};
use super::problem::Extraction;
use super::variants::{KernelVariant, original};
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
pub struct FusedOp {
    /// The node of the graph, or the operation that a rule of algebra made.
    pub node: String,
    /// The rule of fusion that lets it into the kernel; none lets in what the kernel is built around.
    pub fused_by: Option<&'static str>,
    /// The rule of algebra that made it; none made what the graph has.
    pub made_by: Option<&'static str>,
    /// Where else it could have been computed.
    pub alternatives: Vec<Alternative>,
}

/// Where an op could have been computed, all else being equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alternative {
    /// The node that the other kernel is built around; the node itself means a kernel of its own.
    pub anchor: String,
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
    pub variant: String,
    /// In which other variants they could have been.
    pub variants: Vec<OtherVariant>,
    /// What it computes: first what it is built around, then its fused ops.
    pub ops: Vec<FusedOp>,
}

/// A variant that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherVariant {
    /// As [`Chosen::variant`].
    pub variant: String,
    /// Predicted seconds that the arithmetic and what it wants rearranged would take more.
    pub more: f64,
}

/// A tensor that is rearranged in every step, for those kernels that read it in vectors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Relayout {
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
    /// Kernels that could run, each with any of its fused ops.
    pub kernels: usize,
    /// Kernels with more candidates for fusion than [`super::rules::fusion::MAX_FUSED_OPS`]: the others were left out.
    pub crowded: usize,
    /// Values that could be stored.
    pub values: usize,
    /// Seconds of extraction.
    pub extraction_seconds: f64,
    /// How the solver came to its answer.
    pub effort: integer::SolveStats,
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
    pub relayouts: Vec<Relayout>,
}

impl Report {
    /// Alternatives of fused ops are computed only where they are asked for: each takes a selection of its own.
    pub(super) fn record(
        &mut self,
        egraph: &TensorEGraph,
        extraction: &Extraction,
        selection: &Selection,
        with_alternatives: bool,
    ) {
        let Extraction {
            problem,
            ops,
            anchors,
            ..
        } = extraction;
        self.seconds = selection.seconds;
        self.bound = selection.bound;
        self.gap = selection.gap();
        self.values = problem.traffic.len();
        let choice = selection.choice();
        let is_relayout = |taken: &&Taken| taken.kernel >= anchors.len();
        self.relayouts = selection
            .taken
            .iter()
            .filter(is_relayout)
            .map(|taken| {
                let class = ops[taken.kernel][0];
                Relayout {
                    value: value_name(egraph, original(egraph, class))
                        .unwrap_or("a value")
                        .to_string(),
                    dimension: innermost(egraph, class).expect("it was rearranged for a dimension"),
                    seconds: problem.seconds(taken),
                }
            })
            .collect();
        for taken in extraction.computing(selection) {
            let launch = problem.kernels[taken.kernel].launch;
            let (seconds, memory) = (problem.seconds(taken), problem.memory(taken));
            let classes = taken.ops.iter().map(|&m| ops[taken.kernel][m]);
            let mut names: Vec<&str> = classes.map(|class| label(egraph, class)).collect();
            names.dedup();
            let describe = |&m: &usize| {
                let (anchor, class) = (ops[taken.kernel][0], ops[taken.kernel][m]);
                FusedOp {
                    node: label(egraph, class).to_string(),
                    fused_by: egraph
                        .analysis
                        .anchors
                        .fused_ops
                        .get(&(anchor, class))
                        .map(|rule| rule.name()),
                    made_by: egraph.analysis.kernels_by.get(&class).copied(),
                    alternatives: match m {
                        _ if m == 0 || !with_alternatives => vec![],
                        _ => alternatives(egraph, extraction, &choice, selection.seconds, (taken.kernel, m)),
                    },
                }
            };
            let anchor = ops[taken.kernel][0];
            let variant = &anchors[taken.kernel];
            let others = extraction.variants[&anchor]
                .iter()
                .filter(|other| *other != variant);
            let other = |other: &KernelVariant| OtherVariant {
                variant: name(egraph, anchor, other),
                more: other.seconds() - variant.seconds(),
            };
            self.chosen.push(Chosen {
                label: names.join("+"),
                variant: name(egraph, anchor, variant),
                variants: others.map(other).collect(),
                ops: taken.ops.iter().map(describe).collect(),
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

fn name(egraph: &TensorEGraph, kernel: Id, variant: &KernelVariant) -> String {
    let forms = winograd::candidates(nest_of(egraph, kernel).0);
    let form = |products| forms.iter().find(|form| form.products() == products);
    match (variant.algorithm, variant.vectors) {
        (Algorithm::Winograd(products), _) => form(products).map_or(String::new(), winograd::Form::name),
        (Algorithm::Direct, None) => "direct".to_string(),
        (Algorithm::Direct, Some((vectors, panel))) => {
            let class = class_of(ClassKernel::of(egraph, kernel).nest.reads[panel].source);
            let panel = value_name(egraph, class).unwrap_or("a value");
            let relayout = if variant.relayout.is_some() {
                ", relayout"
            } else {
                ""
            };
            format!(
                "direct, {panel} in vectors along dimension {}{relayout}",
                vectors.dimension
            )
        }
    }
}

/// What the whole would take if a fused op were computed elsewhere: in a kernel of its own, or in another that runs.
fn alternatives(
    egraph: &TensorEGraph,
    extraction: &Extraction,
    choice: &FusionChoice,
    seconds: f64,
    (kernel, op): (usize, usize),
) -> Vec<Alternative> {
    let Extraction { problem, ops, .. } = extraction;
    let class = ops[kernel][op];
    let mut found = vec![];
    for (other, classes) in ops.iter().enumerate().filter(|(other, _)| *other != kernel) {
        let Some(place) = classes.iter().position(|c| *c == class) else {
            continue;
        };
        if place != 0 && !choice.contains_key(&other) {
            continue;
        }
        let mut tried = choice.clone();
        tried.entry(kernel).and_modify(|ops| _ = ops.remove(&op));
        tried.entry(other).or_default().extend([0, place]);
        if let Ok(selection) = problem.realise(&tried) {
            found.push(Alternative {
                anchor: label(egraph, classes[0]).to_string(),
                more: selection.seconds - seconds,
            });
        }
    }
    found.sort_by(|a, b| a.more.total_cmp(&b.more));
    found
}
