//! Costs of kernels, transfers and programs that can be computed by hand.

use ir::plan::Mode;
use ir::profile::{Precision, Profile};
use ir::program::{DeviceId, Program};
use passes::cost::times::{Key, MeasuredTime};
use passes::cost::{Bound, Candidate, Costs, KernelTimes, Kind, Makespan, Stored, Work, makespan};
use passes::partition::{Placement, Strategy, partition};
use passes::{DeviceKind, Optimizer, Options, Snapshot};

/// 2 units, 8 lanes, 1 µs a launch; 100 GFLOP/s, 40 GB/s of memory, 200 GB/s of a cache of 1 MB; a link of 10 GB/s.
const PROFILE: &str = "name = 'two'\nsource = 'by hand'\nunits = 2\nlanes = 8\nlaunch_us = 1\n\
    [compute]\nf32 = 100\n[memory]\ncapacity_gb = 16\nbandwidth = 40\n\
    [[memory.caches]]\nkb = 1024\nbandwidth = 200\n[link]\nbandwidth = 10\nlatency_us = 2\n";

fn profile() -> Profile {
    Profile::parse(PROFILE).unwrap()
}

fn program(body: &str, opt_level: u8) -> Program {
    programs(body, opt_level).1
}

/// The program before and after layouts are chosen.
fn programs(body: &str, opt_level: u8) -> (Program, Program) {
    compile(&format!("model test\n{body}\n"), Mode::Infer, opt_level)
}

fn compile(text: &str, mode: Mode, opt_level: u8) -> (Program, Program) {
    let graph = ir::text::parse(text, "test.ir").unwrap();
    let options = Options {
        mode,
        batch: 64,
        optimizer: Optimizer {
            momentum: 0.9,
            weight_decay: 0.0,
            bias_lr_factor: 1.0,
            bias_weight_decay: 0.0,
            dropout: false,
        },
        opt_level: match opt_level {
            0 => passes::OptLevel::None,
            _ => passes::OptLevel::greedy(DeviceKind::Cpu),
        },
        machine: DeviceKind::Cpu,
        ..Options::default()
    };
    let mut scheduled = None;
    let program = passes::compile(&graph, &options, &mut |pass, stage| {
        if let ("schedule", Snapshot::Program(program)) = (pass, stage) {
            scheduled = Some(program.clone());
        }
    });
    (scheduled.unwrap(), program.unwrap())
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
    let program = program(
        "x = input() shape=[N, 15625]\ny = scale(x) factor=2\noutput y = y",
        2,
    );
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
                y = conv2d(r, w) pad=1 stride=2\noutput y = y";
    let program = program(text, 2);
    let profile = profile();
    let relu = candidate(&program, "r");
    let paddings = costs(&profile).paddings(&relu);
    // 7·7 instead of 6·6 pixels of 32 channels of 64 images: 13 pixels of zeros.
    let bytes = 13.0 * 32.0 * 64.0 * 4.0;
    assert_eq!(paddings.len(), 1);
    assert_eq!(paddings[0].bytes, bytes);
    assert_eq!(paddings[0].predicted_us(), 1.0 + bytes / 200e3);
}

#[test]
fn without_layouts_a_kernel_costs_what_it_does_with_the_best() {
    let texts = [
        (
            "x = input() shape=[N, 96, 27, 27]\nw = parameter() shape=[256, 96, 5, 5]\ny = conv2d(x, w) pad=2 stride=2\noutput y = y",
            "y",
        ),
        (
            "x = input() shape=[N, 512]\nw = parameter() shape=[4096, 512]\ny = fully_connected(x, w)\noutput y = y",
            "y",
        ),
        (
            "x = input() shape=[N, 64, 13, 13]\nw = parameter() shape=[64, 64, 3, 3]\nc = conv2d(x, w) pad=1\n\
             y = max_pool(c) kernel=3 stride=2\nz = conv2d(y, w) pad=1\noutput z = z",
            "y",
        ),
        ("x = input() shape=[N, 1000]\ny = relu(x)\noutput y = y", "y"),
    ];
    let profile = profile();
    for (text, label) in texts {
        let (scheduled, laid_out) = programs(text, 2);
        let call = scheduled
            .kernels
            .iter()
            .find(|call| call.label.starts_with(label));
        let call = call.unwrap();
        let operands = call.operands.iter().map(|&id| Stored {
            layout: None,
            ..Stored::of(scheduled.value(id))
        });
        let free = costs(&profile).kernel(&Candidate::free(&call.nest, operands.collect()));
        let placed = costs(&profile).kernel(&candidate(&laid_out, label));
        assert_eq!(free.operations, placed.operations, "{text}");
        // Layouts add storage padding, or rows that fill vectors worse.
        assert!(free.bytes <= placed.bytes, "{text}: {free:?} {placed:?}");
        assert!(free.us() <= 1.001 * placed.us(), "{text}: {free:?} {placed:?}");
        assert!(placed.us() <= 1.5 * free.us(), "{text}: {free:?} {placed:?}");
    }
}

