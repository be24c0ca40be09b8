//! Placed graph to kernels: nests become MLIR text, MLIR becomes LLVM IR, LLVM IR becomes machine code.
//!
//! | module | what it does |
//! |---|---|
//! | [`contraction`] | register-tiled kernels of convolutions and matrix products |
//! | [`transform`] | sums with small tables of constants, unrolled: the transforms of fast convolutions |
//! | [`loops`] | kernels of every other nest: maps, batch slices, rows |
//! | [`sums`] | sums of many terms on a CPU, by lanes and blocks |
//! | [`padding`] | zeros around values that padded convolutions read |
//! | [`gpu`] | the same nests for GPUs |
//! | [`emit`], [`scalar`] | reads, stores and arithmetic on vectors of points |
//! | [`Buffers`] | the buffer of every value, and of every micro-batch of a batch slice; `scratch` those of kernels' own |
//! | [`access`], [`kernel`] | a nest resolved against layouts; tasks and arguments |
//! | [`mlir`] | the writer of MLIR text |
//! | [`bridge`] | the one module that knows MLIR and LLVM |
//! | [`parallel`] | kernels to machine code on all cores |
//! | [`link`] | object to shared object |
//!
//! A target is a set of lowerings, as [`gpu`] is one beside [`contraction`] and [`loops`], and a way out of
//! [`bridge`]; the nests, their resolution and the arithmetic stay.

pub mod access;
pub mod bridge;
mod buffers;
pub mod contraction;
pub mod emit;
pub mod gpu;
pub mod kernel;
pub mod link;
pub mod loops;
pub mod mlir;
pub mod padding;
mod parallel;
pub mod scalar;
mod scratch;
pub mod sums;
pub mod transform;

pub use buffers::Buffers;

use access::Operand;
use bridge::{BridgeError, GpuTarget, HostTarget};
use gpu::Precision;
use ir::plan::{Command, CommandKind, CompiledKernel, Plan};
use ir::program::{Kernel, Program, ValueId};
use kernel::KernelText;
use scratch::Scratch;
use std::collections::HashMap;

/// The version of the generated code: of the package, and a hash of the sources that generate it.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("ALEXC_CODEGEN_SOURCES"));

/// What to generate code for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A processor.
    Host(HostTarget),
    /// A GPU, and the arithmetic of its contractions.
    Gpu(GpuTarget, Precision),
}

impl Target {
    /// The name of its code in plans.
    pub fn code(&self) -> &'static str {
        match self {
            Target::Host(_) => ir::plan::CPU,
            Target::Gpu(..) => ir::plan::PTX,
        }
    }
}

/// Machine code of all kernels.
#[derive(Clone, Debug, PartialEq)]
pub enum Code {
    /// A shared object.
    Object(Vec<u8>),
    /// A module of PTX.
    Ptx(String),
}

/// A program compiled for the targets of its devices.
#[derive(Clone, Debug)]
pub struct CompiledProgram {
    /// What the runtime executes.
    pub plan: Plan,
    /// The kernels: one code a target, in the order of the devices.
    pub codes: Vec<Code>,
    /// The kernels as MLIR text.
    pub mlir: String,
    /// LLVM IR after optimisation.
    pub llvm: String,
    /// Assembly, if it was asked for.
    pub assembly: Option<String>,
    /// How each kernel of the program is launched, micro-batch by micro-batch, in the program's order.
    pub calls: Vec<Vec<MicroBatchLaunches<usize>>>,
}

/// The launches of one micro-batch of a kernel: each of them is one position if these are among the plan's, those of `prepack`
/// first.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatchLaunches<Command> {
    /// The kernel, and what adds its parts.
    pub launches: Vec<Command>,
    /// What writes zeros around its results.
    pub paddings: Vec<Command>,
}

/// Why a program could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Inside LLVM or MLIR.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The linker.
    #[error(transparent)]
    Link(#[from] link::LinkError),
}

