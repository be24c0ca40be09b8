//! Where a search places the training step of 2012 on two GTX 580, against what is known from the literature.

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::Program;
use passes::cost::{Costs, makespan};
use passes::partition::partition;
use passes::partition::search::{Found, search};
use passes::solver::Limits;
use passes::{Options, Splits, Stage};
use std::collections::BTreeSet;

const LIMITS: Limits = Limits {
    seconds: 60.0,
    gap: 5e-3,
};

/// The kernels of the training step at batch 128, not placed.
fn training_step() -> Program {
    let path = format!("{}/../models/alexnet.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the model is there");
    let graph = ir::text::parse(&text, "alexnet.ir").expect("the model parses");
    let options = Options {
        mode: Mode::Train,
        batch: 128,
        ..Options::default()
    };
    let mut scheduled = None;
    let mut observe = |pass: &str, stage: Stage| {
        if let ("schedule", Stage::Program(program)) = (pass, stage) {
            scheduled = Some(program.clone());
        }
    };
    passes::compile(&graph, &options, &mut observe).expect("the model compiles");
    scheduled.expect("programs are scheduled")
}

fn place(program: &Program, profile: &str, splits: Splits) -> Found {
    let profile = Profile::shipped(profile).expect("this profile ships");
    let costs = Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    };
    let begun = std::time::Instant::now();
    let found = search(program, &[1, 1], &[costs; 2], splits, LIMITS);
    let placed = partition(program, &found.strategy).expect("what is found can be placed");
    println!(
        "{splits:?}: {:.1} ms, bound {:.1} ms, simulated {:.1} ms, {:.1} s",
        found.seconds * 1e3,
        found.bound * 1e3,
        makespan(&placed, &[costs; 2]).us / 1e3,
        begun.elapsed().as_secs_f64()
    );
    for (call, placement) in program.kernels.iter().zip(&found.strategy.kernels) {
        println!("  {}: {}", call.label, placement.describe(program, call));
    }
    assert_eq!(found.fallback, None);
    assert!(found.gap() <= 0.01, "{}", found.gap());
    found
}

/// The nodes whose values cross between devices.
fn exchanged(program: &Program, found: &Found) -> BTreeSet<String> {
    let placed = partition(program, &found.strategy).expect("what is found can be placed");
    let transfers = placed.kernels.iter().filter(|call| placed.is_transfer(call));
    let names = transfers.map(|call| placed.value(call.operands[0]).name.split('@').next().unwrap_or_default().to_string());
    names.collect()
}

#[test]
fn explore() {
    let program = training_step();
    for splits in [Splits::WithoutBatch, Splits::All] {
        let found = place(&program, "gtx580", splits);
        println!("{:?}", exchanged(&program, &found));
    }
}
