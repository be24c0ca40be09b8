//! Placed graph to kernels: nests become MLIR text, MLIR becomes LLVM IR, LLVM IR becomes machine code.
//!
//! | module | what it does |
//! |---|---|
//! | [`contraction`] | register-tiled kernels of convolutions and matrix products |
//! | [`transform`] | sums with small tables of constants, unrolled: the transforms of fast convolutions |
//! | [`loops`] | kernels of every other nest: maps, windows, rows |
//! | [`halo`] | zeros around values that padded convolutions read |
//! | [`gpu`] | the same nests for GPUs |
//! | [`emit`], [`scalar`] | reads, stores and arithmetic on vectors of points |
//! | [`access`], [`kernel`] | a nest resolved against layouts; tasks and arguments |
//! | [`mlir`] | the writer of MLIR text |
//! | [`bridge`] | the one module that knows MLIR and LLVM |
//! | [`link`] | object to shared object |
//!
//! A target is a set of lowerings, as [`gpu`] is one beside [`contraction`] and [`loops`], and a way out of
//! [`bridge`]; the nests, their resolution and the arithmetic stay.

pub mod access;
pub mod bridge;
pub mod contraction;
pub mod emit;
pub mod gpu;
pub mod halo;
pub mod kernel;
pub mod link;
pub mod loops;
pub mod mlir;
pub mod scalar;
pub mod transform;

use access::Operand;
use bridge::{BridgeError, GpuTarget, HostTarget};
use gpu::Precision;
use ir::plan::{Buffer, Kernel, Launch, Place, Plan, Role};
use ir::program::{KernelCall, Program, ValueId};
use kernel::KernelText;
use std::collections::HashMap;

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

/// A program compiled for one target.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the runtime executes.
    pub plan: Plan,
    /// The kernels.
    pub code: Code,
    /// The kernels as MLIR text.
    pub mlir: String,
    /// LLVM IR after optimisation.
    pub llvm: String,
    /// Assembly, if it was asked for.
    pub assembly: Option<String>,
    /// How each kernel of the program is launched, in the program's order.
    pub calls: Vec<CallLaunches>,
}

/// The launches of one kernel of a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallLaunches {
    /// Positions among the plan's launches, those of `prepare` first: the kernel, and what adds its parts.
    pub launches: Vec<usize>,
    /// The launches that write zeros around its results.
    pub halos: Vec<usize>,
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