/// Compiles a program for one target a device; `assembly` asks for assembly text too (of a GPU that is its PTX).
pub fn compile(
    program: &Program,
    targets: &[Target],
    assembly: bool,
) -> Result<CompiledProgram, CompileError> {
    assert_eq!(
        targets.len(),
        program.arena_bytes.len(),
        "every device has a target"
    );
    let buffers = Buffers::new(program);
    let mut library = KernelCache::new(targets);
    let mut scratch = Scratch::new(program, buffers.list().len());
    let mut plan = Plan {
        version: ir::plan::VERSION,
        model: program.model.clone(),
        mode: program.mode,
        batch: program.batch,
        devices: targets.iter().map(|target| target.code().to_string()).collect(),
        arena_bytes: program.arena_bytes.clone(),
        buffers: buffers.list().to_vec(),
        kernels: vec![],
        prepack: vec![],
        step: vec![],
        flops: program.flops,
    };
    let mut calls = vec![];
    for sequence in program.kernel_sequences() {
        let first = calls.len();
        let made = sequence
            .iter()
            .enumerate()
            .map(|(i, call)| match program.is_transfer(call) {
                true => vec![MicroBatchLaunches {
                    launches: vec![transfer(program, &buffers, call)],
                    paddings: vec![],
                }],
                false => library.add_call(program, &buffers, first + i, &mut scratch),
            });
        let made: Vec<Vec<MicroBatchLaunches<Command>>> = made.collect();
        let list = match sequence[0].prepack {
            true => &mut plan.prepack,
            false => &mut plan.step,
        };
        calls.resize_with(first + sequence.len(), Vec::new);
        for micro_batch in 0..sequence[0].micro_batches() {
            for (call, made) in made.iter().enumerate() {
                let MicroBatchLaunches { launches, paddings } = &made[micro_batch];
                let mut add = |launches: &[Command]| {
                    list.extend_from_slice(launches);
                    (list.len() - launches.len()..list.len()).collect()
                };
                calls[first + call].push(MicroBatchLaunches {
                    launches: add(launches),
                    paddings: add(paddings),
                });
            }
        }
    }
    // Steps come after everything that prepares.
    let steps = program
        .kernels
        .iter()
        .zip(&mut calls)
        .filter(|(call, _)| !call.prepack);
    for micro_batch in steps.flat_map(|(_, micro_batches)| micro_batches) {
        let all = micro_batch.launches.iter_mut().chain(&mut micro_batch.paddings);
        all.for_each(|position| *position += plan.prepack.len());
    }
    plan.buffers.extend(scratch.buffers);
    plan.arena_bytes = scratch.arena_bytes;
    plan.kernels.clone_from(&library.kernels);
    for (launch, after) in ir::order::waits(&plan).into_iter().enumerate() {
        plan.step[launch].after = after;
    }
    let mut compiled = CompiledProgram {
        plan,
        codes: vec![],
        mlir: library.texts.concat(),
        llvm: String::new(),
        assembly: Some(String::new()).filter(|_| assembly),
        calls,
    };
    for (number, target) in library.targets.iter().enumerate() {
        let parts = library.build(number, assembly)?;
        compiled.codes.push(match target {
            Target::Host(_) => {
                let objects: Vec<&[u8]> = parts.iter().map(|part| &part.code[..]).collect();
                Code::Object(link::shared_object(&objects)?)
            }
            Target::Gpu(..) => Code::Ptx(link::ptx_module(parts.iter().map(|part| &part.code[..]))),
        });
        for part in parts {
            compiled.llvm.push_str(&part.llvm);
            if let (Some(all), Some(text)) = (&mut compiled.assembly, &part.assembly) {
                all.push_str(text);
            }
        }
    }
    Ok(compiled)
}

/// The launch that brings a value from another device.
fn transfer(program: &Program, buffers: &Buffers, call: &Kernel) -> Command {
    let [from, to] = [call.operands[0], call.results[0]].map(|id| buffers.of(id));
    Command {
        label: call.label.clone(),
        device: program.device_of(call).0,
        work: CommandKind::Transfer { from, to },
        after: vec![],
    }
}

/// The operand that a value is, to a kernel.
pub fn operand(program: &Program, id: ValueId) -> Operand {
    let value = program.value(id);
    Operand {
        dtype: value.dtype,
        extents: value.extents.clone(),
        layout: value.layout.clone(),
    }
}

/// The kernels of a program; equal ones for one target are compiled once.
struct KernelCache {
    /// Different ones.
    targets: Vec<Target>,
    /// The target of each device, by position.
    target_of: Vec<usize>,
    kernels: Vec<CompiledKernel>,
    texts: Vec<String>,
    /// The target of each kernel, by position.
    made_for: Vec<usize>,
    known: HashMap<(usize, String, Vec<u64>), usize>,
}

impl KernelCache {
    fn new(devices: &[Target]) -> KernelCache {
        let mut targets: Vec<Target> = vec![];
        let mut target_of = vec![];
        for target in devices {
            let known = targets.iter().position(|other| other == target);
            target_of.push(known.unwrap_or(targets.len()));
            if known.is_none() {
                targets.push(target.clone());
            }
        }
        KernelCache {
            targets,
            target_of,
            kernels: vec![],
            texts: vec![],
            made_for: vec![],
            known: HashMap::new(),
        }
    }

