//! Inputs of the next run are copied while one is under way, and disturb nothing: on the pretended driver, which does what
//! nothing orders early, late, and in between (`support/fake_cuda.c`).

mod support;

use ir::DType;
use ir::plan::{Allocation, Init, Mode, Plan, Role};
use runtime::console::Console;
use runtime::device::{self, BufferId, Device, LaunchId};
use runtime::interrupt::Interrupt;
use runtime::recipe::Recipe;
use runtime::train::{Feeds, TrainJob, train};
use runtime::{DeviceSpec, Executor};
use std::path::Path;
use support::driver::{Driver, on_gpu};
use support::feeds::{BATCH, CLASSES, Evaluation, SIDE, Training};
use support::{buffer, input, kernel, launch, output, parameter, plan};

/// When things are done that nothing orders.
const LATE: (&str, &str) = ("FAKE_CUDA_HASTE", "none");
const COPIES_FIRST: (&str, &str) = ("FAKE_CUDA_HASTE", "copies");
const KERNELS_FIRST: (&str, &str) = ("FAKE_CUDA_HASTE", "kernels");
const EVERY_ORDER: &[&[(&str, &str)]] = &[&[LATE], &[COPIES_FIRST], &[KERNELS_FIRST]];

/// What passes through staging in three parts.
const LARGE: usize = 5 << 20;
const SMALL: usize = 256;

/// y = s += w x, of `count` elements. A fault where x begins below zero.
fn total(count: usize) -> Plan {
    let shape = vec![count];
    let init = Init::Constant(0.0);
    let buffers = vec![
        input("x", DType::F32, &[count]),
        parameter("w", &[count], Init::Constant(1.0)),
        buffer("s", DType::F32, count, Role::State { shape, init }),
        output("y", &[count]),
    ];
    let mut total = kernel("total", count / 32, &[4 * count; 4]);
    total.threads = 32;
    plan(
        Mode::Infer,
        count,
        buffers,
        vec![total],
        vec![launch("sum", 0, &[0, 1, 2, 3])],
    )
}

fn cuda() -> Vec<DeviceSpec> {
    vec![DeviceSpec::Cuda(0)]
}

/// Bytes that a plan takes on a GPU: its arena, and its buffers at multiples of 256.
fn bytes(plan: &Plan) -> u64 {
    let own = plan
        .buffers
        .iter()
        .filter(|buffer| buffer.allocation == Allocation::Dedicated);
    let own: u64 = own.map(|buffer| buffer.bytes.next_multiple_of(256)).sum();
    own + plan.arena_bytes[0].max(1)
}

/// A log without what shadow buffers take.
fn copies(log: &str) -> String {
    log.replace("allocate\n", "")
}

/// Runs where the next x is set before y is read.
fn many_runs() {
    let mut executor = Executor::new(&on_gpu(total(LARGE)), &cuda()).unwrap();
    executor.initialise(0).unwrap();
    let x = |run: usize| {
        (0..LARGE)
            .map(|i| ((i + 37 * run) % 1009) as f32)
            .collect::<Vec<_>>()
    };
    let mut sum = vec![0.0; LARGE];
    let mut next = x(0);
    executor.set_f32("x", &next).unwrap();
    for run in 0..6 {
        executor.run().unwrap();
        sum.iter_mut().zip(&next).for_each(|(sum, x)| *sum += x);
        next = x(run + 1);
        executor.set_f32("x", &next).unwrap();
        assert!(executor.get_f32("y").unwrap() == sum, "run {run}");
    }
    assert!(executor.get_f32("x").unwrap() == next);
}

#[test]
fn the_next_input_is_copied_between_a_launch_and_its_end() {
    let look = |log: &str| {
        // The first run is by kernels. Of each other one:
        let run = "graph\nwrite\nwrite\nwrite\nwait\nmove\nread\nread\nread\n";
        assert_eq!(copies(log).matches(run).count(), 5, "{log}");
        assert_eq!(log.matches("allocate").count(), 3, "{log}");
    };
    let name = "the_next_input_is_copied_between_a_launch_and_its_end";
    Driver::inside(name, EVERY_ORDER, many_runs, look);
}

