//! The one place that touches LLVM and MLIR: text of MLIR in, machine code out.
//!
//! Everything else in this crate writes MLIR text and needs neither library, so a change of binding ends here.

use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::Context as LlvmContext;
use inkwell::module::{Linkage, Module as LlvmModule};
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};
use inkwell::values::{BasicMetadataValueEnum, FunctionValue};
use melior::Context as MlirContext;
use melior::dialect::DialectRegistry;
use melior::pass::PassManager;
use melior::utility::{
    parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes,
};
use std::sync::{Arc, Mutex, Once};

/// The passes from the dialects that kernels are written in down to the LLVM dialect.
const TO_LLVM: &str = "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-vector-to-llvm,\
finalize-memref-to-llvm,convert-math-to-llvm,convert-arith-to-llvm,convert-index-to-llvm,\
convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},convert-cf-to-llvm,reconcile-unrealized-casts)";

/// A processor to generate code for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTarget {
    /// LLVM's name of the processor, as `znver4`.
    pub cpu: String,
    /// LLVM's feature string, as `+avx2,+fma`.
    pub features: String,
    /// f32 lanes of a vector register: 16 with AVX-512, 8 with AVX2.
    pub lanes: usize,
}

/// A kind of GPU to generate code for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuTarget {
    /// NVIDIA's name of the architecture, as `sm_90`.
    pub architecture: &'static str,
    /// LLVM's feature string: the version of PTX.
    features: &'static str,
}

/// The architectures, each with the first version of PTX that has all that kernels use.
const GPUS: [GpuTarget; 4] = [
    GpuTarget {
        architecture: "sm_80",
        features: "+ptx78",
    },
    GpuTarget {
        architecture: "sm_90",
        features: "+ptx80",
    },
    GpuTarget {
        architecture: "sm_90a",
        features: "+ptx80",
    },
    GpuTarget {
        architecture: "sm_100",
        features: "+ptx86",
    },
];

impl GpuTarget {
    /// The names of all architectures.
    pub fn names() -> Vec<&'static str> {
        GPUS.iter().map(|target| target.architecture).collect()
    }

    /// Whether its tensor cores multiply for four warps at once, from shared memory (`wgmma`).
    pub fn has_warpgroups(&self) -> bool {
        self.architecture == "sm_90a"
    }

    /// An architecture by its name.
    pub fn from_name(name: &str) -> Option<GpuTarget> {
        GPUS.iter().find(|target| target.architecture == name).cloned()
    }
}

/// Code for one target, in every form that `--emit` offers.
#[derive(Clone, Debug, Default)]
pub struct MachineCode {
    /// A relocatable ELF object, or PTX.
    pub code: Vec<u8>,
    /// LLVM IR after optimisation.
    pub llvm: String,
    /// Assembly text; only when asked for.
    pub assembly: Option<String>,
}

/// A failure inside LLVM or MLIR: a bug of ours, since the text was generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code generation failed while {doing}: {said}. This is a bug of alexc; please report the model file")]
pub struct BridgeError {
    /// The step that failed.
    pub doing: &'static str,
    /// What the library said.
    pub said: String,
}

fn failed(doing: &'static str, said: impl ToString) -> BridgeError {
    BridgeError {
        doing,
        said: said.to_string(),
    }
}

static REGISTER: Once = Once::new();

/// The version of LLVM, as `22.1.0`.
pub fn llvm_version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}

impl HostTarget {
    /// The processor this program runs on.
    pub fn native() -> HostTarget {
        let features = TargetMachine::get_host_cpu_features().to_string();
        let lanes = if features.contains("+avx512f") { 16 } else { 8 };
        HostTarget {
            cpu: TargetMachine::get_host_cpu_name().to_string(),
            features,
            lanes,
        }
    }

    /// Any x86-64 processor with AVX2 and FMA (2013 and later).
    pub fn avx2() -> HostTarget {
        HostTarget {
            cpu: "x86-64-v3".into(),
            features: "+avx2,+fma".into(),
            lanes: 8,
        }
    }

    /// Any x86-64 processor with the AVX-512 of servers since 2017.
    pub fn avx512() -> HostTarget {
        HostTarget {
            cpu: "x86-64-v4".into(),
            features: "+avx512f,+avx512bw,+avx512dq,+avx512vl,+fma".into(),
            lanes: 16,
        }
    }

    /// Processor features that the generated code needs, by the names of `/proc/cpuinfo`.
    pub fn required_features(&self) -> Vec<String> {
        let names: &[&str] = if self.lanes == 16 {
            &["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"]
        } else {
            &["avx2", "fma"]
        };
        names.iter().map(|name| name.to_string()).collect()
    }
}

