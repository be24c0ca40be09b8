//! Two devices compute what one does: losses, parameters and masks to a tolerance, twice the same bit for bit; and what
//! one pair of devices saved another goes on with.

mod program;

use alexc::compile::{Model, Request, compile};
use codegen::Target;
use codegen::bridge::{GpuTarget, HostTarget};
use codegen::gpu::Precision;
use ir::plan::{CommandKind, LABELS, LEARNING_RATE, LOSS, Mode, RANDOM_STATE};
use program::Place;
use runtime::{Compiled, DeviceSpec, Executor};
use std::path::Path;

/// Two sums of the same numbers in another order, through a network and a few steps of training: relative to the loss, and
/// to the largest element of a parameter.
const TOLERANCE: f64 = 1e-4;

/// Two cores, or the one there is twice.
fn pair() -> &'static str {
    match std::thread::available_parallelism().map_or(1, |n| n.get()) {
        1 => "cpu:0,cpu:0",
        _ => "cpu:0,cpu:1",
    }
}

fn compiled(mode: Mode, batch: usize, devices: &str) -> Compiled {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/alexnet-cifar.ir");
    let model = Model::read(&path, false).unwrap();
    let targets = devices.split(',').map(|device| match device {
        "sim" => Target::Gpu(GpuTarget::from_name("sm_90").unwrap(), Precision::F32),
        _ => Target::Host(HostTarget::native()),
    });
    let request = Request {
        modes: vec![mode],
        batch,
        recipe: Default::default(),
        dropout: true,
        opt_level: 2,
        targets: targets.collect(),
        splits: Default::default(),
        with_cases: false,
        emit: vec![],
    };
    let (mut artifact, _) = compile(&model, &request, &[]).unwrap();
    artifact.programs.remove(0)
}

/// The losses of some steps, and all parameters after them.
fn train(program: &Compiled, devices: &str, steps: usize) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let mut executor = Executor::new(program, &DeviceSpec::parse_list(devices).unwrap()).unwrap();
    executor.set_poison(true);
    executor.initialise(3).unwrap();
    let batch = program.plan.batch;
    let mut losses = vec![];
    for step in 0..steps {
        let image = |i: usize| ir::nest::uniform(7, step as i64, 0, i as u32) as f32 - 0.5;
        let images: Vec<f32> = (0..batch * 3 * 32 * 32).map(image).collect();
        let labels: Vec<i64> = (0..batch).map(|i| ((i * 7 + step) % 10) as i64).collect();
        executor.set_f32("image", &images).unwrap();
        executor.set_i64(LABELS, &labels).unwrap();
        executor.set_f32(LEARNING_RATE, &[0.01]).unwrap();
        executor.set_i64(RANDOM_STATE, &[5, step as i64]).unwrap();
        executor.run().unwrap();
        losses.push(executor.get_f32(LOSS).unwrap()[0]);
    }
    let names = executor.names(|role| matches!(role, ir::plan::Role::Parameter { .. }));
    let parameters = names.into_iter().map(|name| {
        let values = executor.get_f32(&name).unwrap();
        (name, values)
    });
    (losses, parameters.collect())
}

fn assert_trained_alike(devices: &str, batch: usize, steps: usize) {
    let one = train(&compiled(Mode::Train, batch, "cpu:0"), "cpu:0", steps);
    let program = compiled(Mode::Train, batch, devices);
    let moved = program
        .plan
        .step
        .iter()
        .filter(|launch| matches!(launch.work, CommandKind::Transfer { .. }));
    assert!(moved.count() > 0, "nothing is transferred");
    let two = train(&program, devices, steps);
    for (step, (one, two)) in one.0.iter().zip(&two.0).enumerate() {
        let error = f64::from((one - two).abs() / one.abs());
        assert!(
            error <= TOLERANCE,
            "{devices}, step {step}: the loss is {two} instead of {one}"
        );
    }
    for ((name, one), (other, two)) in one.1.iter().zip(&two.1) {
        assert_eq!(name, other);
        let largest = one.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let worst = one
            .iter()
            .zip(two)
            .fold(0.0f32, |worst, (a, b)| match (a - b).abs() {
                difference if difference.is_finite() => worst.max(difference),
                _ => f32::INFINITY,
            });
        assert!(
            f64::from(worst / largest) <= TOLERANCE,
            "{devices}: {name} differs by {worst} of {largest}"
        );
    }
    let again = train(&program, devices, steps);
    let bits = |losses: &[f32]| losses.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&two.0), bits(&again.0), "{devices}");
    for ((name, first), (_, second)) in two.1.iter().zip(&again.1) {
        assert_eq!(
            bits(first),
            bits(second),
            "{devices}: {name} differs between two runs"
        );
    }
}

