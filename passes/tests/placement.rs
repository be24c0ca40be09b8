//! Where a search places AlexNet on two devices.

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use passes::cost::Costs;
use passes::partition::search::{Splits, search};
use passes::{Options, Optimizer, Machine};
use passes::solver::Limits;

#[test]
fn explore() {
    let path = format!("{}/../models/alexnet.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let graph = ir::text::parse(&text, "alexnet.ir").unwrap();
    let options = Options {
        mode: Mode::Train,
        batch: 128,
        optimizer: Optimizer::default(),
        opt_level: 1,
        machine: Machine::Processor,
        ..Options::default()
    };
    let mut fused = None;
    passes::compile(&graph, &options, &mut |name, stage| {
        if let ("schedule", passes::Stage::Program(p)) = (name, stage) { fused = Some(p.clone()); }
    }).unwrap();
    let program = fused.unwrap();
    for (name, profile, units, splits) in [("gtx without batch", "gtx580", 16, Splits::WithoutBatch), ("gtx", "gtx580", 16, Splits::All), ("cpu", "cpu2", 1, Splits::All)] {
        let profile = Profile::shipped(profile).unwrap().part(units, 2);
        let costs = Costs { profile: &profile, precision: Precision::F32, times: None };
        let t = std::time::Instant::now();
        let found = search(&program, &[1, 1], &[costs, costs], splits, Limits { seconds: 20.0, gap: 5e-3 });
        println!("=== {name}: {:.3} ms, bound {:.3} ms, {:?}, {:?}, {} placements", found.seconds * 1e3, found.bound * 1e3, found.fallback, t.elapsed(),
            found.alternatives.iter().map(|a| a.len()).sum::<usize>());
        for ((call, placement), alternatives) in program.kernels.iter().zip(&found.strategy.kernels).zip(&found.alternatives) {
            let own = alternatives.iter().find(|a| a.placement == *placement).unwrap();
            println!("{:9.3} {:9.3} ms {:?} of {:?} {:?} {}", own.seconds[0]*1e3, own.seconds[1]*1e3, placement, call.nest.parallel, call.nest.reduction, call.label);
        }
    }
}
