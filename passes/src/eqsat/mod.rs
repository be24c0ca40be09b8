//! Equality saturation: the alternatives of a graph in one e-graph, and the cheapest program in it.
//!
//! ```text
//! graph ──build──▶ e-graph ──rules──▶ more ways to make the same values ──extract──▶ kernels ──program──▶ program
//!                              algebra, lower, fusion, siblings          integer program over the costs of a machine
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`language`] | operations, kernels and values as e-nodes; types as the analysis |
//! | [`build`] | graph to e-graph and back |
//! | [`rules`] | the rules, as tables |
//! | [`costs`] | what a kernel costs |
//! | [`extract`] | which kernels run |
//! | [`report`] | what was found, and why |
//!
//! Rules run in phases, each to its end or its limits: algebra on operations, then every operation becomes kernels, then
//! kernels are joined. A run that meets a limit says so and extracts from what is there: fewer alternatives, never a
//! different result.

pub mod build;
pub mod costs;
pub mod extract;
pub mod interner;
pub mod language;
mod program;
pub mod report;
pub mod rules;

use crate::error::PassError;
use build::Built;
use costs::Costs;
use egg::{Id, Rewrite, Runner, SimpleScheduler};
use extract::{Candidate, Problem, ValueIx, greedy, integer};
use ir::Graph;
use ir::plan::Mode;
use ir::program::Program;
use language::{Facts, Node, Tensors, value_type};
use program::{Making, nest_of, results_of};
use report::{Phase, Report};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Of the extraction.
    pub extraction: integer::Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            nodes: 50_000,
            rounds: 12,
            seconds: 10,
            extraction: integer::Limits::default(),
        }
    }
}

/// The cheapest program of a bound graph on a machine, as far as the limits let it be found.
pub fn search(
    graph: &Graph,
    mode: Mode,
    batch: usize,
    costs: &dyn Costs,
    limits: &Limits,
) -> Result<(Program, Report), PassError> {
    let Built { mut egraph, classes } = build::from_graph(graph);
    let mut report = Report::default();
    let phases: [(&'static str, Vec<Rewrite<Node, Facts>>, usize); 4] = [
        ("algebra", rules::algebra::rewrites(), limits.rounds),
        ("lower", rules::kernels::lowering(), 1),
        ("siblings", rules::kernels::siblings(), 1),
        ("fusion", rules::kernels::fusion(), limits.rounds),
    ];
    for (name, rules, rounds) in phases {
        let phase;
        (egraph, phase) = saturate(egraph, name, &rules, rounds, limits);
        report.phases.push(phase);
    }

    let start = Instant::now();
    let Extraction { problem, kernels, values } = Extraction::new(&egraph, graph, &classes, costs);
    report.candidates = problem.candidates.len();
    let selection = match integer::select(&problem, &limits.extraction) {
        Ok((selection, effort)) => {
            report.effort = effort;
            selection
        }
        // The program without the solver is as right, only dearer; the report says which it is.
        Err(error) => {
            report.fallback = Some(error.to_string());
            greedy::select(&problem).map_err(|error| PassError::Broken {
                pass: "search",
                faults: vec![error.to_string()],
            })?
        }
    };
    problem.verify(&selection).map_err(|fault| PassError::Broken {
        pass: "search",
        faults: vec![fault],
    })?;
    report.extraction_seconds = start.elapsed().as_secs_f64();
    report.record(&egraph, &problem, &selection, &kernels);
    let making = Making {
        egraph: &egraph,
        graph,
        classes: &classes,
        kernels: &kernels,
        values: &values,
    };
    let program = making.program(mode, batch, &selection.taken)?;
    Ok((program, report))
}

/// Runs rules until nothing is new, or a limit is met.
pub fn saturate(
    egraph: Tensors,
    name: &'static str,
    rules: &[Rewrite<Node, Facts>],
    rounds: usize,
    limits: &Limits,
) -> (Tensors, Phase) {
    let start = Instant::now();
    let runner = Runner::<Node, Facts, ()>::new(Facts::default())
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

/// The kernels of an e-graph as a problem of selection.
struct Extraction {
    problem: Problem,
    /// The class of each candidate.
    kernels: Vec<Id>,
    /// The class of each value.
    values: Vec<Id>,
}

impl Extraction {
    fn new(egraph: &Tensors, graph: &Graph, classes: &[Id], costs: &dyn Costs) -> Extraction {
        let mut values: Vec<Id> = vec![];
        let mut positions: BTreeMap<Id, ValueIx> = BTreeMap::new();
        let mut position = |class: Id| {
            *positions.entry(class).or_insert_with(|| {
                values.push(class);
                ValueIx(values.len() - 1)
            })
        };
        let mut problem = Problem::default();
        for id in graph.ids().filter(|&id| graph.node(id).op.is_leaf()) {
            let value = position(egraph.find(classes[id.index()]));
            problem.given.insert(value);
        }
        let outputs = graph.outputs().iter().map(|(_, id)| id);
        let updates = graph.updates().iter().map(|(_, next)| next);
        for id in outputs.chain(updates) {
            let value = position(egraph.find(classes[id.index()]));
            problem.wanted.insert(value);
        }
        let is_kernel = |id: &Id| egraph[*id].nodes.iter().any(|node| matches!(node, Node::Kernel(..)));
        let mut kernels: Vec<Id> = egraph.classes().map(|class| class.id).filter(is_kernel).collect();
        kernels.sort_unstable();
        for &kernel in &kernels {
            let (nest, operands) = nest_of(egraph, kernel);
            let operands: Vec<Id> = operands.iter().map(|&id| egraph.find(id)).collect();
            let types: Vec<_> = operands.iter().map(|&id| value_type(egraph, id)).collect();
            let cost = costs.kernel(nest, &types);
            let needs: BTreeSet<ValueIx> = operands.into_iter().map(&mut position).collect();
            let results = results_of(egraph, kernel).into_iter().map(&mut position);
            problem.candidates.push(Candidate {
                needs: needs.into_iter().collect(),
                offers: results.zip(cost.store).collect(),
                compute: cost.compute,
                read: cost.read,
                launch: cost.launch,
            });
        }
        problem.values = values.len();
        Extraction {
            problem,
            kernels,
            values,
        }
    }
}
