//! Measures what this machine can do at the most, with generated kernels: fused multiply-adds in registers, and a
//! streaming copy. Shares of a limit mean something only against a limit measured in the same run.

use codegen::bridge::{HostTarget, compile};
use ir::DType;
use ir::plan::{Buffer, Kernel, Launch, Mode, Place, Plan, Role};
use runtime::cli::OutputArgs;
use runtime::{Compiled, DeviceSpec, Error, Executor, HostObject};
use std::time::Instant;

/// The limits of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Fused multiply-adds on all cores, two operations each, in 10⁹ a second.
    pub gflops: f64,
    /// The same on core 0 alone.
    pub gflops_one_core: f64,
    /// Bytes read and written by a copy that fits no cache, on all cores, in 10⁹ a second.
    pub copy_gb_per_s: f64,
}

/// Tasks of each kernel; enough for any number of cores to share evenly.
const TASKS: usize = 64;
/// Iterations of the multiply-add kernel in one task.
const ITERATIONS: usize = 100_000;
/// Independent sums: more than latency times units of any processor, fewer than registers.
const SUMS: usize = 12;
/// Elements copied by one task.
const COPIED: usize = 1 << 20;
/// Runs of each kernel; the fastest counts.
const RUNS: usize = 7;

/// Measures this machine; takes about a second.
pub fn measure(target: &HostTarget) -> Result<Peak, Error> {
    let width = target.lanes;
    let arithmetic = (ITERATIONS * SUMS * width * 2 * TASKS) as f64;
    let flops = |device: &str| -> Result<f64, Error> {
        let seconds = time(&multiply_add_text(width), TASKS * width, target, device)?;
        Ok(arithmetic / seconds / 1e9)
    };
    let copied = TASKS * COPIED;
    let copy = time(&copy_text(width), copied, target, "cpu")?;
    Ok(Peak {
        gflops: flops("cpu")?,
        gflops_one_core: flops("cpu:0")?,
        copy_gb_per_s: 8.0 * copied as f64 / copy / 1e9,
    })
}

/// Measures this machine and prints what it is and can do.
pub fn report(output: OutputArgs) -> Result<(), Error> {
    let target = HostTarget::native();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let peak = measure(&target)?;
    let mut devices = vec![serde_json::json!({
        "name": "cpu", "cores": cores, "processor": target.cpu, "vector_lanes_f32": target.lanes,
        "peak_gflops": peak.gflops, "peak_gflops_one_core": peak.gflops_one_core,
        "copy_gb_per_s": peak.copy_gb_per_s,
    })];
    let mut lines = vec![format!(
        "cpu  {cores} cores, {}, {} f32 lanes: {:.0} GFLOP/s fused multiply-add ({:.0} on one core), {:.1} GB/s copy",
        target.cpu, target.lanes, peak.gflops, peak.gflops_one_core, peak.copy_gb_per_s
    )];
    match runtime::device::cuda::driver::all() {
        Ok(gpus) => {
            for gpu in gpus {
                let (major, minor) = gpu.capability;
                let name = format!("cuda:{}", gpu.number);
                let driver = runtime::device::cuda::driver::dotted(gpu.driver);
                lines.push(format!(
                    "{name}  {}, compute capability {major}.{minor}, {} multiprocessors, {} MiB, driver of CUDA {driver}; \
                     its limits: alexc peaks, then alexrun bench",
                    gpu.name,
                    gpu.processors,
                    gpu.memory >> 20
                ));
                devices.push(serde_json::json!({
                    "name": name, "processor": gpu.name, "compute_capability": format!("{major}.{minor}"),
                    "multiprocessors": gpu.processors, "memory_bytes": gpu.memory, "driver_cuda": driver,
                }));
            }
        }
        Err(why) => lines.push(format!("cuda  none: {why}")),
    }
    lines.push("sim  executes what a GPU would, on this processor".to_string());
    devices.push(serde_json::json!({ "name": "sim" }));
    output.print(&serde_json::json!({ "devices": devices }), || lines.join("\n"))
}

