//! What compiling takes as networks grow: seconds of each part, operations, nodes of the e-graph and kernels.
//!
//! `make bench-compile`, or `cargo bench --bench compile -- [NAME...] [--opt-level N]`; a name selects the networks whose
//! names contain it. Every network is compiled once, cold, for one mode.

#[path = "../../passes/tests/common/nets.rs"]
mod nets;

use alexc::compile::{Model, Request, compile_and_report};
use alexc::compile_times::CompileTimes;
use alexc::costs::CostArgs;
use codegen::Target;
use codegen::bridge::HostTarget;
use ir::plan::Mode;
use runtime::DeviceSpec;
use std::path::Path;

/// A network with its batch and devices.
struct Case {
    name: String,
    text: String,
    batch: usize,
    devices: &'static str,
}

fn case(name: impl Into<String>, text: String, batch: usize) -> Case {
    Case {
        name: name.into(),
        text,
        batch,
        devices: "cpu",
    }
}

fn cases() -> Vec<Case> {
    let alexnet = || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        ["alexnet", "alexnet-owt"].map(|name| {
            let text = std::fs::read_to_string(path.join(format!("{name}.ir")));
            (name, text.expect("the shipped models are there"))
        })
    };
    let chains = [100, 300, 1000, 3000].map(|n| case(format!("chain-{n}"), nets::chain(n), 2));
    let residual =
        [1, 2, 4, 8, 16].map(|n| case(format!("residual-{n}"), nets::resnet_basic([n, 0, 0, 0]), 16));
    let mut cases: Vec<Case> = chains.into_iter().chain(residual).collect();
    cases.push(case("resnet-18", nets::resnet18(), 16));
    cases.push(case("resnet-50", nets::resnet50(), 16));
    cases.push(case("densenet-121", nets::densenet121(), 16));
    for (name, text) in alexnet() {
        cases.push(case(name, text.clone(), 128));
        cases.push(Case {
            devices: "cpu:0,cpu:1",
            ..case(format!("{name}, 2 devices"), text, 128)
        });
    }
    cases
}

fn main() {
    let mut names: Vec<String> = vec![];
    let mut opt_level = 2;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--opt-level" => {
                let level = arguments.next().and_then(|level| level.parse().ok());
                opt_level = level.expect("--opt-level is followed by 0, 1 or 2");
            }
            // What cargo adds.
            "--bench" => {}
            _ => names.push(argument),
        }
    }
    println!(
        "| network | mode | operations | e-nodes | launches | kernels | search | placement | code | other | total, s |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let chosen = |case: &Case| names.is_empty() || names.iter().any(|name| case.name.contains(name));
    for case in cases().into_iter().filter(chosen) {
        for mode in [Mode::Infer, Mode::Train] {
            row(&case, mode, opt_level);
        }
    }
}

fn row(case: &Case, mode: Mode, opt_level: u8) {
    let graph = ir::text::parse(&case.text, &case.name).expect("the network is valid");
    let operations = graph.len();
    let model = Model {
        text: case.text.clone(),
        graph,
    };
    let devices = DeviceSpec::parse_list(case.devices).expect("the devices are named right");
    let targets = vec![Target::Host(HostTarget::native()); devices.len()];
    // A profile that ships: rows of different machines are of the same programs.
    let costs = CostArgs {
        profile: Some("cpu2".to_string()),
        ..CostArgs::default()
    };
    let costs = costs.choose(&devices, &targets).expect("the profile ships");
    let request = Request {
        modes: vec![mode],
        batch: case.batch,
        recipe: Default::default(),
        dropout: true,
        opt_level,
        targets,
        splits: Default::default(),
        with_cases: false,
        emit: vec![],
    };
    let mut times = CompileTimes::default();
    let name = &case.name;
    let mut warn = |warning: &str| eprintln!("{}: {warning}", case.name);
    if let Err(error) = compile_and_report(&model, &request, &costs, &mut times, &mut warn) {
        println!("| {name} | {mode:?} | {operations} | {error} |");
        return;
    }
    println!(
        "| {name} | {} | {operations} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        format!("{mode:?}").to_lowercase(),
        times.e_nodes,
        times.launches,
        times.kernels,
        times.search(),
        times.placement(),
        times.code_generation,
        times.other(),
        times.total,
    );
}