/// Two products of one input, which do not wait for each other, and their sum.
const BRANCHES: &str = "x = input() shape=[N, 256]\nv = parameter() shape=[250, 256]\nw = parameter() shape=[250, 256]\n\
    a = fully_connected(x, v)\nt = tanh(x)\nb = fully_connected(t, w)\nc = add(a, b)\noutput c = c";

fn times(program: &Program, known: &[(&str, f64)]) -> KernelTimes {
    let mut times = KernelTimes::default();
    for &(label, us) in known {
        let key = Key::of(&candidate(program, label), Precision::F32).unwrap();
        let label = label.into();
        times.insert(key, MeasuredTime { us, label });
    }
    times
}

#[test]
fn measured_times_win_and_are_known_by_what_is_computed() {
    let program = program(BRANCHES, 0);
    let profile = profile();
    let mut times = times(&program, &[("t", 123.0)]);
    let measured = |candidate: &Candidate, times: &KernelTimes| {
        let times = Some(times);
        Costs {
            times,
            ..costs(&profile)
        }
        .kernel(candidate)
    };
    let cost = measured(&candidate(&program, "t"), &times);
    assert_eq!((cost.us(), cost.measured_us), (123.0, Some(123.0)));
    assert_ne!(cost.predicted_us(), 123.0);
    assert_eq!(measured(&candidate(&program, "c"), &times).measured_us, None);

    // Equal layers share a time; other layouts, and other precisions of contractions, do not.
    let of = |label, precision| Key::of(&candidate(&program, label), precision).unwrap();
    let (f32, tf32) = (Precision::F32, Precision::Tf32);
    assert_eq!(of("a", f32), of("b", f32));
    assert_ne!(of("a", f32), of("t", f32));
    assert_ne!(of("a", f32), of("a", tf32));
    assert_eq!(of("t", f32), of("t", tf32));
    let mut moved = program.clone();
    let call = program.kernels.iter().find(|call| call.label == "t").unwrap();
    moved.values[call.results[0].0].layout.order.reverse();
    let elsewhere = Key::of(&candidate(&moved, "t"), f32).unwrap();
    assert_ne!(of("t", f32), elsewhere);
    assert_eq!(Key::try_from(String::from(elsewhere)), Ok(elsewhere));
    assert!(
        Key::try_from("fast".to_string())
            .unwrap_err()
            .contains("\"fast\"")
    );

    // Where a layout is not decided, the best one counts.
    let mut free = candidate(&program, "t");
    free.results[0].layout = None;
    assert_eq!(Key::of(&free, f32), None);
    assert_eq!(measured(&free, &times).measured_us, Some(123.0));
    let label = "t".to_string();
    times.insert(elsewhere, MeasuredTime { us: 99.0, label });
    assert_eq!(measured(&free, &times).measured_us, Some(99.0));
}

/// `BRANCHES` with `t` and `b` on the second device, and what its kernels take.
fn two_devices() -> (Program, KernelTimes) {
    let program = programs(BRANCHES, 0).0;
    let on_second = |label: &str| usize::from(["t", "b"].contains(&label));
    let kernels = program.kernels.iter();
    let kernels = kernels.map(|call| Placement::Single(DeviceId(on_second(&call.label))));
    let strategy = Strategy {
        shares: vec![1, 1],
        kernels: kernels.collect(),
    };
    // Both products are one kernel to the cache.
    let times = times(&program, &[("a", 30.0), ("t", 5.0), ("c", 7.0)]);
    (partition(&program, &strategy).unwrap(), times)
}

fn calls<'m>(program: &Program, makespan: &'m Makespan, label: &str) -> Vec<&'m (f64, f64)> {
    let calls = program.kernels.iter().zip(&makespan.calls);
    calls
        .filter(|(call, _)| call.label == label)
        .map(|(_, times)| times)
        .collect()
}

