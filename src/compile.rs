//! Joins the crates: a model's text to an artifact in memory.

use crate::compile_times::CompileTimes;
use crate::costs::{self, DeviceCosts};
use clap::ValueEnum;
use codegen::{Code, Target};
use ir::Graph;
use ir::plan::Mode;
use passes::cost::Costs;
use passes::{DeviceKind, OptLevel, Optimizer, Options, Snapshot, Splits};
use runtime::console::Console;
use runtime::device::capacity;
use runtime::recipe::Recipe;
use runtime::{Artifact, Case, Compiled, Error, HostObject, Ptx};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A stage that `--emit` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Emit {
    /// The graph as parsed.
    Graph,
    /// The graph after every pass over graphs.
    Optimized,
    /// The program for Graphviz: kernels in the colour of their device, and transfers.
    Dot,
    /// The same as a picture.
    Svg,
    /// The kernels of the program: what each one computes, reads and writes.
    Program,
    /// Kernels as MLIR.
    Mlir,
    /// LLVM IR after optimisation.
    Llvm,
    /// Kernels as PTX, for GPUs.
    Ptx,
    /// Assembly.
    Asm,
    /// What the runtime executes, as JSON.
    Plan,
    /// What every launch costs and why, as JSON with a launch a line.
    Costs,
}

/// `STAGE` or `STAGE=FILE`.
#[derive(Clone, Debug)]
pub struct EmitTo {
    /// What to show.
    pub stage: Emit,
    /// Where; standard output if not given.
    pub file: Option<PathBuf>,
}

impl std::str::FromStr for EmitTo {
    type Err = String;

    fn from_str(text: &str) -> Result<EmitTo, String> {
        let (stage, file) = match text.split_once('=') {
            Some((_, "")) => return Err("no file is named after =".to_string()),
            Some((stage, file)) => (stage, Some(PathBuf::from(file))),
            None => (text, None),
        };
        Ok(EmitTo {
            stage: clap::ValueEnum::from_str(stage, false).map_err(|_| {
                let known = Emit::value_variants()
                    .iter()
                    .filter_map(clap::ValueEnum::to_possible_value);
                let known: Vec<String> = known.map(|value| value.get_name().to_string()).collect();
                format!(
                    "no stage is named {stage:?}; expected one of {}",
                    known.join(", ")
                )
            })?,
            file,
        })
    }
}

/// What to compile, apart from the model.
#[derive(Clone, Debug)]
pub struct Request {
    /// One program a mode.
    pub modes: Vec<Mode>,
    /// Samples of one run.
    pub batch: usize,
    /// The recipe, whose `[sgd]` table is compiled into training steps.
    pub recipe: Recipe,
    /// Whether gradients keep dropout.
    pub dropout: bool,
    /// 0: without optimisation. 1: fused greedily. 2: by search.
    pub opt_level: u8,
    /// Which ways to split kernels between two devices are looked at.
    pub splits: Splits,
    /// What to generate code for, one a device.
    pub targets: Vec<Target>,
    /// Whether the artifact takes conformance cases along.
    pub with_cases: bool,
    /// Stages whose text is wanted.
    pub emit: Vec<Emit>,
}

/// Texts of the stages that were asked for, of the last mode compiled.
pub type Emitted = BTreeMap<Emit, String>;

/// A model's file, parsed.
pub struct Model {
    /// Its text.
    pub text: String,
    /// Its graph.
    pub graph: Graph,
}

impl Model {
    /// Reads and parses a model; the error shows every mistake with its place.
    pub fn read(path: &Path, colour: bool) -> Result<Model, Error> {
        Model::parse(runtime::files::read_text(path, MODEL_BYTES)?, path, colour)
    }

    /// Parses the text of the model in `path`.
    pub fn parse(text: String, path: &Path, colour: bool) -> Result<Model, Error> {
        let graph = ir::text::parse(&text, &path.display().to_string())
            .map_err(|mistakes| Error::Report(ir::text::render(&mistakes, &text, colour)))?;
        Ok(Model { text, graph })
    }
}

/// The largest model file accepted.
pub const MODEL_BYTES: u64 = 16 << 20;

