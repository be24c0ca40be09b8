//! Graph to graph to program: everything between the model as written and kernels to generate code for.
//!
//! | module | what it does |
//! |---|---|
//! | [`training`] | what a run computes: inference, gradients, or a whole training step as one graph |
//! | [`gradient`] | reverse mode |
//! | [`simplify`] | local rules, common subexpressions, dead code |
//! | [`eqsat`] | the cheapest program of a graph: algebra and fusion by equality saturation, chosen by an integer program |
//! | [`lower`] | graph to program, one kernel a nest |
//! | [`copies`] | kernels write where a copy would bring their results; [`compose`] and [`substitute`] say how kernels become one |
//! | [`schedule`] | the order of kernels |
//! | [`partition`] | which device runs which part of which kernel, and what is transferred |
//! | [`winograd`] | the algorithm of convolutions on processors: direct, or with fewer multiplications |
//! | [`layout`], [`gpu_layout`] | where the elements of stored values lie; [`vectors`]: what contractions want |
//! | [`rematerialize`] | which values are computed again rather than kept |
//! | [`micro_batch_size`] | where convolutions take smaller micro-batches, for memory |
//! | [`micro_batches`] | which kernels take a part of the batch after the other, by way of [`micro_batch`] |
//! | [`memory`] | which values share bytes, [`overlap_chain`] those that do so micro-batch by micro-batch |
//! | [`cost`] | what kernels, transfers and programs cost on a device |
//!
//! [`pipeline`] is the whole way on one screen. This crate knows no target and no file.

pub mod compose;
pub mod copies;
pub mod cost;
pub mod eqsat;
pub mod error;
pub mod gpu_layout;
pub mod gradient;
pub mod layout;
pub mod lower;
pub mod memory;
pub mod micro_batch;
pub mod micro_batch_size;
pub mod micro_batches;
mod operands;
pub mod overlap_chain;
pub mod partition;
pub mod region;
pub mod rematerialize;
pub mod schedule;
pub mod simplify;
pub mod solver;
pub mod substitute;
pub mod training;
pub mod vectors;
pub mod winograd;

pub use error::PassError;
pub use partition::search::Splits;
pub use training::Optimizer;

use cost::Costs;
use eqsat::report::Report;
use ir::Graph;
use ir::plan::Mode;
use ir::program::Program;
use partition::Strategy;
use partition::search::{Measures, PlacementResult};

/// What kind of machine kernels are laid out for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// A processor with vector registers.
    #[default]
    Cpu,
    /// A GPU.
    Gpu,
}

/// How far to optimise. What a level counts with belongs to it: one a device.
#[derive(Clone, Copy, Debug)]
pub enum OptLevel<'a> {
    /// One kernel a nest.
    None,
    /// Simplified; kernels are chosen greedily, and with two devices each runs half of what it can.
    Greedy(&'a [Costs<'a>]),
    /// Simplified; kernels and their devices are chosen by integer programs.
    Search(&'a [Costs<'a>]),
}

impl<'a> OptLevel<'a> {
    /// Greedily, for one or two devices of a kind, with the figures of the profile that ships for it.
    pub fn greedy(machine: DeviceKind) -> OptLevel<'static> {
        OptLevel::Greedy(cost::shipped(machine))
    }

    /// Its number on the command line.
    pub fn number(self) -> u8 {
        match self {
            OptLevel::None => 0,
            OptLevel::Greedy(_) => 1,
            OptLevel::Search(_) => 2,
        }
    }

    /// What kernels are chosen with; without optimisation none are.
    pub fn costs(self) -> Option<&'a [Costs<'a>]> {
        match self {
            OptLevel::None => None,
            OptLevel::Greedy(costs) | OptLevel::Search(costs) => Some(costs),
        }
    }
}

/// What to compile a model to.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// What one run does.
    pub mode: Mode,
    /// Samples of one run.
    pub batch: usize,
    /// What is compiled into training steps; gradients look at its `dropout` only.
    pub optimizer: Optimizer,
    /// How far to optimise.
    pub opt_level: OptLevel<'a>,
    /// Where it will run.
    pub machine: DeviceKind,
    /// Where else, if on two devices.
    pub second: Option<DeviceKind>,
    /// Whether the report of a search says what fused operations would cost elsewhere.
    pub explain: bool,
    /// Which ways to split kernels among devices a search looks at.
    pub splits: Splits,
    /// Bytes that kernels which take micro-batches of their samples read and write in a micro-batch, if possible.
    pub micro_batch_bytes: u64,
}

/// Inference of one sample on a processor, fused greedily.
impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            mode: Mode::Infer,
            batch: 1,
            optimizer: Optimizer::default(),
            opt_level: OptLevel::greedy(DeviceKind::Cpu),
            machine: DeviceKind::Cpu,
            second: None,
            explain: false,
            splits: Splits::All,
            micro_batch_bytes: micro_batch::MICRO_BATCH_BYTES,
        }
    }
}

