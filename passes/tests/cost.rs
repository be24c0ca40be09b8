//! Costs of kernels, transfers and programs that can be computed by hand.

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::Program;
use passes::cost::times::{MeasuredTime, key};
use passes::cost::work::Work;
use passes::cost::{Bound, Candidate, Costs, KernelTimes, Kind, makespan};
use passes::{Machine, Optimizer, Options};

/// 2 units, 8 lanes, 1 µs a launch; 100 GFLOP/s, 40 GB/s of memory, 200 GB/s of a cache of 1 MB; a link of 10 GB/s.
const PROFILE: &str = "name = 'two'\nsource = 'by hand'\nunits = 2\nlanes = 8\nlaunch_us = 1\n\
    [compute]\nf32 = 100\n[memory]\ncapacity_gb = 16\nbandwidth = 40\n\
    [[memory.caches]]\nkb = 1024\nbandwidth = 200\n[link]\nbandwidth = 10\nlatency_us = 2\n";

fn profile() -> Profile {
    Profile::parse(PROFILE).unwrap()
}

fn program(body: &str, opt_level: u8) -> Program {
    let graph = ir::text::parse(&format!("model test\n{body}\n"), "test.ir").unwrap();
    let options = Options {
        mode: Mode::Infer,
        batch: 64,
        optimizer: Optimizer {
            momentum: 0.9,
            weight_decay: 0.0,
            bias_lr_factor: 1.0,
            bias_weight_decay: 0.0,
            dropout: false,
        },
        opt_level,
        machine: Machine::Processor,
    };
    passes::compile(&graph, &options, &mut |_, _| {}).unwrap()
}

fn costs(profile: &Profile) -> Costs<'_> {
    Costs {
        profile,
        precision: Precision::F32,
        times: None,
    }
}

/// The kernel whose label begins so.
fn candidate<'a>(program: &'a Program, label: &str) -> Candidate<'a> {
    let call = program.kernels.iter().find(|call| call.label.starts_with(label));
    Candidate::of(program, call.expect("a kernel has this label"))
}

#[test]
fn a_map_out_of_memory_takes_the_time_of_its_bytes() {
    // 64·15625 = 10⁶ elements of 4 bytes are read, as many written: 8·10⁶ bytes at 40 GB/s are 200 µs.
    let program = program("x = input() shape=[N, 15625]\ny = relu(x)\noutput y = y", 2);
    let profile = profile();
    let cost = costs(&profile).kernel(&candidate(&program, "y"));
    assert_eq!((cost.bytes, cost.memory_us), (8e6, 200.0));
    assert_eq!(cost.bound(), Bound::Memory);
    assert_eq!(cost.predicted_us(), 201.0);
    assert_eq!(cost.operations, 1e6);
}

#[test]
fn what_fits_a_cache_is_faster_and_what_is_small_is_bound_by_its_launch() {
    // 64·1000 elements: 512000 bytes, in the cache at 200 GB/s.
    let small = program("x = input() shape=[N, 1000]\ny = relu(x)\noutput y = y", 2);
    let profile = profile();
    assert_eq!(costs(&profile).kernel(&candidate(&small, "y")).memory_us, 2.56);
    let tiny = program("x = input() shape=[N, 8]\ny = relu(x)\noutput y = y", 2);
    assert_eq!(
        costs(&profile).kernel(&candidate(&tiny, "y")).bound(),
        Bound::Launch
    );
}