#[test]
fn two_cores_train_as_one_does() {
    assert_trained_alike(pair(), 16, 5);
}

#[test]
fn a_core_and_the_emulator_train_as_one_core_does() {
    assert_trained_alike("cpu:0,sim", 4, 2);
}

#[test]
fn diagnosis_sees_all_devices() {
    let program = compiled(Mode::Train, 8, pair());
    let mut executor = Executor::new(&program, &DeviceSpec::parse_list(pair()).unwrap()).unwrap();
    executor.initialise(1).unwrap();
    runtime::bench::set_random_inputs(&mut executor).unwrap();
    let profile = executor.profile().unwrap();
    assert_eq!(profile.len(), program.plan.step.len());
    assert!(
        profile
            .iter()
            .any(|launch| launch.kernel == "transfer" && launch.bytes > 0)
    );
    assert!(
        [0, 1]
            .iter()
            .all(|device| profile.iter().any(|launch| launch.device == *device))
    );
    assert_eq!(executor.first_non_finite().unwrap(), None);
    // In the second half of the batch, so on the second device.
    let mut images = executor.get_f32("image").unwrap();
    let last = images.len() - 1;
    images[last] = f32::NAN;
    executor.set_f32("image", &images).unwrap();
    let found = executor.first_non_finite().unwrap().unwrap();
    assert_eq!((found.launch, &found.buffer[..]), (None, "image"));
    let at = executor.get_f32("image").unwrap().iter().position(|x| x.is_nan());
    assert_eq!(at, Some(last));
}

#[test]
fn what_two_devices_saved_one_goes_on_with_and_the_other_way_round() {
    let place = Place::with_images();
    let losses = |run: &str| -> Vec<f64> {
        let metrics = place.metrics(run);
        metrics.iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    place.succeeds("train tiny.ir --data data --steps 6 --out whole --devices cpu:0");
    for (run, first, then) in [("down", pair(), "cpu:0"), ("up", "cpu:0", pair())] {
        place.succeeds(&format!(
            "train tiny.ir --data data --steps 3 --out {run} --devices {first}"
        ));
        place.succeeds(&format!(
            "train tiny.ir --data data --steps 6 --out {run} --resume --devices {then}"
        ));
        let (whole, parts) = (losses("whole"), losses(run));
        assert_eq!(whole.len(), parts.len(), "{run}");
        for (one, two) in whole.iter().zip(&parts) {
            assert!(
                (one - two).abs() <= TOLERANCE * one.abs(),
                "{run}: {parts:?} instead of {whole:?}"
            );
        }
        place.succeeds(&format!(
            "eval tiny.ir --weights {run} --data data --batch 4 --devices {}",
            pair()
        ));
    }
}

#[test]
fn the_command_line_takes_two_devices_and_says_what_it_does_not_take() {
    let place = Place::new();
    let text = place.succeeds(&format!(
        "compile tiny.ir --mode train --batch 6 --emit optimized --devices {}",
        pair()
    ));
    let transfer =
        |line: &str| line.starts_with("# 1  transfer") && line.contains("@1") && line.contains("@0");
    assert!(text.lines().any(transfer), "{text}");
    let report = place.json(&format!(
        "bench tiny.ir --mode train --batch 6 --iters 2 --devices {} --json",
        pair()
    ));
    assert_eq!(report["devices"], pair());
    place.refused(
        "bench tiny.ir --devices cpu:0,cpu:9999",
        &["core 9999 is not among those"],
    );
    place.refused(
        "bench tiny.ir --devices cpu:0,cpu:0,sim",
        &["2 devices at the most"],
    );
    place.refused("bench tiny.ir --devices cpu:0,gpu", &["no such kind of device"]);
    place.succeeds(&format!(
        "compile tiny.ir --mode train --batch 6 --with-cases -o two.alx --devices {}",
        pair()
    ));
}
