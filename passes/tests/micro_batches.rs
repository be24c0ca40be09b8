//! Kernels that take micro-batches, and values that are computed again, change nothing but memory.

mod common;

use common::{assert_all_close, given, run};
use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::Program;
use passes::cost::Costs;
use passes::{OptLevel, Options, Snapshot};

/// Two layers with all that run in micro-batches: fast convolutions and their gradients, normalisation, pooling, a residual, and
/// dropout, which does not. Channels fill aligned batch slices.
const NET: &str = "model net
x = input() shape=[N, 3, 12, 11]
w1 = parameter() shape=[64, 3, 3, 3]
b1 = parameter() shape=[64]
c1 = conv2d(x, w1) pad=1 stride=2
s1 = bias(c1, b1)
r1 = relu(s1)
n1 = lrn(r1) size=3 alpha=0.5 beta=0.75 k=1.0
p1 = max_pool(n1) kernel=2 stride=1
w2 = parameter() shape=[64, 32, 3, 3]
c2 = conv2d(p1, w2) pad=1 groups=2
t2 = tanh(c2)
n2 = lrn(t2) size=5 alpha=0.5 beta=0.75 k=2.0
p2 = max_pool(n2) kernel=2 stride=1
w3 = parameter() shape=[64, 64, 3, 3]
c3 = conv2d(p2, w3) pad=1
t3 = tanh(c3)
a3 = add(t3, p2)
d3 = dropout(a3) rate=0.25
g = global_avg_pool(d3)
logits = reshape(g) shape=[N, 64]
output logits = logits
";

fn compile(
    mode: Mode,
    batch: usize,
    micro_batch_bytes: u64,
    observe: &mut dyn FnMut(&str, &Program),
) -> Program {
    let graph = ir::text::parse(NET, "net.ir").unwrap();
    let options = Options {
        mode,
        batch,
        micro_batch_bytes,
        ..Options::default()
    };
    let mut show = |pass: &str, stage: Snapshot| {
        if let Snapshot::Program(program) = stage {
            observe(pass, program);
        }
    };
    passes::compile(&graph, &options, &mut show).unwrap()
}

fn micro_batch_loops(program: &Program) -> usize {
    program
        .kernel_sequences()
        .filter(|sequence| sequence[0].micro_batch_loop.is_some())
        .count()
}

#[test]
fn turns_of_any_size_compute_the_same() {
    for mode in [Mode::Infer, Mode::Gradients, Mode::Train] {
        let whole = compile(mode, 8, u64::MAX, &mut |_, _| {});
        assert_eq!(micro_batch_loops(&whole), 0, "{mode:?}");
        let given = given(&whole, 64, 1);
        let expected = run(&whole, &given);
        for micro_batch_bytes in [0, 30_000, 100_000] {
            let what = format!("{mode:?} in micro-batches of {micro_batch_bytes} bytes");
            let mut after = vec![];
            let last = compile(mode, 8, micro_batch_bytes, &mut |pass, program| {
                if ["layout", "rematerialize", "micro-batches", "memory"].contains(&pass) {
                    assert_all_close(&run(program, &given), &expected, &format!("{what}, after {pass}"));
                    after.push(micro_batch_loops(program));
                }
            });
            assert!(after.last() > after.first(), "{what}: {after:?}");
            // Sums of weights are the most here, and a micro-batch loop keeps what it reads to its end.
            let share = last.arena_bytes[0] as f64 / whole.arena_bytes[0] as f64;
            assert!(share <= 1.2, "{what}: {share} of the arena");
        }
    }
}

/// What micro-batches and what is computed again are for: the training step of 2012 needs two fifths less of the arena.
#[test]
fn a_large_batch_needs_less_memory() {
    let path = format!("{}/../models/alexnet.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the model is there");
    let graph = ir::text::parse(&text, "alexnet.ir").unwrap();
    let arena = |micro_batch_bytes: u64| {
        let options = Options {
            mode: Mode::Train,
            batch: 128,
            micro_batch_bytes,
            ..Options::default()
        };
        let program = passes::compile(&graph, &options, &mut |_, _| {}).unwrap();
        program.arena_bytes[0] as f64
    };
    let (micro_batches, whole) = (arena(passes::micro_batch::MICRO_BATCH_BYTES), arena(u64::MAX));
    println!("{micro_batches} bytes in micro-batches, {whole} without");
    assert!(
        micro_batches <= 0.6 * whole,
        "{micro_batches} bytes in micro-batches, {whole} without"
    );
}