#[test]
fn a_contraction_takes_the_time_of_its_multiply_adds_and_idle_lanes() {
    let product = |n: usize| {
        let text = format!(
            "x = input() shape=[N, 512]\nw = parameter() shape=[{n}, 512]\ny = fully_connected(x, w)\noutput y = y"
        );
        program(&text, 2)
    };
    let profile = profile();
    let (whole, ragged) = (product(4096), product(12));
    let work = Work::of(&candidate(&whole, "y"), &profile);
    assert_eq!(work.kind, Kind::Contraction);
    assert_eq!(
        (work.operations, work.slots),
        (2.0 * 64.0 * 512.0 * 4096.0, 2.0 * 64.0 * 512.0 * 4096.0)
    );
    // 12 columns take two vectors of 8 lanes, or the 64 rows whole vectors.
    let work = Work::of(&candidate(&ragged, "y"), &profile);
    assert_eq!(work.operations, 2.0 * 64.0 * 512.0 * 12.0);
    assert!(
        [1.0, 16.0 / 12.0].contains(&(work.slots / work.operations)),
        "{work:?}"
    );

    let cost = costs(&profile).kernel(&candidate(&whole, "y"));
    assert_eq!(cost.bound(), Bound::Compute);
    // At the peak it would take 2.68·10⁸ operations over 100 GFLOP/s; efficiency makes it longer, but not twice.
    let least = 2.0 * 64.0 * 512.0 * 4096.0 / 100e3;
    assert!((least..2.0 * least).contains(&cost.compute_us), "{cost:?}");
    let mut fast = profile.clone();
    fast.compute.f32 *= 4.0;
    assert_eq!(
        costs(&fast).kernel(&candidate(&whole, "y")).compute_us,
        cost.compute_us / 4.0
    );
}

#[test]
fn tensor_cores_serve_contractions_alone() {
    let text = "x = input() shape=[N, 4096]\nw = parameter() shape=[4096, 4096]\nz = fully_connected(x, w)\n\
                y = tanh(z)\noutput y = y";
    let program = program(text, 0);
    let h200 = Profile::shipped("h200").unwrap();
    let at = |precision| Costs {
        precision,
        ..costs(&h200)
    };
    let time = |precision, label| at(precision).kernel(&candidate(&program, label)).compute_us;
    let ratio = time(Precision::F32, "z") / time(Precision::Bf16, "z");
    assert!((ratio - 989.0 / 67.0).abs() < 0.01, "{ratio}");
    assert_eq!(time(Precision::F32, "y"), time(Precision::Bf16, "y"));
}

#[test]
fn nests_are_told_by_their_shape() {
    let text = "x = input() shape=[N, 16, 9, 9]\np = max_pool(x) kernel=3 stride=2\nf = reshape(p) shape=[N, 256]\n\
                s = softmax(f)\nt = tanh(s)\noutput t = t\noutput n = n\nn = lrn(x) size=5 alpha=0.1 beta=0.75 k=1";
    let text = text.replace("output t = t\noutput n = n\n", "") + "\noutput t = t\noutput n = n";
    let program = program(&text, 0);
    let profile = profile();
    let kinds: Vec<(Kind, bool)> = program
        .kernels
        .iter()
        .map(|call| {
            let work = Work::of(&Candidate::of(&program, call), &profile);
            assert!(
                work.slots > 0.0 && work.bytes > 0.0 && work.slots.is_finite(),
                "{}: {work:?}",
                call.label
            );
            (work.kind, call.nest.reduction.is_empty())
        })
        .collect();
    for kind in [Kind::Window, Kind::Row, Kind::Map] {
        assert!(
            kinds.iter().any(|(found, _)| *found == kind),
            "no {kind:?} in {kinds:?}"
        );
    }
    assert!(kinds.iter().all(|(kind, maps)| (*kind == Kind::Map) == *maps));
}

#[test]
fn halos_cost_a_launch_and_their_zeros() {
    let text = "x = input() shape=[N, 32, 6, 6]\nr = relu(x)\nw = parameter() shape=[32, 32, 3, 3]\n\
                y = conv2d(r, w) pad=1\noutput y = y";
    let program = program(text, 2);
    let profile = profile();
    let relu = candidate(&program, "r");
    let halos = costs(&profile).halos(&relu);
    // 8·8 instead of 6·6 pixels of 32 channels of 64 images: 28 pixels of zeros.
    let bytes = 28.0 * 32.0 * 64.0 * 4.0;
    assert_eq!(halos.len(), 1);
    assert_eq!(halos[0].bytes, bytes);
    assert_eq!(halos[0].predicted_us(), 1.0 + bytes / 200e3);
}

