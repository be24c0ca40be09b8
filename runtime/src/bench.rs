//! Timing of one program after warm-up, on random inputs. Zeros are avoided, because some processors multiply them faster and
//! a kernel could skip them.

use crate::artifact::{Compiled, mode_name};
use crate::device::DeviceSpec;
use crate::device::sim::counts::Counts;
use crate::device::sim::predict::{H200, Prediction, predict};
use crate::executor::{Executor, LaunchTime};
use crate::{Error, Tensor, weights};
use ir::DType;
use ir::plan::{Buffer, Init, LABELS, LEARNING_RATE, Plan, RANDOM_STATE, Role};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs before the clock starts.
const WARM_UP_RUNS: usize = 2;
/// The default length of a bench: at least this long, and at least [`MIN_ITERATIONS`].
const LONG_ENOUGH: Duration = Duration::from_secs(3);
const MIN_ITERATIONS: usize = 5;
const MAX_ITERATIONS: usize = 1000;

/// The result of a bench; the fields are the contract of the command line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// The model's name.
    pub model: String,
    /// `infer`, `train` or `gradients`.
    pub mode: String,
    /// Images per run.
    pub batch: usize,
    /// Where it ran.
    pub devices: String,
    /// The arithmetic of contractions.
    pub precision: String,
    /// Runs that were timed.
    pub iters: usize,
    /// Their median, in milliseconds.
    pub median_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// At the median.
    pub images_per_s: f64,
    /// The process's peak memory, in MiB.
    pub peak_rss_mb: f64,
    /// The time of compilation, if this process compiled; if `cached`, the time to read from the cache.
    pub compile_ms: Option<f64>,
    /// Whether the program came from the cache, if this process can compile.
    pub cached: Option<bool>,
    /// The time that the compiler predicted, if it did.
    pub predicted_ms: Option<f64>,
    /// Floating-point operations per run, counted on the model.
    pub flops_per_iter: u64,
    /// Every launch, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<Vec<LaunchTime>>,
    /// The counts of every kernel on the emulator, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<KernelCounts>>,
}

/// The counts of a kernel's launches on the emulator, and the predicted time on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelCounts {
    /// Its symbol.
    pub kernel: String,
    /// The names of the nodes that its first launch computes.
    pub label: String,
    /// The prediction for a launch on [`H200`].
    pub predicted: Prediction,
    /// All its launches together.
    pub counts: Counts,
}

/// The time that it took to get a program.
#[derive(Clone, Copy, Debug)]
pub struct CompileTime {
    /// Milliseconds.
    pub ms: f64,
    /// Whether it was read from the cache of compiled programs instead of compiled.
    pub cached: bool,
}

/// Options of a bench.
#[derive(Clone, Debug, Default)]
pub struct BenchOptions {
    /// Runs to time; `None` for as many as fit into a few seconds.
    pub iters: Option<usize>,
    /// The time of compilation, if this process compiled.
    pub compile: Option<CompileTime>,
    /// Whether to time every launch in one more run.
    pub launches: bool,
}