/// Compiles a program; `assembly` asks for assembly text too (of a GPU that is its PTX).
pub fn compile(program: &Program, target: &Target, assembly: bool) -> Result<Compiled, CompileError> {
    let mut library = Library::default();
    let mut plan = Plan {
        version: ir::plan::VERSION,
        model: program.model.clone(),
        mode: program.mode,
        batch: program.batch,
        devices: vec![target.code().to_string()],
        arena_bytes: vec![program.arena_bytes],
        buffers: buffers(program),
        kernels: vec![],
        prepare: vec![],
        step: vec![],
        flops: program.flops,
    };
    let mut calls = vec![];
    for call in &program.kernels {
        let (launches, halos) = library.add_call(program, call, target);
        let list = if call.prepare {
            &mut plan.prepare
        } else {
            &mut plan.step
        };
        let first = list.len();
        calls.push(CallLaunches {
            launches: (first..first + launches.len()).collect(),
            halos: (first + launches.len()..first + launches.len() + halos.len()).collect(),
        });
        list.extend(launches.into_iter().chain(halos));
    }
    // Steps come after everything that prepares.
    for (call, positions) in program.kernels.iter().zip(&mut calls) {
        let after = if call.prepare { 0 } else { plan.prepare.len() };
        let all = positions.launches.iter_mut().chain(&mut positions.halos);
        all.for_each(|position| *position += after);
    }
    library.add_scratch(&mut plan);
    let parts = library.build(target, assembly)?;
    plan.kernels = library.kernels;
    let code = match target {
        Target::Host(_) => {
            let objects: Vec<&[u8]> = parts.iter().map(|part| &part.code[..]).collect();
            Code::Object(link::shared_object(&objects)?)
        }
        Target::Gpu(..) => Code::Ptx(link::ptx_module(parts.iter().map(|part| &part.code[..]))),
    };
    Ok(Compiled {
        code,
        mlir: library.texts.concat(),
        llvm: parts.iter().map(|part| &part.llvm[..]).collect(),
        assembly: parts.iter().map(|part| part.assembly.clone()).collect(),
        calls,
        plan,
    })
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

/// One buffer a value that is not an alias.
fn buffers(program: &Program) -> Vec<Buffer> {
    let owners = (0..program.values.len())
        .map(ValueId)
        .filter(|&id| program.owner(id) == id);
    owners
        .map(|id| {
            let value = program.value(id);
            Buffer {
                name: value.name.clone(),
                dtype: value.dtype,
                bytes: operand(program, id).bytes(),
                device: 0,
                role: value.role.clone(),
                place: value.place,
            }
        })
        .collect()
}

/// The kernels of a program; equal ones are compiled once.
#[derive(Default)]
struct Library {
    kernels: Vec<Kernel>,
    texts: Vec<String>,
    /// Bytes of the scratch memory that kernels share, one after the other.
    scratch_bytes: u64,
    known: HashMap<(String, Vec<u64>), usize>,
}

impl Library {
    /// Adds a kernel; gives its launches, and those that write zeros around its results.
    fn add_call(
        &mut self,
        program: &Program,
        call: &KernelCall,
        target: &Target,
    ) -> (Vec<Launch>, Vec<Launch>) {
        let operands: Vec<Operand> = call.operands.iter().map(|&id| operand(program, id)).collect();
        let results: Vec<Operand> = call.results.iter().map(|&id| operand(program, id)).collect();
        let owners: Vec<ValueId> = call.operands.iter().map(|&id| program.owner(id)).collect();
        let in_place = call.results.iter().any(|&id| owners.contains(&program.owner(id)));
        let texts = match target {
            Target::Host(HostTarget { lanes, .. }) => vec![
                contraction::lower(&call.nest, &operands, &results, in_place, *lanes)
                    .or_else(|| transform::lower(&call.nest, &operands, &results, *lanes))
                    .unwrap_or_else(|| loops::lower(&call.nest, &operands, &results, *lanes)),
            ],
            Target::Gpu(_, precision) => gpu::lower(&call.nest, &operands, &results, in_place, *precision),
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
        let mut launches = vec![];
        for (i, text) in texts.into_iter().enumerate() {
            // The first kernel does the work; one after it adds parts.
            let (label, flops) = match i {
                0 => (call.label.clone(), flops),
                _ => (format!("parts of {}", call.label), 0),
            };
            launches.push(self.launch(program, &label, text, &arguments, &values, flops));
        }
        let mut halos = vec![];
        for (&id, result) in call.results.iter().zip(&results) {
            let halo = match target {
                Target::Host(HostTarget { lanes, .. }) => halo::lower(result, *lanes),
                Target::Gpu(..) => {
                    assert!(!result.layout.has_halo(), "layouts for GPUs have no halos");
                    None
                }
            };
            if let Some(text) = halo {
                let label = format!("halo of {}", program.value(id).name);
                halos.push(self.launch(program, &label, text, std::slice::from_ref(result), &[id], 0));
            }
        }
        (launches, halos)
    }

    fn launch(
        &mut self,
        program: &Program,
        label: &str,
        text: KernelText,
        arguments: &[Operand],
        values: &[ValueId],
        flops: u64,
    ) -> Launch {
        let scratch = text.scratch.as_ref().map(Operand::bytes);
        self.scratch_bytes = self.scratch_bytes.max(scratch.unwrap_or(0));
        let argument_bytes: Vec<u64> = arguments.iter().map(Operand::bytes).chain(scratch).collect();
        // The text of a kernel for GPUs does not say how large its arguments are.
        let key = (text.text.clone(), argument_bytes.clone());
        let kernel = *self.known.entry(key).or_insert_with(|| {
            let symbol = format!("k{}", self.kernels.len());
            self.texts
                .push(text.text.replace("@KERNEL", &format!("@{symbol}")));
            let bytes = argument_bytes.iter().sum();
            self.kernels.push(Kernel {
                symbol,
                tasks: text.tasks,
                threads: text.threads,
                shared_bytes: text.shared_bytes,
                argument_bytes,
                flops,
                bytes,
            });
            self.kernels.len() - 1
        });
        let arguments = values
            .iter()
            .map(|&id| buffer_of(program, id))
            .chain(scratch.map(|_| scratch_buffer(program)))
            .collect();
        Launch {
            label: label.to_string(),
            kernel,
            device: 0,
            arguments,
        }
    }

    /// Adds the scratch memory to the plan, if a kernel needs it: at the arena's end.
    fn add_scratch(&self, plan: &mut Plan) {
        if self.scratch_bytes > 0 {
            let end = plan.arena_bytes[0].next_multiple_of(64);
            plan.buffers.push(Buffer {
                name: "scratch".to_string(),
                dtype: ir::DType::F32,
                bytes: self.scratch_bytes,
                device: 0,
                role: Role::Temporary,
                place: Place::Arena(end),
            });
            plan.arena_bytes[0] = end + self.scratch_bytes;
        }
    }

    /// Compiles the kernels, on as many threads as there are cores.
    fn build(&self, target: &Target, assembly: bool) -> Result<Vec<bridge::MachineCode>, BridgeError> {
        let threads = std::thread::available_parallelism()
            .map_or(1, |n| n.get())
            .min(self.texts.len())
            .max(1);
        let parts: Vec<Vec<usize>> = (0..threads)
            .map(|t| (t..self.texts.len()).step_by(threads).collect())
            .collect();
        std::thread::scope(|scope| {
            let workers: Vec<_> = parts
                .iter()
                .map(|part| {
                    scope.spawn(move || {
                        let text: String = part.iter().map(|&i| &self.texts[i][..]).collect();
                        let symbols: Vec<String> =
                            part.iter().map(|&i| self.kernels[i].symbol.clone()).collect();
                        match target {
                            Target::Host(target) => bridge::compile(&text, &symbols, target, assembly),
                            Target::Gpu(target, _) => bridge::compile_ptx(&text, &symbols, target),
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|w| w.join().expect("code generation does not panic"))
                .collect()
        })
    }
}

/// The buffer of scratch memory: it comes after those of values.
fn scratch_buffer(program: &Program) -> usize {
    let values = (0..program.values.len()).map(ValueId);
    values.filter(|&id| program.owner(id) == id).count()
}

/// The buffer of a value in the plan: its position among the values that are not aliases.
pub fn buffer_of(program: &Program, id: ValueId) -> usize {
    let owner = program.owner(id);
    (0..owner.0)
        .filter(|&i| program.owner(ValueId(i)) == ValueId(i))
        .count()
}