/// What a pass left behind, for `--emit` and for tests.
#[derive(Clone, Copy, Debug)]
pub enum Snapshot<'a> {
    /// After a pass over graphs.
    Graph(&'a Graph),
    /// After a pass over programs.
    Program(&'a Program),
    /// What a search for kernels found, before its program.
    Kernels(&'a Report),
    /// What a search for places found, with the program whose kernels are placed.
    Placement(&'a PlacementResult, &'a Program),
}

/// What a pass makes of a graph.
pub type Change<'a, Made> = Box<dyn Fn(&Graph) -> Result<Made, PassError> + 'a>;

/// A step of the pipeline, with its name.
pub enum Pass<'a> {
    /// Graph to graph.
    Graph(&'static str, Change<'a, Graph>),
    /// Graph to program.
    Lower(&'static str, Change<'a, Program>),
    /// Graph to the cheapest program of it.
    Search(&'static str, Change<'a, (Program, Report)>),
    /// Where the kernels of a program run best.
    Place(&'static str, Box<dyn Fn(&Program) -> PlacementResult + 'a>),
    /// Program to program.
    Program(&'static str, Box<dyn Fn(Program) -> Program + 'a>),
}

/// Limits of the search for places. What it does is limited by counts first: those seconds are for a machine with much else
/// to do.
const PLACES: solver::Limits = solver::Limits {
    seconds: 60.0,
    gap: 5e-3,
};

impl Pass<'_> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Pass::Graph(name, _)
            | Pass::Lower(name, _)
            | Pass::Search(name, _)
            | Pass::Program(name, _)
            | Pass::Place(name, _) => name,
        }
    }
}

/// Every step from a model's graph to a program that code is generated for, in order.
pub fn pipeline<'a>(options: &Options<'a>) -> Vec<Pass<'a>> {
    let Options {
        mode,
        batch,
        optimizer,
        splits,
        ..
    } = *options;
    let explain = options.explain;
    let mut passes = vec![graph("bind", move |g| {
        g.bind(batch).map_err(PassError::graph("bind"))
    })];
    passes.push(match mode {
        Mode::Infer => graph("inference", training::inference),
        Mode::Gradients => graph("gradients", move |g| training::gradients(g, optimizer.dropout)),
        Mode::Train => graph("training", move |g| training::training(g, &optimizer)),
    });
    if let Some(costs) = options.opt_level.costs() {
        passes.push(graph("simplify", simplify::simplify));
        let mut limits = eqsat::Limits {
            alternatives: explain,
            ..eqsat::Limits::default()
        };
        if let OptLevel::Greedy(_) = options.opt_level {
            limits.extraction = None;
        }
        let processors = machines(options)
            .iter()
            .all(|machine| *machine == DeviceKind::Cpu);
        let search = move |g: &Graph| eqsat::search(g, mode, batch, &costs[0], processors, &limits);
        passes.push(Pass::Search("search", Box::new(search)));
    } else {
        let lower = move |g: &Graph| lower::lower(g, mode, batch);
        passes.push(Pass::Lower("lower", Box::new(lower)));
    }
    passes.push(program("schedule", in_place(schedule::schedule)));
    let machines = machines(options);
    if options.second.is_some() {
        let shares = vec![1; machines.len()];
        passes.push(match options.opt_level {
            OptLevel::Search(costs) => {
                let rest = rest(options);
                let search = move |p: &Program| {
                    // Where values lie in memory takes long, and makes no difference to a simulation.
                    let timed = &rest[..rest.len() - 1];
                    // As it would be compiled; what cannot be placed so is refused later.
                    let bytes = |strategy: &Strategy| {
                        let placed = partition::partition(p, strategy);
                        placed.map_or(vec![], |placed| {
                            memory::bytes_of_devices(&run_rest(&rest, placed))
                        })
                    };
                    let seconds = |strategy: &Strategy| {
                        let placed = partition::partition(p, strategy);
                        placed.map_or(f64::INFINITY, |placed| {
                            cost::makespan(&run_rest(timed, placed), costs).us * 1e-6
                        })
                    };
                    let measures = Measures {
                        bytes: &bytes,
                        seconds: &seconds,
                    };
                    partition::search::search(p, &shares, costs, splits, PLACES, measures)
                };
                Pass::Place("partition", Box::new(search))
            }
            OptLevel::None | OptLevel::Greedy(_) => program("partition", move |p| {
                let strategy = partition::choose::choose(&p, &shares);
                partition::partition(&p, &strategy).expect("the chosen strategy was tried")
            }),
        });
    }
    passes.extend(rest(options));
    passes
}