/// Compiles a model to an artifact with one program a mode. What it costs is computed from `costs`, one a device. Without
/// any it is not, and kernels are chosen by the profiles that ship.
pub fn compile(
    model: &Model,
    request: &Request,
    costs: &[DeviceCosts],
) -> Result<(Artifact, Emitted), Error> {
    compile_and_report(
        model,
        request,
        costs,
        &mut CompileTimes::default(),
        &mut |warning| Console::stderr().warn(warning),
    )
}

/// As [`compile`]; adds to `times` what each part took, and tells `warn` of every search that did not end with its answer.
pub fn compile_and_report(
    model: &Model,
    request: &Request,
    costs: &[DeviceCosts],
    times: &mut CompileTimes,
    warn: &mut dyn FnMut(&str),
) -> Result<(Artifact, Emitted), Error> {
    let begun = Instant::now();
    let mut emitted = Emitted::new();
    let mut artifact = Artifact {
        name: model.graph.name().to_string(),
        model: model.text.clone(),
        recipe: None,
        programs: vec![],
        cases: vec![],
    };
    if request.modes.contains(&Mode::Train) {
        artifact.recipe = Some(request.recipe.to_toml()?);
    }
    if request.emit.contains(&Emit::Graph) {
        emitted.insert(Emit::Graph, ir::text::print(&model.graph));
    }
    for &mode in &request.modes {
        let (program, cases) = compile_mode(&model.graph, request, costs, mode, &mut emitted, times, warn)?;
        artifact.programs.push(program);
        artifact.cases.extend(cases);
    }
    times.total += begun.elapsed().as_secs_f64();
    Ok((artifact, emitted))
}

