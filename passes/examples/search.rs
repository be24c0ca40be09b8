//! Where the time of a search for kernels goes: `search NET MODE BATCH [LEVEL]`. A net is a file, or `chain:N`, `resnet18`,
//! `resnet50`, `densenet121`.

#[path = "../tests/common/nets.rs"]
mod nets;

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use passes::cost::Costs;
use passes::eqsat::{Limits, search};
use passes::{Optimizer, simplify, training};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [net, mode, batch, ..] = &arguments[..] else {
        panic!("usage: search NET MODE BATCH")
    };
    let text = match net.split_once(':') {
        Some(("chain", n)) => nets::chain(n.parse().expect("a number of operations")),
        Some(("resnet", n)) => nets::resnet_bottleneck([3, 4, n.parse().expect("a number of blocks"), 3]),
        _ => match &net[..] {
            "resnet18" => nets::resnet18(),
            "resnet50" => nets::resnet50(),
            "densenet121" => nets::densenet121(),
            path => std::fs::read_to_string(path).expect("a model's file"),
        },
    };
    let graph = ir::text::parse(&text, net).unwrap_or_else(|errors| panic!("{errors:?}"));
    let bound = graph
        .bind(batch.parse().expect("a batch size"))
        .expect("the model binds");
    let start = Instant::now();
    let (mode, graph) = match &mode[..] {
        "train" => (Mode::Train, training::training(&bound, &Optimizer::default())),
        _ => (Mode::Infer, training::inference(&bound)),
    };
    let graph = simplify::simplify(&graph.expect("the model can be trained")).expect("rules are sound");
    println!(
        "{} operations after {:.2} s",
        graph.ids().count(),
        start.elapsed().as_secs_f64()
    );
    let profile = Profile::shipped("cpu2").expect("this profile ships");
    let costs = Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    };
    let start = Instant::now();
    let batch = batch.parse().expect("a batch size");
    let (program, report) =
        search(&graph, mode, batch, &costs, true, &Limits::default()).expect("the model compiles");
    let seconds = start.elapsed().as_secs_f64();
    for phase in &report.phases {
        println!(
            "{}: {:.2} s, {} e-nodes, {} rounds, {}",
            phase.name, phase.seconds, phase.nodes, phase.rounds, phase.stopped
        );
    }
    println!(
        "{} kernels of {}, {} values; extraction {:.2} s; {:?}; {:.3} ms, bound {:.3} ms, gap {:.3} %; {:?}",
        program.kernels.len(),
        report.kernels,
        report.values,
        report.extraction_seconds,
        report.effort,
        report.seconds * 1e3,
        report.bound * 1e3,
        report.gap * 1e2,
        report.fallback
    );
    println!("search {seconds:.2} s");
}