/// Times `program` on `devices`.
pub fn bench(
    program: &Compiled,
    devices: &[DeviceSpec],
    options: &BenchOptions,
) -> Result<BenchReport, Error> {
    if options.iters == Some(0) {
        return Err(Error::input("--iters 0: expected at least 1"));
    }
    let mut executor = Executor::new(program, devices)?;
    executor.initialise(0)?;
    set_random_inputs(&mut executor)?;
    for _ in 0..WARM_UP_RUNS {
        executor.run()?;
    }
    executor.wait()?;
    let mut times = Vec::new();
    let begin = Instant::now();
    let enough = |done: usize| match options.iters {
        Some(iters) => done >= iters,
        None => done >= MAX_ITERATIONS || (done >= MIN_ITERATIONS && begin.elapsed() >= LONG_ENOUGH),
    };
    while !enough(times.len()) {
        let start = Instant::now();
        executor.run()?;
        executor.wait()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let median_ms = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    let launches = options.launches.then(|| executor.profile()).transpose()?;
    let launches = launches.map(sum_micro_batches);
    let kernels = executor.counts().filter(|_| options.launches);
    let kernels = kernels.map(|counts| kernel_counts(&program.plan, counts));
    let plan = &program.plan;
    Ok(BenchReport {
        model: plan.model.clone(),
        mode: mode_name(plan.mode).to_string(),
        batch: plan.batch,
        devices: executor.devices(),
        precision: program.precision.clone(),
        iters: times.len(),
        median_ms: round(median_ms),
        min_ms: round(times[0]),
        images_per_s: round(plan.batch as f64 / (median_ms / 1e3).max(1e-9)),
        peak_rss_mb: peak_rss_mb()?,
        compile_ms: options.compile.map(|compile| round(compile.ms)),
        cached: options.compile.map(|compile| compile.cached),
        predicted_ms: program.predicted_ms.map(round),
        flops_per_iter: plan.flops,
        launches,
        kernels,
    })
}

/// A kernel that takes one micro-batch after the other is one line.
fn sum_micro_batches(launches: Vec<LaunchTime>) -> Vec<LaunchTime> {
    let mut sums: Vec<LaunchTime> = vec![];
    for launch in launches {
        let is_same = |sum: &&mut LaunchTime| {
            (&sum.label, &sum.kernel, sum.device) == (&launch.label, &launch.kernel, launch.device)
        };
        match sums.iter_mut().find(is_same) {
            Some(sum) => {
                sum.ns += launch.ns;
                sum.flops += launch.flops;
                sum.bytes += launch.bytes;
                sum.turns += launch.turns;
            }
            None => sums.push(launch),
        }
    }
    sums
}

fn kernel_counts(plan: &Plan, counts: &BTreeMap<String, Counts>) -> Vec<KernelCounts> {
    let kernels = plan.kernels.iter().enumerate();
    let counted = kernels.filter_map(|(i, kernel)| {
        let counts = counts.get(&kernel.symbol)?;
        let launch = plan
            .prepack
            .iter()
            .chain(&plan.step)
            .find(|launch| launch.kernel_position() == Some(i))?;
        Some(KernelCounts {
            kernel: kernel.symbol.clone(),
            label: launch.label.clone(),
            predicted: predict(counts, &H200),
            counts: counts.clone(),
        })
    });
    counted.collect()
}

impl std::fmt::Display for BenchReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let BenchReport {
            model,
            mode,
            batch,
            devices,
            precision,
            iters,
            ..
        } = self;
        writeln!(
            f,
            "{model}, {mode}, batch {batch}, {devices}, {precision}: {iters} runs"
        )?;
        let gflops = self.flops_per_iter as f64 / (self.median_ms * 1e6).max(1e-9);
        let predicted = match self.predicted_ms {
            Some(ms) => format!(" (predicted {ms})"),
            None => String::new(),
        };
        writeln!(
            f,
            "median {} ms{predicted}, least {} ms, {} images/s, {gflops:.1} GFLOP/s, peak memory {} MiB",
            self.median_ms, self.min_ms, self.images_per_s, self.peak_rss_mb
        )?;
        for launch in self.launches.iter().flatten() {
            let ms = launch.ns as f64 / 1e6;
            let (gflops, gbytes) = (
                launch.flops as f64 / launch.ns as f64,
                launch.bytes as f64 / launch.ns as f64,
            );
            // Of several devices, the number of the one that did it.
            let device = match devices.contains(',') {
                true => format!("  {}", launch.device),
                false => String::new(),
            };
            let turns = match launch.turns {
                1 => String::new(),
                turns => format!(" in {turns} turns"),
            };
            writeln!(
                f,
                "{ms:10.3} ms {gflops:8.1} GFLOP/s {gbytes:7.1} GB/s{device}  {}{turns}",
                launch.label
            )?;
        }
        if self.kernels.is_some() {
            writeln!(f, "{} would take, by what the emulator counted:", H200.name)?;
        }
        for kernel in self.kernels.iter().flatten() {
            let KernelCounts {
                predicted, counts, ..
            } = kernel;
            let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
            writeln!(
                f,
                "{:10.1} us a launch, bound by {:13} {:5.1} % of sectors needed, {:4.1} % bank conflicts  {}",
                predicted.us,
                predicted.bound,
                share(counts.min_sectors, counts.sectors),
                share(counts.conflicts, counts.shared_cycles),
                kernel.label
            )?;
        }
        Ok(())
    }
}

/// Fills every input: images from N(0, 1), random labels, a small learning rate, a seed.
pub fn set_random_inputs(executor: &mut Executor) -> Result<(), Error> {
    let classes = classes(executor.plan());
    let inputs: Vec<Buffer> = executor.plan().interface().cloned().collect();
    for buffer in inputs {
        let Role::Input { shape } = buffer.role else {
            continue;
        };
        let name = buffer.name;
        let tensor = match (name.as_str(), buffer.dtype) {
            (LEARNING_RATE, _) => Tensor::f32(shape, vec![0.001])?,
            (RANDOM_STATE, _) => Tensor::i64(shape, vec![1, 1])?,
            (_, DType::F32) => {
                weights::initial(&[(name.clone(), shape, Init::Normal(1.0))], 1)?
                    .remove(0)
                    .1
            }
            (_, dtype) => {
                let count: usize = shape.iter().product();
                let most = if name == LABELS { classes } else { 2 };
                let values = (0..count as u64).map(|i| (weights::mix(7, i) % most) as i64);
                match dtype {
                    DType::U8 => Tensor::new(shape, crate::Data::U8(values.map(|v| v as u8).collect()))?,
                    _ => Tensor::i64(shape, values.collect())?,
                }
            }
        };
        executor.set(&name, &tensor)?;
    }
    Ok(())
}

/// The number of classes: the last extent of an output with one row per sample. Labels are drawn below it.
fn classes(plan: &Plan) -> u64 {
    let rows = plan.buffers.iter().filter_map(|b| match &b.role {
        Role::Output { shape } if shape.len() == 2 && shape[0] == plan.batch => Some(shape[1] as u64),
        _ => None,
    });
    rows.max().unwrap_or(1).max(1)
}

/// Peak memory of this process, in MiB.
pub fn peak_rss_mb() -> Result<f64, Error> {
    let path = std::path::Path::new("/proc/self/status");
    let status = std::fs::read_to_string(path).map_err(|error| Error::reading(path, &error))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()
    });
    let kib: f64 = kib.ok_or_else(|| Error::work("/proc/self/status names no VmHWM"))?;
    Ok((kib / 102.4).round() / 10.0)
}

/// Rounds milliseconds to three decimals.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
