//! Measures what this machine can do at the most, with generated kernels: fused multiply-adds in registers, and a
//! streaming copy. Shares of a limit mean something only against a limit measured in the same run.

use crate::costs::{Origin, UsualProfile};
use codegen::bridge::{Compiler, HostTarget};
use ir::DType;
use ir::plan::{Allocation, Buffer, Command, CompiledKernel, Mode, Plan, Role};
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
        let probe = Probe {
            text: multiply_add_text(width),
            elements: TASKS * width,
            tasks: TASKS,
            launches: 1,
        };
        Ok(arithmetic / probe.seconds(target, device)? / 1e9)
    };
    Ok(Peak {
        gflops: flops("cpu")?,
        gflops_one_core: flops("cpu:0")?,
        copy_gb_per_s: copy_gb_per_s(target, "cpu")?,
    })
}

/// Bytes read and written by a copy that fits no cache, in 10⁹ a second.
pub fn copy_gb_per_s(target: &HostTarget, device: &str) -> Result<f64, Error> {
    let probe = Probe {
        text: copy_text(target.lanes, TASKS, COPIED, 1),
        elements: TASKS * COPIED,
        tasks: TASKS,
        launches: 1,
    };
    Ok(8.0 * probe.elements as f64 / probe.seconds(target, device)? / 1e9)
}

/// Measures this machine and prints what it is and can do.
pub fn report(output: OutputArgs) -> Result<(), Error> {
    let target = HostTarget::native();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let peak = measure(&target)?;
    let usual = UsualProfile::of(&target);
    let (profile, file, origin) = match &usual.origin {
        Origin::Calibrated(file) => (
            "calibrated",
            Some(file),
            format!("calibrated, {}", file.display()),
        ),
        Origin::Shipped(class) => (
            class.name(),
            None,
            format!(
                "{}, which ships for its class; alexc devices --calibrate measures this machine",
                class.name()
            ),
        ),
    };
    let mut devices = vec![serde_json::json!({
        "name": "cpu", "profile": profile, "profile_file": file, "cores": cores, "processor": target.cpu, "vector_lanes_f32": target.lanes,
        "peak_gflops": peak.gflops, "peak_gflops_one_core": peak.gflops_one_core,
        "copy_gb_per_s": peak.copy_gb_per_s,
    })];
    let mut lines = vec![];
    lines.push(format!(
        "cpu  {cores} cores, {}, {} f32 lanes: {:.0} GFLOP/s fused multiply-add ({:.0} on one core), {:.1} GB/s copy",
        target.cpu, target.lanes, peak.gflops, peak.gflops_one_core, peak.copy_gb_per_s
    ));
    lines.push(format!("     profile for costs: {origin}"));
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

/// A copy: each of `tasks` tasks copies its own `copied` elements so many times.
pub(crate) fn copy_text(width: usize, tasks: usize, copied: usize, rounds: usize) -> String {
    let (ty, elements) = (format!("vector<{width}xf32>"), tasks * copied);
    format!(
        "func.func @k(%x: memref<{elements}xf32>, %y: memref<{elements}xf32>, %begin: index, %end: index) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %chunk = arith.constant {copied} : index
  %rounds = arith.constant {rounds} : index
  %width = arith.constant {width} : index
  scf.for %task = %begin to %end step %c1 {{
    %low = arith.muli %task, %chunk : index
    %high = arith.addi %low, %chunk : index
    scf.for %round = %c0 to %rounds step %c1 {{
      scf.for %i = %low to %high step %width {{
        %v = vector.load %x[%i] : memref<{elements}xf32>, {ty}
        vector.store %v, %y[%i] : memref<{elements}xf32>, {ty}
      }}
    }}
  }}
  return
}}\n"
    )
}

/// A kernel that does nothing.
pub(crate) fn nothing_text() -> String {
    "func.func @k(%x: memref<64xf32>, %y: memref<64xf32>, %begin: index, %end: index) {\n  return\n}\n"
        .to_string()
}

/// A kernel `@k` from x to y to be timed.
pub(crate) struct Probe {
    /// The kernel as MLIR.
    pub text: String,
    /// Elements of x and of y.
    pub elements: usize,
    /// Its tasks.
    pub tasks: usize,
    /// Times that one run launches it.
    pub launches: usize,
}

impl Probe {
    /// The fastest of several runs, in seconds a launch.
    pub fn seconds(&self, target: &HostTarget, device: &str) -> Result<f64, Error> {
        let program = self.program(target)?;
        let mut executor = Executor::new(&program, &DeviceSpec::parse_list(device)?)?;
        executor.set_f32("x", &vec![1.25; self.elements])?;
        executor.run()?;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let begin = Instant::now();
            executor.run()?;
            best = best.min(begin.elapsed().as_secs_f64());
        }
        Ok(best / self.launches as f64)
    }

    fn program(&self, target: &HostTarget) -> Result<Compiled, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::work(error.to_string());
        let code = Compiler::for_host(target)
            .and_then(|compiler| compiler.compile(&self.text, &["k".to_string()], false))
            .map_err(|e| failed(&e))?;
        let library = codegen::link::shared_object(&[&code.code]).map_err(|e| failed(&e))?;
        let bytes = 4 * self.elements as u64;
        let shape = vec![self.elements];
        let buffer = |name: &str, role| Buffer {
            name: name.to_string(),
            dtype: DType::F32,
            bytes,
            device: 0,
            role,
            allocation: Allocation::Dedicated,
            shard: None,
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
            kernels: vec![CompiledKernel {
                symbol: "k".into(),
                tasks: self.tasks as u64,
                threads: 0,
                shared_bytes: 0,
                argument_bytes: vec![bytes; 2],
                operands: 1,
                flops: 0,
                bytes: 2 * bytes,
            }],
            prepack: vec![],
            step: vec![Command::kernel("peak", 0, 0, vec![0, 1]); self.launches],
            flops: 0,
        };
        Ok(Compiled {
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
        })
    }
}
