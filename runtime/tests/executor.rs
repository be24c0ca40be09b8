//! The executor on the CPU device, with kernels that a C compiler made.

mod support;

use ir::DType;
use ir::plan::{Role, VERSION};
use runtime::{Compiled, DeviceSpec, Error, Executor, Tensor};
use support::{arithmetic, buffer, kernel, launch};

fn open(program: &Compiled, devices: &str) -> Result<Executor, Error> {
    Executor::new(program, &DeviceSpec::parse_list(devices)?)
}

fn refused(program: &Compiled, devices: &str) -> Error {
    open(program, devices).err().expect("the program is refused")
}

#[test]
fn a_plan_runs_and_prepares_what_was_set() {
    for devices in ["cpu", "cpu:0"] {
        let mut executor = open(&arithmetic(), devices).unwrap();
        assert_eq!(executor.devices(), devices);
        let a: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        executor.initialise(1).unwrap();
        for (weight, plus) in [(None, 1.0), (Some(4.0), 8.0)] {
            if let Some(weight) = weight {
                executor.set_f32("layer.weight", &[weight; 1000]).unwrap();
            }
            executor
                .set("a", &Tensor::f32([10, 100], a.clone()).unwrap())
                .unwrap();
            for _ in 0..100 {
                executor.run().unwrap();
            }
            let expected: Vec<f32> = a.iter().map(|a| (a + plus).sqrt()).collect();
            assert_eq!(executor.get_f32("out").unwrap(), expected);
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_told_with_what_would() {
    let mut executor = open(&arithmetic(), "cpu").unwrap();
    let ones = |shape: &[usize]| Tensor::f32(shape, vec![1.0; shape.iter().product()]).unwrap();
    for (result, parts) in [
        (
            executor.set("b", &ones(&[1])),
            &["tiny", "no tensor named b", "a, layer.weight, out"][..],
        ),
        (
            executor.set("packed", &ones(&[1000])),
            &["no tensor named packed"],
        ),
        (
            executor.set("a", &ones(&[100, 10])),
            &["a is f32[10, 100]", "f32[100, 10] was given"],
        ),
        (
            executor.set_f32("a", &[1.0; 999]),
            &["a is f32[10, 100]", "999 elements of f32"],
        ),
        (
            executor.set_i64("a", &[1; 500]),
            &["a is f32[10, 100]", "500 elements of i64"],
        ),
        (executor.set("out", &ones(&[1000])), &["out is an output"]),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        parts
            .iter()
            .for_each(|part| assert!(error.to_string().contains(part), "{part:?} is not in {error}"));
    }
}

#[test]
fn code_for_another_machine_is_refused() {
    let mut program = arithmetic();
    program.host.as_mut().unwrap().arch = "pdp11".into();
    assert!(
        refused(&program, "cpu")
            .to_string()
            .contains("the kernels are for pdp11")
    );
    let mut program = arithmetic();
    program.host.as_mut().unwrap().features = vec!["avx4096".into()];
    assert!(
        refused(&program, "cpu")
            .to_string()
            .contains("need avx4096, which this processor has not")
    );
}

#[test]
fn a_kernel_that_is_not_in_the_object_is_named() {
    let mut program = arithmetic();
    program.plan.kernels[1].symbol = "subtract".into();
    assert!(
        refused(&program, "cpu")
            .to_string()
            .contains("the kernel subtract is not in the host object")
    );
    program.host.as_mut().unwrap().code.truncate(100);
    assert!(refused(&program, "cpu").to_string().contains("cannot be loaded"));
}

#[test]
fn unsound_plans_never_run() {
    type Damage = fn(&mut Compiled);
    let damages: [(Damage, &str); 8] = [
        (|p| p.plan.version = VERSION + 1, "format version"),
        (
            |p| p.plan.step[0] = launch("plus", 1, &[0, 2, 99]),
            "names buffer 99",
        ),
        (
            |p| p.plan.step[0] = launch("plus", 99, &[0, 2, 3]),
            "names kernel 99",
        ),
        (
            |p| p.plan.buffers[3].allocation = ir::plan::Allocation::Arena(128),
            "in an arena",
        ),
        (
            |p| p.plan.buffers[3].allocation = ir::plan::Allocation::Arena(u64::MAX - 63),
            "in an arena",
        ),
        (|p| p.plan.kernels[1].argument_bytes[0] = 1 << 40, "needs"),
        (|p| p.plan.kernels[1].tasks = u64::MAX, "more than can be counted"),
        (
            |p| p.plan.arena_bytes[0] = u64::MAX,
            "of memory and this machine has",
        ),
    ];
    for (damage, part) in damages {
        let mut program = arithmetic();
        damage(&mut program);
        let error = refused(&program, "cpu");
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn a_program_runs_only_on_devices_like_those_it_was_compiled_for() {
    let error = refused(&arithmetic(), "cpu:0,cpu:0");
    assert!(
        error
            .to_string()
            .contains("compiled to cpu and is to run on cpu:0,cpu:0, which runs cpu,cpu"),
        "{error}"
    );
    let mut program = arithmetic();
    program.plan.devices = vec![ir::plan::PTX.into()];
    assert!(
        refused(&program, "cpu")
            .to_string()
            .contains("compiled to ptx and is to run on cpu, which runs cpu; compile it for --devices cpu")
    );
}

#[test]
fn poison_shows_what_a_kernel_forgets_to_write() {
    let mut program = arithmetic();
    program.plan.kernels[1] = kernel("forgetful", 1000, &[4000, 4000]);
    program.plan.step[0] = launch("forgetful", 1, &[0, 3]);
    let mut executor = open(&program, "cpu").unwrap();
    executor.set_f32("a", &[4.0; 1000]).unwrap();
    executor.set_poison(false);
    executor.run().unwrap();
    assert_eq!(executor.get_f32("out").unwrap()[..2], [2.0, 0.0]);
    executor.set_poison(true);
    executor.run().unwrap();
    let out = executor.get_f32("out").unwrap();
    assert!(out[0] == 2.0 && out[1].is_nan(), "{:?}", &out[..2]);
}

#[test]
fn the_first_value_that_is_no_number_is_traced_to_its_launch() {
    let mut executor = open(&arithmetic(), "cpu").unwrap();
    executor.set_f32("a", &[1.0; 1000]).unwrap();
    assert_eq!(executor.first_non_finite().unwrap(), None);
    let mut a = [1.0; 1000];
    a[777] = -3.0;
    executor.set_f32("a", &a).unwrap();
    let found = executor.first_non_finite().unwrap().unwrap();
    assert_eq!(
        (found.launch.as_deref(), found.buffer.as_str()),
        (Some("root"), "out")
    );
    a[777] = f32::NAN;
    executor.set_f32("a", &a).unwrap();
    let found = executor.first_non_finite().unwrap().unwrap();
    assert_eq!((found.launch.as_deref(), found.buffer.as_str()), (None, "a"));
}

#[test]
fn a_profile_lists_every_launch_and_gives_the_same_result() {
    let mut executor = open(&arithmetic(), "cpu").unwrap();
    executor.initialise(0).unwrap();
    executor.set_f32("a", &[8.0; 1000]).unwrap();
    let times = executor.profile().unwrap();
    let labels: Vec<&str> = times.iter().map(|time| time.label.as_str()).collect();
    assert_eq!(labels, ["plus", "root"]);
    assert!(
        times
            .iter()
            .all(|time| time.ns > 0 && time.flops == 1000 && time.bytes > 0)
    );
    assert_eq!(executor.get_f32("out").unwrap(), [3.0; 1000]);
}

#[test]
fn parameters_are_copied_by_name() {
    let mut from = open(&arithmetic(), "cpu").unwrap();
    let mut program = arithmetic();
    // One that the other does not have stays as it is.
    program.plan.buffers.push(buffer(
        "other.bias",
        DType::F32,
        1,
        Role::Parameter {
            shape: vec![1],
            init: ir::plan::Init::Constant(5.0),
        },
    ));
    let mut to = open(&program, "cpu").unwrap();
    to.initialise(0).unwrap();
    from.set_f32("layer.weight", &[7.0; 1000]).unwrap();
    to.copy_parameters(&mut from).unwrap();
    assert_eq!(to.get_f32("layer.weight").unwrap(), [7.0; 1000]);
    assert_eq!(to.get_f32("other.bias").unwrap(), [5.0]);
}

#[test]
fn many_executors_live_side_by_side() {
    // Each has an object of its own under a name of its own; mixing them up would give the first one's result.
    let mut executors: Vec<Executor> = (0..20).map(|_| open(&arithmetic(), "cpu").unwrap()).collect();
    for (i, executor) in executors.iter_mut().enumerate() {
        executor.set_f32("layer.weight", &[i as f32; 1000]).unwrap();
        executor.run().unwrap();
    }
    for (i, executor) in executors.iter_mut().enumerate() {
        assert_eq!(executor.get_f32("out").unwrap()[0], (2.0 * i as f32).sqrt());
    }
}