/// What the passes are asked for; `costs` are what they count with, one a device.
pub fn options<'a>(request: &Request, mode: Mode, costs: &'a [Costs<'a>]) -> Options<'a> {
    let sgd = &request.recipe.sgd;
    let optimizer = Optimizer {
        momentum: sgd.momentum,
        weight_decay: sgd.weight_decay,
        bias_lr_factor: sgd.bias_lr_factor,
        bias_weight_decay: if sgd.bias_weight_decay {
            sgd.weight_decay
        } else {
            0.0
        },
        dropout: match mode {
            Mode::Train => request.recipe.train.dropout,
            Mode::Gradients | Mode::Infer => request.dropout,
        },
    };
    Options {
        mode,
        batch: request.batch,
        optimizer,
        opt_level: match request.opt_level {
            0 => OptLevel::None,
            1 => OptLevel::Greedy(costs),
            _ => OptLevel::Search(costs),
        },
        machine: machine(&request.targets[0]),
        second: request.targets.get(1).map(machine),
        explain: false,
        splits: request.splits,
        micro_batch_bytes: passes::micro_batch::MICRO_BATCH_BYTES,
    }
}

fn compile_mode(
    graph: &Graph,
    request: &Request,
    costs: &[DeviceCosts],
    mode: Mode,
    emitted: &mut Emitted,
    times: &mut CompileTimes,
    warn: &mut dyn FnMut(&str),
) -> Result<(Compiled, Vec<Case>), Error> {
    let mut warn = |what: &str, fallback: Option<&str>| {
        if let Some(reason) = fallback {
            warn(&format!("{what} were chosen greedily: {reason}"));
        }
    };
    let devices = costs::of_devices(costs, &request.targets);
    let shipped = costs::shipped(&request.targets);
    let options = match devices.is_empty() {
        true => options(request, mode, &shipped),
        false => options(request, mode, &devices),
    };
    let mut optimized = None;
    let mut pass_begun = Instant::now();
    let program = passes::compile(graph, &options, &mut |pass, stage| {
        times.add_pass(pass, pass_begun.elapsed().as_secs_f64());
        match stage {
            Snapshot::Graph(graph) => optimized = Some(graph.clone()),
            Snapshot::Kernels(report) => {
                times.e_nodes += report.phases.last().map_or(0, |phase| phase.nodes);
                warn("kernels", report.fallback.as_deref());
            }
            Snapshot::Placement(found, _) => warn("placements", found.fallback.as_deref()),
            Snapshot::Program(_) => {}
        }
        pass_begun = Instant::now();
    })
    .map_err(|error| Error::input(error.to_string()))?;
    let optimized = optimized.expect("the pipeline has passes over graphs");
    let assembly = request.emit.contains(&Emit::Asm);
    let generation_begun = Instant::now();
    let compiled = codegen::compile(&program, &request.targets, assembly)
        .map_err(|error| Error::work(error.to_string()))?;
    times.add_code_generation(generation_begun, &compiled.plan);
    for (position, device) in costs.iter().enumerate().filter(|(_, device)| device.is_limit) {
        let available = (device.profile.memory.capacity_gb * 1e9) as u64;
        capacity::check(&compiled.plan, position, available, &device.profile.name)?;
    }
    let costs = (!devices.is_empty()).then(|| costs::of_program(&program, &compiled, &devices));
    let text = ir::text::print(&optimized);
    for &stage in &request.emit {
        let shown = match stage {
            Emit::Graph => continue,
            Emit::Optimized => match request.targets.len() {
                1 => text.clone(),
                _ => text.clone() + &crate::show::placed(&program),
            },
            Emit::Dot => crate::draw::dot(&program),
            Emit::Svg => crate::draw::svg(&program),
            Emit::Program => ir::program::text::print(&program),
            Emit::Mlir => compiled.mlir.clone(),
            Emit::Llvm => compiled.llvm.clone(),
            Emit::Ptx => {
                let ptx = compiled.codes.iter().find_map(|code| match code {
                    Code::Ptx(text) => Some(text.clone()),
                    Code::Object(_) => None,
                });
                ptx.ok_or_else(|| {
                    Error::input(
                        "--emit ptx: the program is compiled for a processor; add --target sm_90 or --devices sim",
                    )
                })?
            }
            Emit::Asm => compiled.assembly.clone().unwrap_or_default(),
            Emit::Plan => crate::show::json(&compiled.plan),
            Emit::Costs => match &costs {
                Some(costs) => costs::table(&compiled.plan, costs),
                None => {
                    return Err(Error::input(
                        "--emit costs: no device is named to compute costs for",
                    ));
                }
            },
        };
        emitted.insert(stage, shown);
    }
    let cases = match request.with_cases {
        true => vec![
            crate::cases::kernels(&program, &compiled.calls, &request.targets)?,
            crate::cases::whole(graph, &options, &request.targets)?,
        ],
        false => vec![],
    };
    let mut made = program_of(compiled, &request.targets, text);
    made.predicted_ms = costs.map(|costs| costs.step_us / 1e3);
    Ok((made, cases))
}

/// What the runtime is given of a compiled program; `graph` is the text of the optimised graph.
pub fn program_of(compiled: codegen::CompiledProgram, targets: &[Target], graph: String) -> Compiled {
    let mut program = Compiled {
        plan: compiled.plan,
        graph,
        precision: "f32".to_string(),
        predicted_ms: None,
        host: None,
        ptx: vec![],
    };
    let mut different: Vec<&Target> = vec![];
    for target in targets {
        if !different.contains(&target) {
            different.push(target);
        }
    }
    for (target, code) in different.into_iter().zip(compiled.codes) {
        match (target, code) {
            (Target::Host(host), Code::Object(code)) => {
                program.host = Some(HostObject {
                    arch: runtime::device::cpu::HOST_ARCH.to_string(),
                    features: host.required_features(),
                    code,
                });
            }
            (Target::Gpu(gpu, precision), Code::Ptx(text)) => {
                program.precision = precision.name().to_string();
                program.ptx.push(Ptx {
                    target: gpu.architecture.to_string(),
                    text,
                });
            }
            _ => unreachable!("a target's code is of its kind"),
        }
    }
    program
}

/// The kind of machine that a target is for.
pub fn machine(target: &Target) -> DeviceKind {
    match target {
        Target::Host(_) => DeviceKind::Cpu,
        Target::Gpu(..) => DeviceKind::Gpu,
    }
}

/// The parameters of a model with their shapes and how they start.
pub fn initial_values(graph: &Graph) -> Vec<(String, Vec<usize>, ir::plan::Init)> {
    let parameters = graph.ids().filter_map(|id| match &graph.node(id).op {
        ir::Op::Parameter(parameter) => Some((graph.node(id), parameter.init)),
        _ => None,
    });
    parameters
        .map(|(node, init)| {
            let init = match init {
                ir::ops::Init::Constant(value) => ir::plan::Init::Constant(value.0),
                ir::ops::Init::Normal(std) => ir::plan::Init::Normal(std.0),
            };
            (node.name.clone(), node.ty.extents(), init)
        })
        .collect()
}