/// Two products of one input, which do not wait for each other, and their sum.
const BRANCHES: &str = "x = input() shape=[N, 256]\nv = parameter() shape=[250, 256]\nw = parameter() shape=[250, 256]\n\
    a = fully_connected(x, v)\nt = tanh(x)\nb = fully_connected(t, w)\nc = add(a, b)\noutput c = c";

fn times(program: &Program, known: &[(&str, f64)]) -> KernelTimes {
    let mut times = KernelTimes::default();
    for &(label, us) in known {
        let key = key(&candidate(program, label), Precision::F32);
        times.insert(
            key,
            MeasuredTime {
                us,
                label: label.into(),
            },
        );
    }
    times
}

#[test]
fn measured_times_win_and_are_known_by_what_is_computed() {
    let program = program(BRANCHES, 0);
    let profile = profile();
    let times = times(&program, &[("t", 123.0)]);
    let costs = Costs {
        times: Some(&times),
        ..costs(&profile)
    };
    let cost = costs.kernel(&candidate(&program, "t"));
    assert_eq!((cost.us(), cost.measured_us), (123.0, Some(123.0)));
    assert_ne!(cost.predicted_us(), 123.0);
    assert_eq!(costs.kernel(&candidate(&program, "c")).measured_us, None);

    // Equal layers share a time; other layouts, and other precisions of contractions, do not.
    let of = |label| key(&candidate(&program, label), Precision::F32);
    assert_eq!(of("a"), of("b"));
    assert_ne!(of("a"), of("t"));
    assert_ne!(of("a"), key(&candidate(&program, "a"), Precision::Tf32));
    assert_eq!(of("t"), key(&candidate(&program, "t"), Precision::Tf32));
    let mut moved = program.clone();
    let position = program.kernels.iter().position(|call| call.label == "t").unwrap();
    let id = moved.kernels[position].results[0];
    moved.values[id.0].layout.order.reverse();
    assert_ne!(of("t"), key(&candidate(&moved, "t"), Precision::F32));
}

#[test]
fn devices_work_at_the_same_time_and_wait_for_transfers() {
    let program = program(BRANCHES, 0);
    let profile = profile();
    // Both products are one kernel to the cache.
    let times = times(&program, &[("a", 30.0), ("t", 5.0), ("c", 7.0)]);
    let device = Costs {
        times: Some(&times),
        ..costs(&profile)
    };
    let step: Vec<usize> = (0..program.kernels.len())
        .filter(|&k| !program.kernels[k].prepare)
        .collect();
    let labels: Vec<&str> = step.iter().map(|&k| &program.kernels[k].label[..]).collect();
    assert_eq!(labels.len(), 4, "{labels:?}");
    let one = makespan(&program, &[device], |_| 0);
    assert_eq!((one.us, one.busy_us, one.transfers.len()), (72.0, vec![72.0], 0));

    let second = |k: usize| usize::from(["t", "b"].contains(&&program.kernels[k].label[..]));
    let two = makespan(&program, &[device, device], second);
    // b ends at 5 + 30 and its 64·250 elements come over in 2 + 64000 / 10⁴ µs.
    assert_eq!(two.busy_us, [37.0, 35.0]);
    assert_eq!(two.transfers.len(), 1);
    assert_eq!(
        (two.transfers[0].begin_us, two.transfers[0].bytes),
        (35.0, 64000.0)
    );
    assert!((two.transfers[0].end_us - 43.4).abs() < 1e-9);
    assert!((two.us - 50.4).abs() < 1e-9, "{two:?}");
}

#[test]
fn what_two_kernels_need_comes_over_once() {
    let text = "x = input() shape=[N, 256]\nt = tanh(x)\na = relu(t)\nb = scale(t) factor=2\noutput a = a\noutput b = b";
    let program = program(text, 0);
    let profile = profile();
    let device = costs(&profile);
    let two = makespan(&program, &[device, device], |k| {
        usize::from(program.kernels[k].label != "t")
    });
    assert_eq!(two.transfers.len(), 1, "{two:?}");
    assert_eq!(two.transfers[0].from, 0);
    assert!((costs(&profile).transfer_us(1e6) - 102.0).abs() < 1e-9);
}
