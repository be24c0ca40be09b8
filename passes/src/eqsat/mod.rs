//! Equality saturation: the alternatives of a graph in one e-graph, and the cheapest program in it.
//!
//! ```text
//! graph ──build──▶ e-graph ──rules──▶ more ways to make the same values ──extract──▶ kernels ──program──▶ program
//!                         algebra, lowering, fusion,                       integer program over the costs of a machine
//!                         algorithm, layout
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`language`] | operations, kernels and values as e-nodes; types as the analysis |
//! | [`build`] | graph to e-graph and back |
//! | [`rules`] | the rules, as tables |
//! | [`kernel`] | kernels with fused ops, and the nest that comes of them |
//! | [`variants`] | how each could be computed, and in which layout |
//! | [`extract`] | which kernels run |
//! | [`report`] | what was found, and why |
//!
//! Rules run in phases, each to its end or its limits: algebra on operations, then every operation becomes kernels, then
//! kernels learn what may be computed inside of them, by which algorithms, and in which layouts. A run that meets a limit
//! says so and extracts from what is there: fewer alternatives, never a different result.

pub mod build;
pub mod extract;
pub mod fusion_rule;
pub mod interner;
pub mod kernel;
pub mod language;
mod problem;
mod program;
pub mod report;
pub mod rules;
mod variants;

use crate::cost::Costs;
use crate::error::PassError;
use build::Built;
use egg::{Rewrite, Runner, SimpleScheduler};
use ir::Graph;
use ir::plan::Mode;
use ir::program::Program;
use language::{Node, TensorAnalysis, TensorEGraph};
use problem::{Extracted, Extraction};
use program::Making;
use report::{Phase, Report};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Limits of a search; one that is met is reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// E-nodes.
    pub nodes: usize,
    /// Rounds of a phase.
    pub rounds: usize,
    /// Seconds of a phase.
    pub seconds: u64,
    /// Of a part of the extraction; without them kernels are chosen greedily, and nothing is proved.
    pub extraction: Option<crate::solver::Limits>,
    /// Whether the report says what the whole would cost with a fused op computed elsewhere: a run for each.
    pub alternatives: bool,
}

/// E-nodes that a graph may grow to, for each of its nodes: small graphs have [`Limits::nodes`] in any case.
const NODES_OF_ONE: usize = 32;

impl Limits {
    fn of(&self, graph: &Graph) -> Limits {
        Limits {
            nodes: self.nodes.max(NODES_OF_ONE * graph.ids().count()),
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            nodes: 50_000,
            rounds: 40,
            seconds: 60,
            extraction: Some(crate::solver::Limits {
                seconds: 3.0,
                gap: 5e-3,
            }),
            alternatives: false,
        }
    }
}

/// The cheapest program of a bound graph on a machine, as far as the limits let it be found; `processors` says that all
/// devices are such: they have kernels by other algorithms than the direct ones, and read contractions in vectors.
pub fn search(
    graph: &Graph,
    mode: Mode,
    batch: usize,
    costs: &Costs,
    processors: bool,
    limits: &Limits,
) -> Result<(Program, Report), PassError> {
    let Built { mut egraph, classes } = build::from_graph(graph);
    let mut report = Report::default();
    let of_processors = [
        ("algorithm", rules::algorithm::rewrites(), 1),
        ("layout", rules::layout::rewrites(), 1),
    ];
    let phases = [
        ("algebra", rules::algebra::rewrites(), limits.rounds),
        ("lower", rules::lowering::rewrites(), 1),
    ];
    let limits = &limits.of(graph);
    let phases = phases
        .into_iter()
        .chain(of_processors.into_iter().filter(|_| processors));
    for (name, rules, rounds) in phases {
        let phase;
        (egraph, phase) = saturate(egraph, name, &rules, rounds, limits);
        language::canonicalize_rules(&mut egraph);
        report.phases.push(phase);
    }
    report
        .phases
        .push(rules::fusion::saturate(&mut egraph, limits.rounds));
    report.crowded = egraph.analysis.anchors.crowded.len();
    let start = Instant::now();
    let mut extraction = Extraction::new(&egraph, graph, mode, &classes, costs);
    report.kernels = extraction.problem.kernels.len();
    let Extracted {
        selection,
        kernels,
        effort,
        fallback,
    } = extraction.kernels(&egraph, limits)?;
    (report.effort, report.fallback) = (effort, fallback);
    report.extraction_seconds = start.elapsed().as_secs_f64();
    report.record(&egraph, &extraction, &selection, limits.alternatives);
    let making = Making {
        egraph: &egraph,
        graph,
        classes: &classes,
    };
    let labels = report.chosen.iter().map(|chosen| chosen.label.clone());
    let program = making.program(mode, batch, kernels.into_iter().zip(labels).collect())?;
    Ok((program, report))
}

/// Runs rules until nothing is new, or a limit is met.
pub fn saturate(
    egraph: TensorEGraph,
    name: &'static str,
    rules: &[Rewrite<Node, TensorAnalysis>],
    rounds: usize,
    limits: &Limits,
) -> (TensorEGraph, Phase) {
    let start = Instant::now();
    let runner = Runner::<Node, TensorAnalysis, ()>::new(TensorAnalysis::default())
        .with_egraph(egraph)
        .with_scheduler(SimpleScheduler)
        .with_iter_limit(rounds)
        .with_node_limit(limits.nodes)
        .with_time_limit(Duration::from_secs(limits.seconds))
        .run(rules);
    let mut applied: BTreeMap<String, usize> = BTreeMap::new();
    for iteration in &runner.iterations {
        for (rule, count) in &iteration.applied {
            *applied.entry(rule.to_string()).or_default() += count;
        }
    }
    let phase = Phase {
        name,
        rounds: runner.iterations.len(),
        nodes: runner.egraph.total_size(),
        classes: runner.egraph.number_of_classes(),
        applied,
        stopped: match &runner.stop_reason {
            Some(egg::StopReason::Saturated) => "saturated".to_string(),
            Some(egg::StopReason::IterationLimit(_)) if rounds == 1 => "one round".to_string(),
            Some(egg::StopReason::IterationLimit(n)) => format!("limit of {n} rounds"),
            Some(egg::StopReason::NodeLimit(n)) => format!("limit of {n} nodes"),
            Some(egg::StopReason::TimeLimit(_)) => format!("limit of {} s", limits.seconds),
            other => format!("{other:?}"),
        },
        seconds: start.elapsed().as_secs_f64(),
    };
    (runner.egraph, phase)
}