/// The passes for kernels of GPUs, whose indices have 32 bits: arrays have fewer than 2³¹ elements.
const TO_NVVM: &str = "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-vector-to-llvm,\
convert-math-to-llvm,convert-arith-to-llvm{index-bitwidth=32},convert-index-to-llvm{index-bitwidth=32},\
convert-func-to-llvm{index-bitwidth=32},convert-cf-to-llvm{index-bitwidth=32},reconcile-unrealized-casts)";

/// LLVM's number of the calling convention of kernels, `ptx_kernel`.
const PTX_KERNEL: u32 = 71;

/// Compiles modules of MLIR text, one after the other. What only has to be set up once is kept between them.
pub struct Compiler {
    target: CompilerTarget,
    machine: TargetMachine,
    triple: TargetTriple,
    lowering: Lowering,
}

/// What a compiler generates code for.
enum CompilerTarget {
    Host,
    Gpu,
}

impl Compiler {
    /// A compiler for a processor.
    pub fn for_host(target: &HostTarget) -> Result<Compiler, BridgeError> {
        Target::initialize_x86(&InitializationConfig::default());
        let triple = TargetTriple::create("x86_64-unknown-linux-gnu");
        Ok(Compiler {
            target: CompilerTarget::Host,
            machine: target_machine(&triple, &target.cpu, &target.features, RelocMode::PIC)?,
            triple,
            lowering: Lowering::new(TO_LLVM),
        })
    }

    /// A compiler for a GPU.
    pub fn for_gpu(target: &GpuTarget) -> Result<Compiler, BridgeError> {
        Target::initialize_nvptx(&InitializationConfig::default());
        let triple = TargetTriple::create("nvptx64-nvidia-cuda");
        Ok(Compiler {
            target: CompilerTarget::Gpu,
            machine: target_machine(&triple, target.architecture, target.features, RelocMode::Default)?,
            triple,
            lowering: Lowering::new(TO_NVVM),
        })
    }

    /// Compiles a module of MLIR text whose public functions are the given kernels.
    ///
    /// For processors, each kernel `NAME` gets an entry `NAME(arguments: ptr, begin: i64, end: i64)` that loads its
    /// pointers from an array; the function written in MLIR becomes internal. For GPUs the kernels become entries of PTX.
    pub fn compile(
        &self,
        text: &str,
        kernels: &[String],
        assembly: bool,
    ) -> Result<MachineCode, BridgeError> {
        let context = LlvmContext::create();
        let module = self.lowering.to_llvm(text, &context)?;
        match self.target {
            CompilerTarget::Host => {
                for kernel in kernels {
                    add_entry(&context, &module, kernel)?;
                }
                self.finish_host(&module, assembly)
            }
            CompilerTarget::Gpu => {
                for kernel in kernels {
                    let function = module
                        .get_function(kernel)
                        .ok_or_else(|| failed("making an entry", format!("no function {kernel}")))?;
                    function.set_call_conventions(PTX_KERNEL);
                }
                self.finish_gpu(&module)
            }
        }
    }

    /// Optimises a module for a processor and emits it.
    fn finish_host(&self, module: &LlvmModule, assembly: bool) -> Result<MachineCode, BridgeError> {
        optimise(module, &self.triple, &self.machine)?;
        // Emitting code changes the module: text comes first, and assembly from a copy.
        let llvm = module.print_to_string().to_string();
        let assembly = match assembly {
            true => {
                let text = emit(&self.machine, &module.clone(), FileType::Assembly)?;
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            false => None,
        };
        Ok(MachineCode {
            code: emit(&self.machine, module, FileType::Object)?,
            llvm,
            assembly,
        })
    }

    /// Optimises a module for a GPU and emits it.
    fn finish_gpu(&self, module: &LlvmModule) -> Result<MachineCode, BridgeError> {
        optimise(module, &self.triple, &self.machine)?;
        let llvm = module.print_to_string().to_string();
        let text = emit(&self.machine, module, FileType::Assembly)?;
        Ok(MachineCode {
            assembly: Some(String::from_utf8_lossy(&text).into_owned()),
            code: text,
            llvm,
        })
    }
}

/// Lowers MLIR text by a pipeline of passes. Loading all dialects takes as long as a small kernel, so the context stays.
struct Lowering {
    context: MlirContext,
    passes: &'static str,
    messages: Arc<Mutex<String>>,
}

impl Lowering {
    fn new(passes: &'static str) -> Lowering {
        REGISTER.call_once(register_all_passes);
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        let context = MlirContext::new();
        context.append_dialect_registry(&registry);
        context.load_all_available_dialects();
        context.enable_multi_threading(false);
        register_all_llvm_translations(&context);
        let messages = Arc::new(Mutex::new(String::new()));
        let sink = messages.clone();
        context.attach_diagnostic_handler(move |diagnostic| {
            sink.lock()
                .expect("the diagnostics handler never panics")
                .push_str(&format!("{diagnostic}; "));
            true
        });
        Lowering {
            context,
            passes,
            messages,
        }
    }