#[test]
fn without_memory_for_a_shadow_buffer_a_write_waits() {
    let memory = (bytes(&total(LARGE)) + 4 * LARGE as u64 - 1).to_string();
    let memory = ("FAKE_CUDA_FREE", &memory[..]);
    let orders = [LATE, COPIES_FIRST, KERNELS_FIRST].map(|order| [order, memory]);
    let orders = orders.each_ref().map(|order| &order[..]);
    let look = |log: &str| {
        assert_eq!(log.matches("no memory").count(), 1, "{log}");
        assert_eq!(
            log.matches("graph\nwait\nwrite\nwrite\nwrite\nread\n").count(),
            4,
            "{log}"
        );
        assert!(!log.contains("move"), "{log}");
    };
    Driver::inside(
        "without_memory_for_a_shadow_buffer_a_write_waits",
        &orders,
        many_runs,
        look,
    );
}

/// A device with what its buffers must hold.
struct Twin {
    device: Box<dyn Device>,
    held: [Vec<f32>; 4],
}

/// The buffers.
const X: usize = 0;
const W: usize = 1;
const S: usize = 2;
const Y: usize = 3;

impl Twin {
    fn open() -> Twin {
        let device = device::open(&DeviceSpec::Cuda(0), &on_gpu(total(SMALL)), 0).unwrap();
        let held = std::array::from_fn(|_| vec![0.0; SMALL]);
        Twin { device, held }
    }

    fn run(&mut self) {
        self.device.begin().unwrap();
        self.device.launch(LaunchId(0)).unwrap();
        self.device.end().unwrap();
        for i in 0..SMALL {
            self.held[S][i] += self.held[W][i] * self.held[X][i];
        }
        self.held[Y] = self.held[S].clone();
    }

    /// Writes the first elements of a buffer.
    fn write(&mut self, buffer: usize, count: usize, value: f32) {
        let values: Vec<f32> = (0..count).map(|i| value + i as f32).collect();
        self.device
            .write(BufferId(buffer), bytemuck::cast_slice(&values))
            .unwrap();
        self.held[buffer][..count].copy_from_slice(&values);
    }

    fn check(&mut self, buffer: usize) {
        let mut found = vec![0f32; SMALL];
        self.device
            .read(BufferId(buffer), bytemuck::cast_slice_mut(&mut found))
            .unwrap();
        assert_eq!(found, self.held[buffer], "buffer {buffer}");
    }
}

fn writes_of_every_kind() {
    let mut twin = Twin::open();
    // What was never written is zero.
    twin.check(X);
    twin.write(W, SMALL, 1.0);
    twin.write(X, SMALL, 3.0);
    for _ in 0..2 {
        twin.run();
    }
    // The longer write, then the shorter one over it.
    twin.write(X, SMALL, 5.0);
    twin.write(X, 10, 70.0);
    twin.run();
    // Only the beginning; the rest is of before. Nothing reads between these runs.
    twin.write(X, 20, 11.0);
    twin.run();
    twin.check(Y);
    // What the run itself reads or changes waits for it.
    twin.run();
    twin.write(X, SMALL, 2.0);
    twin.write(W, 30, 4.0);
    twin.run();
    twin.write(S, 40, 9.0);
    twin.check(Y);
    // What was set meanwhile is what is read, and what later writes and fills go over.
    twin.run();
    twin.write(X, SMALL, 6.0);
    twin.check(X);
    twin.run();
    twin.write(X, SMALL, 8.0);
    twin.device.fill(BufferId(X), 0).unwrap();
    twin.held[X].fill(0.0);
    twin.run();
    twin.write(X, 50, 7.0);
    twin.device.complete().unwrap();
    twin.write(X, 5, 1.0);
    twin.run();
    twin.check(Y);
    twin.check(X);
    // Memory that is given back, and taken again.
    twin.run();
    twin.write(X, SMALL, 12.0);
    twin.device.shrink().unwrap();
    twin.run();
    twin.write(X, SMALL, 13.0);
    twin.run();
    twin.check(Y);
    // The end of the process, with everything on its way.
    twin.run();
    twin.write(X, SMALL, 14.0);
}

#[test]
fn writes_of_every_kind_are_seen_by_later_runs_only() {
    let look = |log: &str| assert_eq!(log.matches("allocate").count(), 4, "{log}");
    let name = "writes_of_every_kind_are_seen_by_later_runs_only";
    Driver::inside(name, EVERY_ORDER, writes_of_every_kind, look);
}