/// All that a training step of 2012 needs, parameters and images included, against one kernel an operation.
#[test]
fn optimised_steps_need_a_quarter_less_memory() {
    let path = format!("{}/../models/alexnet.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the model is there");
    let graph = ir::text::parse(&text, "alexnet.ir").unwrap();
    let profile = Profile::shipped("cpu2").expect("this profile ships");
    let costs = [Costs {
        profile: &profile,
        precision: Precision::F32,
        times: None,
    }];
    let planned = |opt_level: OptLevel| {
        let options = Options {
            mode: Mode::Train,
            batch: 128,
            opt_level,
            ..Options::default()
        };
        let program = passes::compile(&graph, &options, &mut |_, _| {}).unwrap();
        passes::memory::bytes_of_devices(&program)[0] as f64
    };
    let share = planned(OptLevel::Search(&costs)) / planned(OptLevel::None);
    assert!(share <= 0.75, "{share} of the memory without optimisation");
}

/// Seven samples are one micro-batch, or seven.
#[test]
fn samples_are_shared_evenly() {
    let program = compile(Mode::Train, 7, 0, &mut |_, _| {});
    let micro_batches: Vec<usize> = program
        .kernel_sequences()
        .map(|sequence| sequence[0].micro_batches())
        .filter(|&micro_batches| micro_batches > 1)
        .collect();
    assert!(
        !micro_batches.is_empty() && micro_batches.iter().all(|&micro_batches| micro_batches == 7),
        "{micro_batches:?}"
    );
}

#[test]
fn windows_that_do_not_fit_their_group_are_found() {
    let sound = compile(Mode::Infer, 8, 0, &mut |_, _| {});
    sound.verify().unwrap();
    let grouped = sound
        .kernels
        .iter()
        .position(|call| call.micro_batch_loop.is_some())
        .unwrap();
    let refused = |change: &dyn Fn(&mut Program)| {
        let mut program = sound.clone();
        change(&mut program);
        program.verify().unwrap_err()
    };
    let other_count = refused(&|program| {
        for call in &mut program.kernels {
            call.micro_batch_loop
                .iter_mut()
                .for_each(|micro_batch_loop| micro_batch_loop.micro_batches *= 2);
        }
    });
    assert!(other_count.contains("micro-batches of"), "{other_count}");
    let apart = refused(&|program| {
        let call = program.kernels[grouped].clone();
        program.kernels.push(call);
    });
    assert!(
        apart.contains("apart from the others of its micro-batch loop"),
        "{apart}"
    );
}

/// The scale of a normalisation and what nobody else reads are made again where the way back needs them.
#[test]
fn what_is_cheap_is_computed_again() {
    let program = compile(Mode::Train, 8, 0, &mut |_, _| {});
    let labels: Vec<&str> = program.kernels.iter().map(|call| &call.label[..]).collect();
    let again = labels.iter().filter(|label| label.starts_with("remat ")).count();
    assert!(again > 0, "{labels:?}");
    let infer = compile(Mode::Infer, 8, 0, &mut |_, _| {});
    assert!(infer.kernels.iter().all(|call| !call.label.starts_with("remat ")));
}

/// A gradient through a normalisation takes the place of what was normalised, a micro-batch behind it.
#[test]
fn what_is_made_in_turns_follows_what_they_read_last() {
    let program = compile(Mode::Train, 8, 0, &mut |_, _| {});
    let chains = passes::overlap_chain::chains(&program, &ir::live::liveness(&program));
    let followed = chains.iter().filter(|chain| chain.parts.len() > 1).count();
    assert!(followed > 0, "nothing follows anything");
    for chain in chains {
        let starts = chain.parts.iter().map(|(live, offset)| {
            let ir::plan::Allocation::Arena(at) = program.value(live.value).allocation else {
                panic!("a temporary lies in the arena")
            };
            assert!(offset + program.value(live.value).bytes() <= chain.bytes());
            at - offset
        });
        let starts: Vec<u64> = starts.collect();
        assert!(starts.windows(2).all(|pair| pair[0] == pair[1]), "{chain:?}");
    }
}