#[test]
fn devices_work_at_the_same_time_and_wait_for_transfers() {
    let profile = profile();
    let one = programs(BRANCHES, 0).0;
    let (two, times) = two_devices();
    let device = Costs {
        times: Some(&times),
        ..costs(&profile)
    };
    let alone = makespan(&one, &[device]);
    assert_eq!((alone.us, alone.busy_us), (72.0, vec![72.0]));

    let transfers: Vec<usize> = (0..two.kernels.len())
        .filter(|&k| two.is_transfer(&two.kernels[k]))
        .collect();
    assert_eq!(transfers.len(), 1, "{:?}", two.kernels);
    let both = makespan(&two, &[device, device]);
    // b ends at 5 + 30; its 64·250 elements come over in 2 + 64000 / 10⁴ µs, by the first device's own hands.
    assert_eq!(calls(&two, &both, "b"), [&(5.0, 35.0)]);
    let (begin, end) = both.calls[transfers[0]];
    assert_eq!(begin, 35.0);
    assert!((end - 43.4).abs() < 1e-9, "{both:?}");
    assert!((both.us - 50.4).abs() < 1e-9, "{both:?}");
    assert!(
        (both.busy_us[0] - 45.4).abs() < 1e-9 && both.busy_us[1] == 35.0,
        "{both:?}"
    );
}

#[test]
fn a_gpu_receives_while_it_computes() {
    // The first device needs t early, for r, and has the long product a to do meanwhile.
    let text = "x = input() shape=[N, 256]\nv = parameter() shape=[250, 256]\nt = tanh(x)\n\
                a = fully_connected(x, v)\nr = relu(t)\noutput a = a\noutput r = r";
    let program = programs(text, 0).0;
    let kernels = program.kernels.iter();
    let kernels = kernels.map(|call| Placement::Single(DeviceId(usize::from(call.label == "t"))));
    let strategy = Strategy {
        shares: vec![1, 1],
        kernels: kernels.collect(),
    };
    let times = times(&program, &[("a", 30.0), ("t", 5.0), ("r", 7.0)]);
    let two = partition(&program, &strategy).unwrap();
    let processor = profile();
    let text = PROFILE.to_string() + "[gpu]\nclock_ghz = 4\nissue = 1\n";
    let gpu = Profile::parse(&text).unwrap();
    // 64·256 elements take 2 + 65536 / 10⁴ µs.
    for (profile, us) in [(&processor, 30.0 + 8.5536 + 7.0), (&gpu, 30.0 + 7.0)] {
        let device = Costs {
            times: Some(&times),
            ..costs(profile)
        };
        let both = makespan(&two, &[device, device]);
        assert!((both.us - us).abs() < 1e-9, "{}: {both:?}", profile.name);
    }
}

#[test]
fn what_is_overwritten_waits_for_who_reads_it() {
    let (mut two, times) = two_devices();
    let profile = profile();
    let device = Costs {
        times: Some(&times),
        ..costs(&profile)
    };
    // As if t overwrote b in place: b's transfer must have read it before.
    let position = |label: &str| two.kernels.iter().position(|call| call.label == label);
    let (b, t) = (position("b").unwrap(), position("t").unwrap());
    let mut again = two.kernels[t].clone();
    let result = again.results[0];
    two.values[result.0].alias = Some(two.kernels[b].results[0]);
    again.label = "again".into();
    two.kernels.push(again);
    let both = makespan(&two, &[device, device]);
    let (begin, _) = *calls(&two, &both, "again")[0];
    assert!((begin - 43.4).abs() < 1e-9, "{both:?}");
}

#[test]
fn a_transfer_is_as_slow_as_the_slower_link() {
    let (here, mut there) = (profile(), profile());
    there.link.bandwidth = 5.0;
    there.link.latency_us = 1.0;
    let cost = costs(&here).transfer(1e6, &costs(&there));
    assert_eq!((cost.memory_us, cost.launch_us, cost.us()), (200.0, 2.0, 202.0));
    assert_eq!(cost, costs(&there).transfer(1e6, &costs(&here)));
}

#[test]
fn a_cost_takes_microseconds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/alexnet.ir");
    let program = compile(&std::fs::read_to_string(path).unwrap(), Mode::Train, 2).1;
    let profile = profile();
    let mut times = KernelTimes::default();
    for call in &program.kernels {
        let key = Key::of(&Candidate::of(&program, call), Precision::F32).unwrap();
        let label = call.label.clone();
        times.insert(key, MeasuredTime { us: 1.0, label });
    }
    let costs = Costs {
        times: Some(&times),
        ..costs(&profile)
    };
    const ROUNDS: u32 = 20;
    let begin = std::time::Instant::now();
    for call in (0..ROUNDS).flat_map(|_| &program.kernels) {
        let cost = costs.kernel(&Candidate::of(&program, call));
        assert_eq!(cost.measured_us, Some(1.0), "{}", call.label);
    }
    let each = begin.elapsed() / (ROUNDS * program.kernels.len() as u32);
    println!("{each:?} for each of {} kernels", program.kernels.len());
    // Some 20 µs; the rest is for a machine that is busy.
    assert!(each < std::time::Duration::from_millis(2), "{each:?}");
}
