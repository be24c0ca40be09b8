//! What the passes after the search take as a network grows: little more than in proportion to it.

#[path = "common/nets.rs"]
#[allow(dead_code)]
mod nets;

use ir::plan::Mode;
use ir::program::Program;
use passes::{
    DeviceKind, Optimizer, layout, lower, memory, micro_batch, micro_batches, rematerialize, schedule,
    training,
};
use std::time::{Duration, Instant};

/// A pass over programs.
type Change<'a> = &'a dyn Fn(&mut Program);

/// How much longer a network of four times the operations may take. In proportion it would be 4, with the square 16.
const MAX_RATIO: f64 = 10.0;

/// The program of a chain of operations, one kernel a nest.
fn chain(operations: usize) -> Program {
    let graph = ir::text::parse(&nets::chain(operations), "chain").expect("the network is valid");
    let graph = graph.bind(2).expect("the batch fits");
    let graph = training::training(&graph, &Optimizer::default()).expect("the network has one output");
    lower::lower(&graph, Mode::Train, 2).expect("every operation becomes kernels")
}

/// The least time of three tries.
fn least(program: &Program, pass: &dyn Fn(&mut Program)) -> Duration {
    let time = |_| {
        let mut program = program.clone();
        let begun = Instant::now();
        pass(&mut program);
        begun.elapsed()
    };
    (0..3).map(time).min().expect("there are three tries")
}

#[test]
fn passes_of_programs_grow_with_the_program() {
    let machines = [DeviceKind::Cpu];
    let passes: [(&str, Change); 6] = [
        ("schedule", &schedule::schedule),
        ("reschedule", &schedule::reschedule),
        ("layout", &|program| *program = layout::assign(program, &machines)),
        ("rematerialize", &|program| {
            rematerialize::rematerialize(program, micro_batch::MICRO_BATCH_BYTES);
        }),
        ("micro-batches", &|program| {
            micro_batches::cut(program, micro_batch::MICRO_BATCH_BYTES)
        }),
        ("verify", &|program| {
            program.verify().expect("the program is valid")
        }),
    ];
    let (mut small, mut large) = (chain(250), chain(1000));
    for (name, pass) in passes {
        let [of_small, of_large] = [&small, &large].map(|program| least(program, pass));
        let ratio = of_large.as_secs_f64() / of_small.as_secs_f64().max(1e-4);
        assert!(
            ratio <= MAX_RATIO,
            "{name} takes {of_small:?} for a chain of 250 operations and {of_large:?} for one of 1000"
        );
        [&mut small, &mut large].into_iter().for_each(pass);
    }
}

#[test]
fn the_memory_of_a_thousand_operations_is_planned_within_its_bound() {
    let mut program = chain(1000);
    schedule::schedule(&mut program);
    let begun = Instant::now();
    let packing = memory::plan(&mut program);
    // Half a second where nothing else runs; the improvements of an order are limited by their number.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(
        packing.arena_bytes as f64 <= 1.05 * packing.lower_bound as f64,
        "{packing:?}"
    );
}
