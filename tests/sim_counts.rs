//! What the kernels of the training step of 2012 AlexNet ask of a GPU's memory, as the emulator counts it.
//!
//! `make test` looks at a step of two images; `make test-slow` (`ALEXC_COUNTS_BATCH=128`) at the paper's own batch.

use alexc::compile::{Model, Request, compile};
use codegen::Target;
use codegen::bridge::GpuTarget;
use codegen::gpu::Precision;
use ir::plan::Mode;
use passes::{Machine, Options};
use runtime::device::sim::counts::Counts;
use runtime::device::sim::predict::{H200, predict};
use runtime::{DeviceSpec, Executor};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Global traffic allowed, relative to reading every operand and writing every result of the fused kernels once.
const TRAFFIC: f64 = 1.3;
/// Sectors allowed, relative to the fewest that warps' accesses could touch. Windows that begin between two sectors
/// touch one more of them.
const SECTORS: f64 = 1.15;
/// Kernels that rearrange elements, and therefore read or write with steps, with the reason for each. Together they move
/// a small share of the bytes, which the test holds too.
const REARRANGE: [(&str, &str); 4] = [
    ("copy ", "weights to channels last"),
    ("flat", "images, channels last, to rows as the text has them"),
    (
        "parts of conv",
        "gradients of weights, channels last, to the order of the weights",
    ),
    (".grad_weight", "the same, where no parts are added"),
];
const REARRANGED_SHARE: f64 = 0.1;

#[test]
fn kernels_move_little_more_than_they_must() {
    let batch = std::env::var("ALEXC_COUNTS_BATCH").map_or(2, |n| n.parse().expect("a number of images"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/alexnet.ir");
    let model = Model::read(&path, false).unwrap();
    let gpu = GpuTarget::from_name("sm_90").unwrap();
    let request = Request {
        modes: vec![Mode::Train],
        batch,
        recipe: Default::default(),
        dropout: true,
        opt_level: 2,
        target: Target::Gpu(gpu, Precision::Tf32),
        with_cases: false,
        costs: vec![],
        emit: vec![],
    };
    let (artifact, _) = compile(&model, &request).unwrap();
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
            .find(|launch| launch.kernel == kernel)
            .unwrap()
            .label
    };
    let (mut traffic, mut rearranged, mut time) = (0, 0, 0.0);
    for (symbol, counts) in counts {
        let label = label(symbol);
        let bytes = counts.distinct_read_bytes + counts.distinct_written_bytes;
        traffic += bytes;
        let prediction = predict(counts, &H200);
        time += prediction.us * counts.launches as f64;
        let sectors = counts.sectors as f64 / counts.least_sectors.max(1) as f64;
        println!(
            "{symbol:4} {:9.1} us by {:13} {:9.3} MB, sectors {sectors:5.2}, conflicts {:8}  {label}",
            prediction.us,
            prediction.bound,
            bytes as f64 / 1e6,
            counts.conflicts
        );
        let contracts = counts.executed("mma.tf32") > 0;
        if contracts {
            assert!(counts.shared_cycles > 0, "{label}");
            assert_eq!(counts.conflicts, 0, "{label}");
        }
        if REARRANGE.iter().any(|(part, _)| label.contains(part)) {
            rearranged += bytes;
        } else if !contracts {
            assert!(sectors <= SECTORS, "{label}: {sectors}");
        }
    }
    let least = least_traffic(&model, batch);
    let (ratio, share) = (traffic as f64 / least as f64, rearranged as f64 / traffic as f64);
    println!(
        "batch {batch}: {:.1} MB moved, {ratio:.3} of the least; {:.1} % by what rearranges; {:.2} ms predicted for {}",
        traffic as f64 / 1e6,
        100.0 * share,
        time / 1e3,
        H200.name
    );
    assert!(ratio <= TRAFFIC, "{ratio}");
    // Of two images the weights are most of the bytes, and conv weights a part of those.
    assert!(batch < 128 || share <= REARRANGED_SHARE, "{share}");
}

/// Bytes of operands and results of every fused kernel, each once; without copies, and without partial sums.
fn least_traffic(model: &Model, batch: usize) -> u64 {
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
        opt_level: 2,
        machine: Machine::Gpu,
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
