//! Seconds of the search for kernels on nets of growing size, with limits that a busy machine keeps.

#[path = "common/nets.rs"]
mod nets;

use ir::plan::Mode;
use passes::eqsat::{Limits, search};
use passes::{DeviceKind, Optimizer, cost, simplify, training};
use std::time::Instant;

/// Operations, kernels of the found program, and seconds.
fn searched(text: &str, mode: Mode, batch: usize) -> (usize, usize, f64) {
    let graph = ir::text::parse(text, "net.ir").unwrap_or_else(|errors| panic!("{errors:?}"));
    let bound = graph.bind(batch).unwrap();
    let graph = match mode {
        Mode::Train => training::training(&bound, &Optimizer::default()),
        _ => training::inference(&bound),
    };
    let graph = simplify::simplify(&graph.unwrap()).unwrap();
    let start = Instant::now();
    let costs = &cost::shipped(DeviceKind::Cpu)[0];
    let (program, report) = search(&graph, mode, batch, costs, true, &Limits::default()).unwrap();
    assert_eq!(program.verify(), Ok(()));
    assert_eq!(report.fallback, None);
    assert!(report.bound <= report.seconds);
    let seconds = start.elapsed().as_secs_f64();
    let operations = graph.ids().count();
    println!(
        "{operations} operations, {} kernels, {seconds:.2} s",
        program.kernels.len()
    );
    (operations, program.kernels.len(), seconds)
}

#[test]
fn a_chain_of_a_thousand_operations_is_searched_in_seconds() {
    let (_, kernels, seconds) = searched(&nets::chain(1000), Mode::Infer, 2);
    assert!(kernels <= 100, "{kernels} kernels");
    assert!(seconds < 10.0, "{seconds} s");
}

#[test]
fn resnet_50_is_searched_in_seconds() {
    let (operations, _, seconds) = searched(&nets::resnet50(), Mode::Train, 16);
    assert!(operations > 2000);
    assert!(seconds < 20.0, "{seconds} s");
}

#[test]
fn densenet_121_is_searched_in_seconds() {
    let (operations, _, seconds) = searched(&nets::densenet121(), Mode::Infer, 1);
    assert!(operations > 1000);
    assert!(seconds < 10.0, "{seconds} s");
}

/// The parameters of the papers' networks: what is measured is their size.
#[test]
fn networks_have_the_papers_sizes() {
    for (text, parameters) in [
        (nets::resnet18(), 11_689_512 - 1000),
        (nets::resnet50(), 25_557_032 - 1000),
        (nets::densenet121(), 7_978_856 - 1000),
    ] {
        let graph = ir::text::parse(&text, "net.ir").unwrap_or_else(|errors| panic!("{errors:?}"));
        let is_parameter = |id: &ir::NodeId| matches!(graph.node(*id).op, ir::ops::Op::Parameter { .. });
        let sizes = graph
            .ids()
            .filter(is_parameter)
            .map(|id| graph.node(id).ty.elements());
        // The head here has no bias.
        assert_eq!(sizes.sum::<usize>(), parameters);
    }
}