/// A run that faults is the error of what waits for it first, and of what comes later.
fn faults() {
    type Wait = fn(&mut Executor) -> Result<(), runtime::Error>;
    let waits: [(&str, Wait); 6] = [
        ("get", |executor| executor.get("y").map(drop)),
        ("set w", |executor| executor.set_f32("w", &[1.0; SMALL])),
        ("run", Executor::run),
        ("wait", Executor::wait),
        ("profile", |executor| executor.profile().map(drop)),
        ("beside", |executor| executor.beside_host().map(drop)),
    ];
    let which: usize = std::env::var("WAIT").unwrap().parse().unwrap();
    let (name, wait) = waits[which];
    let mut executor = Executor::new(&on_gpu(total(SMALL)), &cuda()).unwrap();
    executor.initialise(0).unwrap();
    let mut x = [1.0; SMALL];
    for _ in 0..3 {
        executor.set_f32("x", &x).unwrap();
        executor.run().unwrap();
    }
    x[0] = -1.0;
    executor.set_f32("x", &x).unwrap();
    let early = std::env::var("FAKE_CUDA_HASTE").is_ok_and(|haste| haste == "kernels");
    let run = executor.run();
    let set = executor.set_f32("x", &x);
    assert!(early || (run.is_ok() && set.is_ok()), "{name}: {run:?}, {set:?}");
    for told in [run, set, wait(&mut executor), executor.get("s").map(drop)] {
        let Err(error) = told else { continue };
        let error = error.to_string();
        for part in ["running the kernels of 1 launches", "CUDA_ERROR_ILLEGAL_ADDRESS"] {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
    assert!(wait(&mut executor).is_err(), "{name}");
}

#[test]
fn a_fault_is_told_by_what_waits_and_the_process_ends_in_order() {
    let waits = ["0", "1", "2", "3", "4", "5"];
    let settings: Vec<[(&str, &str); 2]> = [LATE, COPIES_FIRST, KERNELS_FIRST]
        .into_iter()
        .flat_map(|order| waits.map(|wait| [order, ("WAIT", wait)]))
        .collect();
    let settings: Vec<&[(&str, &str)]> = settings.iter().map(|setting| &setting[..]).collect();
    let name = "a_fault_is_told_by_what_waits_and_the_process_ends_in_order";
    Driver::inside(name, &settings, faults, |_| ());
}

fn trained(run: &Path, device: DeviceSpec) -> (Vec<String>, Vec<u8>) {
    let mut artifact = support::classifier(BATCH, 4, SIDE, CLASSES);
    if device == DeviceSpec::Cuda(0) {
        let programs = artifact.programs.into_iter();
        artifact.programs = programs.map(|program| on_gpu(program.plan)).collect();
    }
    let mut recipe = Recipe::default();
    (recipe.train.batch, recipe.train.epochs, recipe.train.seed) = (BATCH, 3, 5);
    recipe.train.checkpoint_every = Some(2);
    recipe.sgd.lr = 0.1;
    let job = TrainJob {
        artifact,
        recipe,
        run: run.to_path_buf(),
        devices: vec![device],
        weights: None,
        steps: None,
        resume: false,
        preprocess_state: None,
    };
    let (mut training, mut evaluation) = (Training::new(), Evaluation::new());
    let feeds = Feeds {
        training: &mut training,
        evaluation: Some(&mut evaluation),
    };
    train(&job, feeds, &Console::silent(), &Interrupt::never()).unwrap();
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("images_per_s");
        line.to_string()
    });
    (metrics.collect(), std::fs::read(run.join("last")).unwrap())
}

#[test]
fn training_copies_the_next_batch_beside_a_step_and_learns_the_same() {
    let body = || {
        let folder = tempfile::tempdir().unwrap();
        let gpu = trained(&folder.path().join("gpu"), DeviceSpec::Cuda(0));
        let cpu = trained(
            &folder.path().join("cpu"),
            DeviceSpec::parse_list("cpu").unwrap().remove(0),
        );
        assert_eq!(gpu.0, cpu.0);
        assert!(gpu.1 == cpu.1, "the checkpoints differ");
    };
    let look = |log: &str| {
        // Images and labels, in every step but the first, which is by kernels, and the last of each of 3 epochs of 5 steps.
        let step = "graph\nwrite\nwrite\nwait\nmove\nmove\nread\n";
        assert_eq!(copies(log).matches(step).count(), 11, "{log}");
    };
    // No more memory than training and evaluating need: shadow buffers are gone while evaluating.
    let programs = support::classifier(BATCH, 4, SIDE, CLASSES).programs;
    let memory: u64 = programs.iter().map(|program| bytes(&program.plan)).sum();
    let memory = memory.to_string();
    let orders = [LATE, COPIES_FIRST, KERNELS_FIRST].map(|order| [order, ("FAKE_CUDA_FREE", &memory[..])]);
    let orders = orders.each_ref().map(|order| &order[..]);
    let name = "training_copies_the_next_batch_beside_a_step_and_learns_the_same";
    Driver::inside(name, &orders, body, look);
}
