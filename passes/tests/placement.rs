//! Where a search places the training step of 2012 on two GTX 580, against what is known from the literature.

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::Program;
use passes::cost::{Costs, makespan};
use passes::partition::search::{Measures, PlacementResult, search};
use passes::partition::{Strategy, partition};
use passes::solver::Limits;
use passes::{DeviceKind, Options, Snapshot, Splits, layout, memory};
use std::collections::BTreeSet;

const LIMITS: Limits = Limits {
    seconds: 100.0,
    gap: 2e-3,
};

/// The kernels of the training step of a model at batch 128, not placed.
fn training_step(model: &str) -> Program {
    let path = format!("{}/../models/{model}.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the model is there");
    let graph = ir::text::parse(&text, model).expect("the model parses");
    let options = Options {
        mode: Mode::Train,
        batch: 128,
        ..Options::default()
    };
    let mut scheduled = None;
    let mut observe = |pass: &str, stage: Snapshot| {
        if let ("schedule", Snapshot::Program(program)) = (pass, stage) {
            scheduled = Some(program.clone());
        }
    };
    passes::compile(&graph, &options, &mut observe).expect("the model compiles");
    scheduled.expect("programs are scheduled")
}

fn place(program: &Program, profile: &str, splits: Splits) -> PlacementResult {
    let profile = Profile::shipped(profile).expect("this profile ships");
    let costs = Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    };
    let begun = std::time::Instant::now();
    // The answer of the integer program: all schedules are equally good.
    let measures = Measures {
        bytes: &|_| vec![],
        seconds: &|_| 0.0,
    };
    let found = search(program, &[1, 1], &[costs; 2], splits, LIMITS, measures);
    println!(
        "{splits:?}: {:.1} ms, bound {:.1} ms, simulated {:.1} ms, {:.1} s",
        found.seconds * 1e3,
        found.bound * 1e3,
        simulated(program, &found.strategy, &[costs; 2]) * 1e3,
        begun.elapsed().as_secs_f64()
    );
    for (call, placement) in program.kernels.iter().zip(&found.strategy.kernels) {
        println!("  {}: {}", call.label, placement.describe(program, call));
    }
    assert_eq!(found.fallback, None);
    assert!(found.gap() <= 0.01, "{}", found.gap());
    found
}

/// Seconds of a placed step, the queues of the devices simulated.
fn simulated(program: &Program, strategy: &Strategy, costs: &[Costs]) -> f64 {
    let placed = partition(program, strategy).expect("strategies of the search can be placed");
    makespan(&placed, costs).us * 1e-6
}

/// Where the kernel that begins with a node runs.
fn place_of(program: &Program, found: &PlacementResult, node: &str) -> String {
    let k = program
        .kernels
        .iter()
        .position(|call| call.label.split('+').next() == Some(node));
    let k = k.unwrap_or_else(|| panic!("no kernel begins with {node}"));
    found.strategy.kernels[k].describe(program, &program.kernels[k])
}

/// That these convolutions are split along a dimension of what they make.
fn assert_split(
    program: &Program,
    found: &PlacementResult,
    dimension: usize,
    layers: std::ops::RangeInclusive<usize>,
) {
    for layer in layers {
        let place = place_of(program, found, &format!("conv{layer}"));
        let expected = format!("split along dimension {dimension} of ");
        assert!(place.starts_with(&expected), "conv{layer}: {place}");
    }
}

/// What Krizhevsky, Sutskever and Hinton did by hand: conv2, conv4 and conv5 read what their own device made; conv3 and the
/// fully connected layers read from both.
#[test]
fn without_the_batch_the_towers_of_2012_are_found() {
    let program = training_step("alexnet");
    let found = place(&program, "gtx580", Splits::WithoutBatch);
    assert_split(&program, &found, 1, 2..=5);
    let exchanged = exchanged(&program, &found);
    for inside in [
        "relu3",
        "relu4",
        "relu5",
        "relu4.grad",
        "relu5.grad",
        "conv4.weight.next",
        "conv5.weight.next",
    ] {
        assert!(
            !exchanged.contains(inside),
            "{inside} is exchanged: {exchanged:?}"
        );
    }
    let read = |value: &str| exchanged.contains(value);
    assert!(
        read("norm2") || read("pool2"),
        "conv3 reads from both devices: {exchanged:?}"
    );
    assert!(
        read("drop6") || read("relu6"),
        "fc7 reads from both devices: {exchanged:?}"
    );
}

/// Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014: the batch is split in convolutions,
/// whose weights are few, and neurons in fully connected layers, whose weights are many.
#[test]
fn with_the_batch_the_hybrid_of_2014_is_found() {
    let program = training_step("alexnet");
    let found = place(&program, "gtx580", Splits::All);
    assert_split(&program, &found, 0, 1..=5);
    let exchanged = exchanged(&program, &found);
    for weight in ["fc6.weight.next", "fc7.weight.next"] {
        assert!(
            !exchanged.contains(weight),
            "{weight} is exchanged: {exchanged:?}"
        );
    }
    for layer in ["fc6", "fc7"] {
        let place = place_of(&program, &found, layer);
        assert!(place.contains("split along dimension 1"), "{layer} is {place}");
    }
}

/// The nodes whose values cross between devices.
fn exchanged(program: &Program, found: &PlacementResult) -> BTreeSet<String> {
    let placed = partition(program, &found.strategy).expect("what is found can be placed");
    let transfers = placed.kernels.iter().filter(|call| placed.is_transfer(call));
    let names = transfers.map(|call| {
        placed
            .value(call.operands[0])
            .name
            .split('@')
            .next()
            .unwrap_or_default()
            .to_string()
    });
    names.collect()
}

/// What each device needs, if a placement is compiled.
fn needs(program: &Program, strategy: &Strategy) -> Vec<u64> {
    let placed = partition(program, strategy).expect("strategies of the search can be placed");
    let mut placed = layout::assign(&placed, &[DeviceKind::Cpu; 2]);
    memory::plan(&mut placed);
    memory::bytes_of_devices(&placed)
}

/// Local search shortens the simulated schedule of the integer program's answer and stays near the bound.
#[test]
fn near_the_bound_the_shorter_schedule_is_taken() {
    let program = training_step("alexnet-owt");
    let profile = Profile::shipped("h200").expect("this profile ships");
    let costs = Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    };
    let seconds = |strategy: &Strategy| simulated(&program, strategy, &[costs; 2]);
    let find = |seconds| {
        let measures = Measures {
            bytes: &|_| vec![],
            seconds,
        };
        search(&program, &[1, 1], &[costs; 2], Splits::All, LIMITS, measures)
    };
    let (balanced, settled) = (find(&|_| 0.0), find(&seconds));
    let (before, after) = (seconds(&balanced.strategy), seconds(&settled.strategy));
    println!("simulated {:.2} ms, then {:.2} ms", before * 1e3, after * 1e3);
    assert!(after < before, "{after} s after {before} s");
    let near = balanced.gap().max(2.0 * LIMITS.gap);
    assert!(settled.gap() <= near + 1e-9, "{}", settled.gap());
}

#[test]
fn devices_too_small_for_the_fastest_placement_get_one_that_fits() {
    let program = training_step("alexnet");
    let mut profile = Profile::shipped("gtx580").expect("this profile ships");
    // Near the best is near enough here.
    let limits = Limits {
        seconds: 100.0,
        gap: 0.05,
    };
    let find = |profile: &Profile| {
        let costs = Costs {
            profile,
            precision: Precision::F32,
            times: None,
        };
        let measures = Measures {
            bytes: &|strategy| needs(&program, strategy),
            seconds: &|_| 0.0,
        };
        search(
            &program,
            &[1, 1],
            &[costs; 2],
            Splits::WithoutBatch,
            limits,
            measures,
        )
    };
    let free = find(&profile);
    let most = *needs(&program, &free.strategy)
        .iter()
        .max()
        .expect("there are two devices");
    let capacity = 0.93 * most as f64;
    profile.memory.capacity_gb = capacity / 1e9;
    let found = find(&profile);
    let need = needs(&program, &found.strategy);
    println!("{most} bytes without a limit; {capacity} a device, {need:?} bytes");
    println!(
        "{:.1} ms without, {:.1} ms with",
        free.seconds * 1e3,
        found.seconds * 1e3
    );
    assert_eq!(found.fallback, None);
    assert!(
        need.iter().all(|&need| need as f64 <= capacity),
        "{need:?} of {capacity}"
    );
    assert!(found.seconds >= 0.999 * free.bound, "less room cannot be faster");

    // Nothing fits a tenth: that is said, and what was found is refused later, with figures.
    profile.memory.capacity_gb = 0.1 * most as f64 / 1e9;
    let reason = find(&profile).fallback.expect("nothing fits");
    assert!(reason.contains("memory of all devices"), "{reason}");
}
