//! An artifact whose kernels measure what a GPU can do at the most: a copy, multiply-adds, tensor cores.
//!
//! Where it runs there is no compiler: `alexrun bench peaks.alx --launches` prints each launch's rates, against which the
//! kernels of models are measured (`tests/gpu/run.sh`).

use codegen::access::Operand;
use codegen::bridge::{Compiler, GpuTarget};
use codegen::gpu::{self, Precision, peak};
use codegen::kernel::KernelText;
use ir::DType;
use ir::layout::Layout;
use ir::nest::Nest;
use ir::plan::{Allocation, Buffer, Command, CompiledKernel, Mode, Plan, Role};
use runtime::{Artifact, Compiled, Error, Ptx};

/// Elements that are copied: more than any cache holds.
const COPIED: usize = 1 << 27;

/// The artifact for an architecture; a small one does little, so that it can be tried on the emulator.
pub fn artifact(target: &GpuTarget, small: bool) -> Result<Artifact, Error> {
    let (copied, rounds) = if small {
        (1 << 16, 2)
    } else {
        (COPIED, peak::ROUNDS)
    };
    let operand = |elements: usize| Operand {
        dtype: DType::F32,
        extents: vec![elements],
        layout: Layout::row_major(1),
    };
    let buffer = |name: &str, elements: usize, role: fn(Vec<usize>) -> Role| Buffer {
        name: name.to_string(),
        dtype: DType::F32,
        bytes: 4 * elements as u64,
        device: 0,
        role: role(vec![elements]),
        allocation: Allocation::Dedicated,
        shard: None,
    };
    let output = |shape| Role::Output { shape };
    let input = |shape| Role::Input { shape };
    let sums = operand(peak::elements());
    let copy = gpu::lower(
        &Nest::copy(DType::F32, &[copied]),
        &[operand(copied)],
        &[operand(copied)],
        false,
        Precision::F32,
        false,
    );
    let mut kernels: Vec<(&str, KernelText, Vec<usize>, u64)> = copy
        .into_iter()
        .map(|text| ("copy", text, vec![0, 1], 0))
        .collect();
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let (text, flops) = peak::kernel(&sums, precision, target.has_warpgroups(), rounds);
        kernels.push((precision.name(), text, vec![2], flops));
    }
    let mut plan = Plan {
        version: ir::plan::VERSION,
        model: "peaks".to_string(),
        mode: Mode::Infer,
        batch: 1,
        devices: vec![ir::plan::PTX.to_string()],
        arena_bytes: vec![0],
        buffers: vec![
            buffer("x", copied, input),
            buffer("y", copied, output),
            buffer("sums", peak::elements(), output),
        ],
        kernels: vec![],
        prepack: vec![],
        step: vec![],
        flops: 0,
    };
    let mut text = String::new();
    let mut symbols = vec![];
    for (i, (label, kernel, arguments, flops)) in kernels.into_iter().enumerate() {
        let symbol = format!("k{i}");
        text += &kernel.text.replace("@KERNEL", &format!("@{symbol}"));
        let argument_bytes: Vec<u64> = arguments
            .iter()
            .map(|&buffer| plan.buffers[buffer].bytes)
            .collect();
        plan.kernels.push(CompiledKernel {
            symbol: symbol.clone(),
            tasks: kernel.tasks,
            threads: kernel.threads,
            shared_bytes: kernel.shared_bytes,
            bytes: argument_bytes.iter().sum(),
            argument_bytes,
            operands: 0,
            flops,
        });
        plan.step.push(Command::kernel(label, 0, i, arguments));
        symbols.push(symbol);
    }
    let code = Compiler::for_gpu(target)
        .and_then(|compiler| compiler.compile(&text, &symbols, false))
        .map_err(|error| Error::work(error.to_string()))?;
    Ok(Artifact {
        name: "peaks".to_string(),
        model: "# kernels that measure a GPU\n".to_string(),
        recipe: None,
        programs: vec![Compiled {
            plan,
            graph: String::new(),
            precision: "f32".to_string(),
            predicted_ms: None,
            host: None,
            ptx: vec![Ptx {
                target: target.architecture.to_string(),
                text: String::from_utf8_lossy(&code.code).into_owned(),
            }],
        }],
        cases: vec![],
    })
}
