//! `alexc tune`: times the kernels that this machine would run, after each was verified against its reference.

use crate::compile::program_of;
use crate::{cases, costs, kernel_times};
use codegen::Target;
use ir::program::Program;
use passes::cost::times::{MeasuredTime, key};
use passes::cost::{Candidate, KernelTimes};
use runtime::console::Console;
use runtime::{DeviceSpec, Error, Executor};
use std::collections::BTreeMap;
use std::path::Path;

/// Runs of each program that are timed; medians count.
const ROUNDS: usize = 7;

/// What tuning did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TuneReport {
    /// The device, as times are kept under.
    pub device: String,
    /// Kernels that were verified and timed.
    pub kernels: usize,
    /// The file of times.
    pub file: String,
}

/// Verifies and times the kernels of programs on a device, and adds them to the file of times.
pub fn tune(
    programs: &[Program],
    target: &Target,
    device: &DeviceSpec,
    file: Option<&Path>,
) -> Result<TuneReport, Error> {
    let Some(name) = costs::device_name(device)? else {
        return Err(Error::input(format!(
            "{device} executes what a GPU would, and its time says nothing; tune where the GPU is, with --devices cuda:0"
        )));
    };
    let Some(path) = kernel_times::path(file) else {
        return Err(Error::input(
            "neither XDG_CACHE_HOME nor HOME is set; name the file of times with --kernel-times",
        ));
    };
    let times = measure(programs, target, device)?;
    let mut cache = kernel_times::read_or_warn(&path);
    cache.insert(&name, &times);
    cache.write(&path)?;
    Ok(TuneReport {
        device: name,
        kernels: times.all().len(),
        file: path.display().to_string(),
    })
}

/// The times of all kernels of programs. A kernel that is not as its reference is an error, and nothing is timed.
pub fn measure(programs: &[Program], target: &Target, device: &DeviceSpec) -> Result<KernelTimes, Error> {
    let precision = costs::precision(target);
    let mut samples: BTreeMap<String, (String, Vec<f64>)> = BTreeMap::new();
    let console = Console::stderr();
    for (i, program) in programs.iter().enumerate() {
        console.start("tuning", i as u64, programs.len() as u64);
        let compiled =
            codegen::compile(program, target, false).map_err(|error| Error::work(error.to_string()))?;
        let calls = compiled.calls.clone();
        let verified = cases::kernel_cases(program, &calls, target);
        let compiled = program_of(compiled, target, String::new());
        let mut executor = Executor::new(&compiled, std::slice::from_ref(device))?;
        verify(&mut executor, &verified)?;
        executor.initialise(0)?;
        runtime::bench::set_random_inputs(&mut executor)?;
        executor.run()?;
        let launches = executor.launch_times(ROUNDS)?;
        let first = compiled.plan.prepare.len();
        let step = program
            .kernels
            .iter()
            .zip(&calls)
            .filter(|(call, _)| !call.prepare);
        for (call, positions) in step {
            let own = positions
                .launches
                .iter()
                .map(|&position| &launches[position - first]);
            let own: Vec<&Vec<u64>> = own.collect();
            // A kernel and what adds its parts, round by round.
            let rounds =
                (0..ROUNDS).map(|round| own.iter().map(|times| times[round] as f64 / 1e3).sum::<f64>());
            let key = key(&Candidate::of(program, call), precision);
            let known = samples.entry(key).or_insert_with(|| (call.label.clone(), vec![]));
            known.1.extend(rounds);
        }
    }
    console.finish();
    let mut times = KernelTimes::default();
    for (key, (label, samples)) in samples {
        // Less than the clock can tell is still more than nothing.
        let us = median(samples).max(1e-3);
        times.insert(key, MeasuredTime { us, label });
    }
    Ok(times)
}

fn verify(executor: &mut Executor, cases: &runtime::kernel_check::KernelCases) -> Result<(), Error> {
    let comparisons = runtime::kernel_check::run(executor, cases, "tune")?;
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

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    (samples[(samples.len() - 1) / 2] + samples[samples.len() / 2]) / 2.0
}