    /// Adds kernel `k` of a program; gives the launches of every micro-batch.
    fn add_call(
        &mut self,
        program: &Program,
        buffers: &Buffers,
        k: usize,
        scratch: &mut Scratch,
    ) -> Vec<MicroBatchLaunches<Command>> {
        let call = &program.kernels[k];
        let device = program.device_of(call);
        let target = self.targets[self.target_of[device.0]].clone();
        let operands: Vec<Operand> = call.operands.iter().map(|&id| operand(program, id)).collect();
        let results: Vec<Operand> = call.results.iter().map(|&id| operand(program, id)).collect();
        let owners: Vec<ValueId> = call.operands.iter().map(|&id| program.owner(id)).collect();
        let is_result = |owner: &ValueId| call.results.iter().any(|&id| program.owner(id) == *owner);
        let overwritten: Vec<usize> = (0..owners.len()).filter(|&i| is_result(&owners[i])).collect();
        let texts = match &target {
            Target::Host(HostTarget { lanes, .. }) => vec![
                contraction::lower(&call.nest, &operands, &results, &overwritten, *lanes)
                    .or_else(|| transform::lower(&call.nest, &operands, &results, *lanes))
                    .unwrap_or_else(|| loops::lower(&call.nest, &operands, &results, *lanes)),
            ],
            Target::Gpu(gpu, precision) => {
                let warpgroups = gpu.has_warpgroups();
                let in_place = !overwritten.is_empty();
                gpu::lower(&call.nest, &operands, &results, in_place, *precision, warpgroups)
            }
        };
        let arguments: Vec<Operand> = operands.iter().chain(&results).cloned().collect();
        let values = call
            .operands
            .iter()
            .chain(&call.results)
            .copied()
            .collect::<Vec<ValueId>>();
        let flops = if call.nest.contraction().is_some() {
            2 * call.nest.points()
        } else {
            call.nest.points()
        };
        let mut micro_batches = vec![
            MicroBatchLaunches {
                launches: vec![],
                paddings: vec![],
            };
            call.micro_batches()
        ];
        // What adds parts finds them where the kernel before has left them.
        let bytes = texts.iter().filter_map(|text| text.scratch.as_ref());
        let scratch = bytes
            .map(Operand::bytes)
            .max()
            .map(|bytes| scratch.add(program, k, bytes));
        for (i, text) in texts.into_iter().enumerate() {
            // The first kernel does the work; one after it adds parts.
            let (label, flops) = match i {
                0 => (call.label.clone(), flops),
                _ => (format!("reduce partials of {}", call.label), 0),
            };
            let arguments = (&arguments[..], operands.len());
            let launch = self.launch(program, &label, text, arguments, (&values, scratch), flops);
            for (micro_batch, made) in micro_batches.iter_mut().enumerate() {
                made.launches.push(launch(buffers, micro_batch));
            }
        }
        for (id, result) in call.results.iter().zip(&results) {
            let padding = match &target {
                Target::Host(HostTarget { lanes, .. }) => padding::lower(result, *lanes),
                Target::Gpu(..) => {
                    assert!(
                        !result.layout.has_padding(),
                        "layouts for GPUs have no storage padding"
                    );
                    None
                }
            };
            if let Some(text) = padding {
                let label = format!("pad {}", program.value(*id).name);
                let arguments = (std::slice::from_ref(result), 0);
                let launch = self.launch(
                    program,
                    &label,
                    text,
                    arguments,
                    (std::slice::from_ref(id), None),
                    0,
                );
                for (micro_batch, made) in micro_batches.iter_mut().enumerate() {
                    made.paddings.push(launch(buffers, micro_batch));
                }
            }
        }
        micro_batches
    }

    /// Adds a kernel of these arguments, operands first; its launch on these values at each micro-batch, and on a buffer of scratch
    /// memory if it takes one.
    fn launch<'v>(
        &mut self,
        program: &Program,
        label: &'v str,
        text: KernelText,
        (arguments, operands): (&[Operand], usize),
        (values, scratch): (&'v [ValueId], Option<usize>),
        flops: u64,
    ) -> impl Fn(&Buffers, usize) -> Command + use<'v> {
        let device = program.value(values[0]).device.0;
        let target = self.target_of[device];
        let all = arguments.iter().chain(&text.scratch);
        let argument_bytes: Vec<u64> = all.map(Operand::bytes).collect();
        // The text of a kernel for GPUs does not say how large its arguments are.
        let key = (target, text.text.clone(), argument_bytes.clone());
        let kernel = *self.known.entry(key).or_insert_with(|| {
            let symbol = format!("k{}", self.kernels.len());
            self.texts
                .push(text.text.replace("@KERNEL", &format!("@{symbol}")));
            let bytes = argument_bytes.iter().sum();
            self.made_for.push(target);
            self.kernels.push(CompiledKernel {
                symbol,
                tasks: text.tasks,
                threads: text.threads,
                shared_bytes: text.shared_bytes,
                argument_bytes,
                operands,
                flops,
                bytes,
            });
            self.kernels.len() - 1
        });
        let scratch = scratch.filter(|_| text.scratch.is_some());
        move |buffers, micro_batch| {
            let arguments = values.iter().map(|&id| buffers.at(id, micro_batch));
            Command::kernel(label, device, kernel, arguments.chain(scratch).collect())
        }
    }

    /// Compiles the kernels for a target.
    fn build(&self, number: usize, assembly: bool) -> Result<Vec<bridge::MachineCode>, BridgeError> {
        let ours = (0..self.texts.len()).filter(|&i| self.made_for[i] == number);
        let ours: Vec<(&str, &str)> = ours
            .map(|i| (&self.kernels[i].symbol[..], &self.texts[i][..]))
            .collect();
        parallel::compile(&ours, &self.targets[number], assembly)
    }
}
