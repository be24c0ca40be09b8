//! What the kernels of the training step of 2012 AlexNet ask of a GPU's memory, as the emulator counts it.
//!
//! `make test` looks at a step of two images; `make test-slow` (`ALEXC_COUNTS_BATCH=128`) at the paper's own batch.

use alexc::compile::{Model, Request, compile};
use codegen::Target;
use codegen::bridge::GpuTarget;
use codegen::gpu::Precision;
use ir::plan::Mode;
use passes::{DeviceKind, OptLevel, Options};
use runtime::device::sim::counts::Counts;
use runtime::device::sim::predict::{H200, predict, tensor_operations};
use runtime::{DeviceSpec, Executor};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Global traffic allowed, relative to reading every operand and writing every result of the fused kernels once.
const TRAFFIC: f64 = 1.3;
/// Sectors allowed, relative to the fewest that warps' accesses could touch. Windows that begin between two sectors
/// touch one more of them.
const SECTORS: f64 = 1.15;

#[test]
fn kernels_move_little_more_than_they_must() {
    measure("sm_90", Precision::Tf32, "mma.tf32");
}

#[test]
fn kernels_of_warpgroups_move_little_more_than_they_must() {
    measure("sm_90a", Precision::Tf32, "wgmma.commit_group");
}

#[test]
fn kernels_that_round_on_the_way_move_little_more_than_they_must() {
    measure("sm_90a", Precision::Bf16, "wgmma.commit_group");
}

/// Compiles the step for an architecture, whose contractions have this instruction, and runs it once.
fn measure(architecture: &str, precision: Precision, product: &str) {
    let batch = std::env::var("ALEXC_COUNTS_BATCH").map_or(2, |n| n.parse().expect("a number of images"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/alexnet.ir");
    let model = Model::read(&path, false).unwrap();
    let gpu = GpuTarget::from_name(architecture).unwrap();
    let request = Request {
        modes: vec![Mode::Train],
        batch,
        recipe: Default::default(),
        dropout: true,
        opt_level: 2,
        targets: vec![Target::Gpu(gpu, precision)],
        splits: Default::default(),
        with_cases: false,
        emit: vec![],
    };
    let (artifact, _) = compile(&model, &request, &[]).unwrap();
    let program = &artifact.programs[0];
    let mut executor = Executor::new(program, &DeviceSpec::parse_list("sim").unwrap()).unwrap();
    executor.initialise(1).unwrap();
    runtime::bench::set_random_inputs(&mut executor).unwrap();
    executor.run().unwrap();
    let counts: &BTreeMap<String, Counts> = executor.counts().unwrap();

    // By what a kernel's first launch is called.
    let plan = &program.plan;
    let label = |symbol: &str| {
        let kernel = plan
            .kernels
            .iter()
            .position(|kernel| kernel.symbol == symbol)
            .unwrap();
        &plan
            .step
            .iter()
            .find(|launch| launch.kernel_position() == Some(kernel))
            .unwrap()
            .label
    };
    let (mut traffic, mut time, mut products) = (0, 0.0, 0);
    let rate = H200.peak(precision, H200.units) * 1e9;
    for (symbol, counts) in counts {
        let label = label(symbol);
        let bytes = counts.distinct_read_bytes + counts.distinct_written_bytes;
        traffic += bytes;
        let prediction = predict(counts, &H200);
        time += prediction.us * counts.launches as f64;
        let sectors = counts.sectors as f64 / counts.min_sectors.max(1) as f64;
        let (tf32, bf16) = tensor_operations(counts);
        let operations = tf32 + bf16;
        let reached = operations / rate / (prediction.us * 1e-6) / counts.launches as f64;
        println!(
            "{symbol:4} {:9.1} us by {:13} {:9.3} MB, sectors {sectors:5.2}, conflicts {:8}, tensor cores {:3.0} %  {label}",
            prediction.us,
            prediction.bound,
            bytes as f64 / 1e6,
            counts.conflicts,
            100.0 * reached
        );
        products += counts.executed(product);
        assert_eq!(counts.conflicts, 0, "{label}");
        match operations > 0.0 {
            true => assert!(counts.shared_cycles > 0, "{label}"),
            false => assert!(sectors <= SECTORS, "{label}: {sectors}"),
        }
    }
    let least = min_traffic(&model, batch);
    let ratio = traffic as f64 / least as f64;
    println!(
        "batch {batch} on {architecture} in {}: {:.1} MB moved, {ratio:.3} of the least; {:.2} ms predicted for {}",
        precision.name(),
        traffic as f64 / 1e6,
        time / 1e3,
        H200.name
    );
    assert!(products > 0, "no {product}");
    assert!(ratio <= TRAFFIC, "{ratio}");
}

/// Bytes of operands and results of every fused kernel, each once; without copies, and without partial sums.
fn min_traffic(model: &Model, batch: usize) -> u64 {
    let sgd = runtime::recipe::Recipe::default().sgd;
    let options = Options {
        mode: Mode::Train,
        batch,
        optimizer: passes::Optimizer {
            momentum: sgd.momentum,
            weight_decay: sgd.weight_decay,
            bias_lr_factor: sgd.bias_lr_factor,
            bias_weight_decay: 0.0,
            dropout: true,
        },
        opt_level: OptLevel::Search(passes::cost::shipped(DeviceKind::Gpu)),
        machine: DeviceKind::Gpu,
        ..Options::default()
    };
    let program = passes::compile(&model.graph, &options, &mut |_, _| {}).unwrap();
    let calls = program
        .kernels
        .iter()
        .filter(|call| !call.label.starts_with("copy "));
    let bytes = calls.map(|call| {
        let read: BTreeSet<_> = call.operands.iter().collect();
        let all = read.into_iter().chain(&call.results);
        all.map(|&id| codegen::operand(&program, id).bytes()).sum::<u64>()
    });
    bytes.sum()
}