/// Each task multiplies and adds into registers, then stores their sum so that nothing is optimised away.
fn multiply_add_text(width: usize) -> String {
    let ty = format!("vector<{width}xf32>");
    let names = |prefix: &str| (0..SUMS).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>();
    let (types, next) = (vec![ty.clone(); SUMS].join(", "), names("n"));
    let arguments: Vec<String> = names("s").iter().map(|s| format!("{s} = %start")).collect();
    let steps: Vec<String> = next
        .iter()
        .zip(names("s"))
        .map(|(next, sum)| format!("      {next} = vector.fma {sum}, %factor, %start : {ty}\n"))
        .collect();
    let total: Vec<String> = (1..SUMS)
        .map(|i| {
            let before = if i == 1 {
                "%r#0".to_string()
            } else {
                format!("%t{}", i - 1)
            };
            format!("    %t{i} = arith.addf {before}, %r#{i} : {ty}\n")
        })
        .collect();
    let (n, elements, last) = (ITERATIONS, TASKS * width, SUMS - 1);
    format!(
        "func.func @k(%x: memref<{elements}xf32>, %y: memref<{elements}xf32>, %begin: index, %end: index) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %count = arith.constant {n} : index
  %width = arith.constant {width} : index
  scf.for %task = %begin to %end step %c1 {{
    %at = arith.muli %task, %width : index
    %start = vector.load %x[%at] : memref<{elements}xf32>, {ty}
    %factor = arith.constant dense<0.5> : {ty}
    %r:{SUMS} = scf.for %i = %c0 to %count step %c1 iter_args({}) -> ({types}) {{
{}      scf.yield {} : {types}
    }}
{}    vector.store %t{last}, %y[%at] : memref<{elements}xf32>, {ty}
  }}
  return
}}\n",
        arguments.join(", "),
        steps.concat(),
        next.join(", "),
        total.concat(),
    )
}

fn copy_text(width: usize) -> String {
    let (ty, elements) = (format!("vector<{width}xf32>"), TASKS * COPIED);
    format!(
        "func.func @k(%x: memref<{elements}xf32>, %y: memref<{elements}xf32>, %begin: index, %end: index) {{
  %chunk = arith.constant {COPIED} : index
  %width = arith.constant {width} : index
  %low = arith.muli %begin, %chunk : index
  %high = arith.muli %end, %chunk : index
  scf.for %i = %low to %high step %width {{
    %v = vector.load %x[%i] : memref<{elements}xf32>, {ty}
    vector.store %v, %y[%i] : memref<{elements}xf32>, {ty}
  }}
  return
}}\n"
    )
}

/// The fastest of several runs of kernel `@k` from x to y, both of `elements` elements, in seconds.
fn time(text: &str, elements: usize, target: &HostTarget, device: &str) -> Result<f64, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::work(error.to_string());
    let code = compile(text, &["k".to_string()], target, false).map_err(|e| failed(&e))?;
    let library = codegen::link::shared_object(&[&code.code]).map_err(|e| failed(&e))?;
    let bytes = 4 * elements as u64;
    let shape = vec![elements];
    let buffer = |name: &str, role| Buffer {
        name: name.to_string(),
        dtype: DType::F32,
        bytes,
        device: 0,
        role,
        place: Place::Own,
        part: None,
    };
    let plan = Plan {
        version: ir::plan::VERSION,
        model: "peak".into(),
        mode: Mode::Infer,
        batch: 1,
        devices: vec!["cpu".into()],
        arena_bytes: vec![0],
        buffers: vec![
            buffer("x", Role::Input { shape: shape.clone() }),
            buffer("y", Role::Output { shape }),
        ],
        kernels: vec![Kernel {
            symbol: "k".into(),
            tasks: TASKS as u64,
            threads: 0,
            shared_bytes: 0,
            argument_bytes: vec![bytes; 2],
            operands: 1,
            flops: 0,
            bytes: 2 * bytes,
        }],
        prepare: vec![],
        step: vec![Launch::kernel("peak", 0, 0, vec![0, 1])],
        flops: 0,
    };
    let program = Compiled {
        plan,
        graph: String::new(),
        precision: "f32".into(),
        predicted_ms: None,
        host: Some(HostObject {
            arch: runtime::device::cpu::HOST_ARCH.to_string(),
            features: target.required_features(),
            code: library,
        }),
        ptx: vec![],
    };
    let mut executor = Executor::new(&program, &DeviceSpec::parse_list(device)?)?;
    executor.set_f32("x", &vec![1.25; elements])?;
    executor.run()?;
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let begin = Instant::now();
        executor.run()?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    Ok(best)
}
