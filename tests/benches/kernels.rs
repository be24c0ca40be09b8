//! Single kernels of AlexNet, and the share of the machine's measured limit that each reaches.
//!
//! A case is a small model; what is timed is the launch whose label begins with `y`. The limit is the larger of
//! operations over the measured multiply-add rate and bytes over the measured copy bandwidth.

use alexc::compile::{Model, Request, compile};
use alexc::peak::{self, Peak};
use codegen::bridge::HostTarget;
use criterion::{Criterion, criterion_group, criterion_main};
use ir::plan::Mode;
use runtime::recipe::Recipe;
use runtime::{DeviceSpec, Executor};
use std::time::Duration;

/// Name, batch, model.
const CASES: [(&str, usize, &str); 9] = [
    (
        "conv1-owt",
        16,
        "x = input() shape=[N, 3, 224, 224]\nw = parameter() shape=[64, 3, 11, 11]\ny = conv2d(x, w) stride=4 pad=2",
    ),
    (
        "conv2-owt",
        16,
        "x = input() shape=[N, 64, 27, 27]\nw = parameter() shape=[192, 64, 5, 5]\ny = conv2d(x, w) pad=2",
    ),
    (
        "conv3-owt",
        16,
        "x = input() shape=[N, 192, 13, 13]\nw = parameter() shape=[384, 192, 3, 3]\ny = conv2d(x, w) pad=1",
    ),
    (
        "conv3-owt-grad-input",
        16,
        "d = input() shape=[N, 384, 13, 13]\nw = parameter() shape=[384, 192, 3, 3]\n\
         y = conv2d_grad_input(d, w) size=13 pad=1",
    ),
    (
        "conv3-owt-grad-weight",
        16,
        "d = input() shape=[N, 384, 13, 13]\nx = input() shape=[N, 192, 13, 13]\n\
         y = conv2d_grad_weight(d, x) kernel=3 pad=1",
    ),
    (
        "fc6",
        64,
        "x = input() shape=[N, 9216]\nw = parameter() shape=[4096, 9216]\ny = fully_connected(x, w)",
    ),
    (
        "fc6-one-image",
        1,
        "x = input() shape=[N, 9216]\nw = parameter() shape=[4096, 9216]\ny = fully_connected(x, w)",
    ),
    (
        "norm1",
        32,
        "x = input() shape=[N, 96, 55, 55]\ny = lrn(x) size=5 k=2 groups=2",
    ),
    (
        "pool1",
        32,
        "x = input() shape=[N, 96, 55, 55]\ny = max_pool(x) kernel=3 stride=2",
    ),
];

fn executor(batch: usize, body: &str) -> Executor {
    let text = format!("model bench\n{body}\noutput y = y\n");
    let graph = ir::text::parse(&text, "bench.ir").expect("the cases are models");
    let request = Request {
        modes: vec![Mode::Infer],
        batch,
        recipe: Recipe::default(),
        dropout: false,
        opt_level: 2,
        targets: vec![codegen::Target::Host(HostTarget::native())],
        splits: Default::default(),
        with_cases: false,
        emit: vec![],
    };
    let (artifact, _) = compile(&Model { text, graph }, &request, &[]).expect("the cases compile");
    let devices = DeviceSpec::parse_list("cpu").expect("cpu is a device");
    let mut executor = Executor::new(&artifact.programs[0], &devices).expect("the cpu is there");
    executor.initialise(1).expect("parameters have initial values");
    // Never time zeros.
    let names = executor.names(|role| role.shape().is_some());
    for (seed, name) in names.iter().enumerate().filter(|(_, name)| *name != "y") {
        let count = executor.get_f32(name).expect("all tensors here are f32").len();
        let number = |i: usize| ir::nest::uniform(seed as i64, 0, 0, i as u32) as f32 - 0.5;
        let values: Vec<f32> = (0..count).map(number).collect();
        executor.set_f32(name, &values).expect("as many as there were");
    }
    executor.run().expect("the cases run");
    executor
}

/// The least time a launch could take, in seconds.
fn limit(peak: &Peak, flops: u64, bytes: u64) -> f64 {
    (flops as f64 / peak.gflops).max(bytes as f64 / peak.copy_gb_per_s) / 1e9
}

fn kernels(criterion: &mut Criterion) {
    let peak = peak::measure(&HostTarget::native()).expect("this machine can be measured");
    let mut group = criterion.benchmark_group("kernels");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    let mut shares = vec![];
    for (name, batch, body) in CASES {
        let mut executor = executor(batch, body);
        let mut best = Duration::MAX;
        let mut work = (0, 0);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let times = executor.profile().expect("the cases run");
                    let launch = times
                        .iter()
                        .find(|launch| launch.label == "y")
                        .expect("y is computed");
                    let time = Duration::from_nanos(launch.ns);
                    (work, best, total) = ((launch.flops, launch.bytes), best.min(time), total + time);
                }
                total
            });
        });
        if best < Duration::MAX {
            shares.push((name, 100.0 * limit(&peak, work.0, work.1) / best.as_secs_f64()));
        }
    }
    group.finish();
    println!(
        "limits: {:.0} GFLOP/s, {:.1} GB/s, measured now",
        peak.gflops, peak.copy_gb_per_s
    );
    for (name, share) in shares {
        println!("{name:24} {share:5.1} % of its limit");
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