    /// What MLIR said since the last module.
    fn said(&self) -> String {
        let mut messages = self
            .messages
            .lock()
            .expect("the diagnostics handler never panics");
        std::mem::take(&mut messages)
    }

    fn to_llvm<'c>(&self, text: &str, llvm: &'c LlvmContext) -> Result<LlvmModule<'c>, BridgeError> {
        // Parsing verifies what we wrote. Passes that keep MLIR valid are not verified one by one; the LLVM IR is, again.
        let mut module = melior::ir::Module::parse(&self.context, text)
            .ok_or_else(|| failed("reading MLIR", self.said()))?;
        let manager = PassManager::new(&self.context);
        manager.enable_verifier(false);
        parse_pass_pipeline(manager.as_operation_pass_manager(), self.passes)
            .map_err(|e| failed("setting up passes", e))?;
        manager
            .run(&mut module)
            .map_err(|e| failed("lowering MLIR", format!("{e} {}", self.said())))?;

        // SAFETY: the operation and the context are alive; both libraries share one LLVM, so the context handle is
        // the same type behind two bindings.
        let raw = unsafe {
            mlir_sys::mlirTranslateModuleToLLVMIR(module.as_operation().to_raw(), llvm.raw().cast())
        };
        if raw.is_null() {
            return Err(failed("translating to LLVM IR", self.said()));
        }
        // SAFETY: `raw` is a fresh module of the context `llvm`, owned by nobody else.
        Ok(unsafe { LlvmModule::new(raw.cast()) })
    }
}

/// Adds the entry of a kernel, which loads the kernel's pointers from an array.
fn add_entry<'c>(context: &'c LlvmContext, module: &LlvmModule<'c>, name: &str) -> Result<(), BridgeError> {
    let body = module
        .get_function(name)
        .ok_or_else(|| failed("adding an entry", format!("no function {name}")))?;
    body.as_global_value().set_name(&format!("{name}_body"));
    body.set_linkage(Linkage::Internal);
    let (pointer, long) = (context.ptr_type(Default::default()), context.i64_type());
    let ty = context
        .void_type()
        .fn_type(&[pointer.into(), long.into(), long.into()], false);
    let entry: FunctionValue = module.add_function(name, ty, None);
    let no_unwind = inkwell::attributes::Attribute::get_named_enum_kind_id("nounwind");
    entry.add_attribute(
        AttributeLoc::Function,
        context.create_enum_attribute(no_unwind, 0),
    );
    let builder = context.create_builder();
    builder.position_at_end(context.append_basic_block(entry, "entry"));
    let said = |e: inkwell::builder::BuilderError| failed("adding an entry", e);
    let array = entry
        .get_nth_param(0)
        .expect("an entry has three parameters")
        .into_pointer_value();
    let mut arguments: Vec<BasicMetadataValueEnum> = Vec::new();
    for i in 0..body.count_params() - 2 {
        let index = long.const_int(u64::from(i), false);
        // SAFETY: the caller passes as many pointers as the kernel has buffers (the plan is checked for it).
        let slot = unsafe { builder.build_gep(pointer, array, &[index], "slot") }.map_err(said)?;
        arguments.push(builder.build_load(pointer, slot, "buffer").map_err(said)?.into());
    }
    for i in [1, 2] {
        arguments.push(
            entry
                .get_nth_param(i)
                .expect("an entry has three parameters")
                .into(),
        );
    }
    builder.build_call(body, &arguments, "").map_err(said)?;
    builder.build_return(None).map_err(said)?;
    Ok(())
}

fn target_machine(
    triple: &TargetTriple,
    processor: &str,
    features: &str,
    relocation: RelocMode,
) -> Result<TargetMachine, BridgeError> {
    Target::from_triple(triple)
        .map_err(|e| failed("finding the target", e))?
        .create_target_machine(
            triple,
            processor,
            features,
            OptimizationLevel::Default,
            relocation,
            CodeModel::Default,
        )
        .ok_or_else(|| failed("finding the target", processor))
}

/// Optimises a module for a target, in place.
fn optimise(module: &LlvmModule, triple: &TargetTriple, machine: &TargetMachine) -> Result<(), BridgeError> {
    module.set_triple(triple);
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    module.verify().map_err(|e| failed("verifying LLVM IR", e))?;
    let options = PassBuilderOptions::create();
    // Kernels are already written in vectors of the register's width.
    options.set_loop_vectorization(false);
    options.set_loop_slp_vectorization(false);
    module
        .run_passes("default<O2>", machine, options)
        .map_err(|e| failed("optimising", e))
}

fn emit(machine: &TargetMachine, module: &LlvmModule, kind: FileType) -> Result<Vec<u8>, BridgeError> {
    let buffer = machine
        .write_to_memory_buffer(module, kind)
        .map_err(|e| failed("emitting code", e))?;
    Ok(buffer.as_slice().to_vec())
}