/// The machine of every device.
fn machines(options: &Options) -> Vec<DeviceKind> {
    [options.machine].into_iter().chain(options.second).collect()
}

/// The steps after kernels are placed.
fn rest<'a>(options: &Options<'a>) -> Vec<Pass<'a>> {
    let micro_batch_bytes = options.micro_batch_bytes;
    let mut passes = vec![];
    if uses_micro_batches(options) {
        let micro_batched = micro_batched(options);
        passes.push(program(
            "algorithm",
            in_place(move |p| {
                micro_batch_size::choose(p, micro_batch_bytes, &|trial| run_rest(&micro_batched, trial));
            }),
        ));
    }
    passes.extend(micro_batched(options));
    passes.push(program("memory", in_place(|p| _ = memory::plan(p))));
    passes
}

/// Whether kernels become others, which take micro-batches.
fn uses_micro_batches(options: &Options) -> bool {
    let mut machines = machines(options).into_iter();
    options.opt_level.costs().is_some() && machines.all(|machine| machine == DeviceKind::Cpu)
}

/// The steps between the algorithm of convolutions and memory.
fn micro_batched<'a>(options: &Options<'a>) -> Vec<Pass<'a>> {
    let micro_batch_bytes = options.micro_batch_bytes;
    let machines = machines(options);
    let mut passes = vec![];
    if uses_micro_batches(options) && machines.len() == 1 {
        // With several devices the order is part of where kernels were placed.
        passes.push(program("reschedule", in_place(schedule::reschedule)));
    }
    passes.push(program("layout", move |p| layout::assign(&p, &machines)));
    if uses_micro_batches(options) {
        passes.push(program(
            "rematerialize",
            in_place(move |p| rematerialize::rematerialize(p, micro_batch_bytes)),
        ));
        passes.push(program(
            "micro-batches",
            in_place(move |p| micro_batches::cut(p, micro_batch_bytes)),
        ));
    }
    passes
}

fn run_rest(passes: &[Pass], placed: Program) -> Program {
    let one = |made, pass: &Pass| match pass {
        Pass::Program(_, change) => change(made),
        _ => made,
    };
    passes.iter().fold(placed, one)
}

/// Compiles a model's graph to a program, and shows what each step made of it to `observe`.
pub fn compile(
    graph: &Graph,
    options: &Options,
    observe: &mut dyn FnMut(&str, Snapshot),
) -> Result<Program, PassError> {
    run(&pipeline(options), graph, observe)
}

/// Runs passes in order. Each one's result is verified, and the pass named that broke something.
///
/// The passes must lead from graphs over one lowering to programs; a list that does not is refused.
pub fn run(
    passes: &[Pass],
    graph: &Graph,
    observe: &mut dyn FnMut(&str, Snapshot),
) -> Result<Program, PassError> {
    let mut graph = graph.clone();
    let mut program: Option<Program> = None;
    for pass in passes {
        let (name, next) = match (pass, program.take()) {
            (Pass::Graph(name, change), None) => {
                graph = change(&graph)?;
                ir::verify::verify(&graph).map_err(|faults| PassError::Broken { pass: name, faults })?;
                observe(name, Snapshot::Graph(&graph));
                continue;
            }
            (Pass::Lower(name, lower), None) => (name, lower(&graph)?),
            (Pass::Search(name, search), None) => {
                let (found, report) = search(&graph)?;
                observe(name, Snapshot::Kernels(&report));
                (name, found)
            }
            (Pass::Program(name, change), Some(program)) => (name, change(program)),
            (Pass::Place(name, place), Some(program)) => {
                let found = place(&program);
                observe(name, Snapshot::Placement(&found, &program));
                let placed = partition::partition(&program, &found.strategy);
                (name, placed.map_err(|fault| broken(name, fault))?)
            }
            (pass, _) => {
                let fault = "runs on the wrong side of the lowering to programs";
                return Err(broken(pass.name(), fault));
            }
        };
        next.verify()
            .and_then(|()| schedule::verify(&next))
            .map_err(|fault| broken(name, fault))?;
        observe(name, Snapshot::Program(program.insert(next)));
    }
    program.ok_or_else(|| broken("lower", "is missing from the pipeline"))
}

fn broken(pass: &'static str, fault: impl Into<String>) -> PassError {
    PassError::Broken {
        pass,
        faults: vec![fault.into()],
    }
}

fn graph<'a>(name: &'static str, change: impl Fn(&Graph) -> Result<Graph, PassError> + 'a) -> Pass<'a> {
    Pass::Graph(name, Box::new(change))
}

fn program<'a>(name: &'static str, change: impl Fn(Program) -> Program + 'a) -> Pass<'a> {
    Pass::Program(name, Box::new(change))
}

fn in_place(change: impl Fn(&mut Program)) -> impl Fn(Program) -> Program {
    move |mut program| {
        change(&mut program);
        program
    }
}
