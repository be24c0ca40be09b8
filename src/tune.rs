//! `alexc tune`: times the kernels that a model's program runs here, after each was verified against its reference.

use crate::compile::{Model, options, program_of};
use crate::model_args::{ModelArgs, colour};
use crate::{cases, costs, kernel_times};
use codegen::Target;
use ir::plan::Mode;
use ir::program::Program;
use passes::cost::times::{Key, MeasuredTime};
use passes::cost::{Candidate, KernelTimes};
use runtime::cli::OutputArgs;
use runtime::kernel_check::{self, KernelCases};
use runtime::{DeviceSpec, Error, Executor};
use std::collections::BTreeMap;

/// Runs of each program that are timed; medians count.
const ROUNDS: usize = 7;

/// Times the kernels of a model's program, and adds them to the file of times.
pub fn command(model: &ModelArgs, mode: Mode, output: OutputArgs) -> Result<(), Error> {
    let devices = model.devices.parse()?;
    let names: Vec<String> = devices.iter().map(timed_name).collect::<Result<_, _>>()?;
    let file = kernel_times::path(model.costs.kernel_times.as_deref()).ok_or_else(|| {
        Error::input("neither XDG_CACHE_HOME nor HOME is set; name the file of times with --kernel-times")
    })?;
    let request = model.request_for(mode)?;
    let graph = Model::read(&model.model, colour())?.graph;
    let profiles = model.costs.choose(&devices, &request.targets)?;
    let counted = costs::of_devices(&profiles, &request.targets);
    let options = options(&request, mode, &counted);
    let program =
        passes::compile(&graph, &options, &mut |_, _| {}).map_err(|error| Error::input(error.to_string()))?;
    let samples = measure(&program, &request.targets, &devices, &names)?;
    let mut cache = kernel_times::read_or_warn(&file);
    let mut lines = vec![];
    let mut tuned = vec![];
    for (name, samples) in samples {
        let times = medians(samples);
        let (kernels, path) = (times.all().len(), file.display());
        lines.push(format!(
            "{kernels} kernels verified and timed on {name}, kept in {path}"
        ));
        tuned.push(serde_json::json!({ "device": name, "kernels": kernels, "file": path.to_string() }));
        cache.insert(&name, &times);
    }
    cache.write(&file)?;
    output.print(&serde_json::json!({ "tuned": tuned }), || lines.join("\n"))
}

/// The name under which times of a device are kept.
fn timed_name(device: &DeviceSpec) -> Result<String, Error> {
    costs::device_name(device)?.ok_or_else(|| {
        Error::input(format!(
            "{device} executes what a GPU would, and its time says nothing; tune where the GPU is, with --devices cuda:0"
        ))
    })
}

/// By device and kernel: its label, and microseconds of every launch.
type Samples = BTreeMap<String, BTreeMap<Key, (String, Vec<f64>)>>;

/// Times all kernels of a program, one after the other, so that devices do not disturb each other. Where one is not as
/// its reference nothing is timed.
fn measure(
    program: &Program,
    targets: &[Target],
    devices: &[DeviceSpec],
    names: &[String],
) -> Result<Samples, Error> {
    let compiled =
        codegen::compile(program, targets, false).map_err(|error| Error::work(error.to_string()))?;
    let calls = compiled.calls.clone();
    let references = cases::kernel_cases(program, &calls, targets);
    let compiled = program_of(compiled, targets, String::new());
    let mut executor = Executor::new(&compiled, devices)?;
    verify(&mut executor, &references)?;
    executor.initialise(0)?;
    runtime::bench::set_random_inputs(&mut executor)?;
    executor.run()?;
    let launches = executor.launch_times(ROUNDS)?;
    let first = compiled.plan.prepack.len();
    let mut samples = Samples::new();
    let computes = |call: &_| !program.is_transfer(call);
    let step = program.kernels.iter().zip(&calls);
    for (call, micro_batches) in step.filter(|(call, _)| !call.prepack && computes(call)) {
        let device = program.device_of(call).0;
        let candidate = Candidate::of(program, call);
        let key = Key::of(&candidate, costs::precision(&targets[device]));
        let key = key.expect("values of a program have layouts");
        let known = samples.entry(names[device].clone()).or_default().entry(key);
        let (_, known) = known.or_insert_with(|| (call.label.clone(), vec![]));
        // A kernel and what adds its parts, round by round, at its first micro-batch.
        let us = |round: usize| {
            let own = micro_batches[0]
                .launches
                .iter()
                .map(|&position| launches[position - first][round]);
            own.map(|ns| ns as f64 / 1e3).sum::<f64>()
        };
        known.extend((0..ROUNDS).map(us));
    }
    Ok(samples)
}

fn verify(executor: &mut Executor, references: &KernelCases) -> Result<(), Error> {
    let comparisons = kernel_check::run(executor, references, "tune")?;
    let failed = comparisons.iter().filter(|comparison| !comparison.passed);
    let failed: Vec<String> = failed
        .map(|c| {
            format!(
                "{} is off by {:.1e}, expected at most {:.1e}",
                c.tensor, c.error, c.tolerance
            )
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::work(format!(
        "kernels are not as their references, and nothing was timed: {}. This is a fault of the compiler or of the \
         machine; please report it",
        failed.join("; ")
    )))
}

fn medians(samples: BTreeMap<Key, (String, Vec<f64>)>) -> KernelTimes {
    let mut times = KernelTimes::default();
    for (key, (label, mut samples)) in samples {
        samples.sort_by(f64::total_cmp);
        let median = (samples[(samples.len() - 1) / 2] + samples[samples.len() / 2]) / 2.0;
        // Less than the clock can tell is still more than nothing.
        let us = median.max(1e-3);
        times.insert(key, MeasuredTime { us, label });
    }
    times
}
