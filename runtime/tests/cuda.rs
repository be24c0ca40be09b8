//! The device `cuda` where there is no GPU: what is said without a driver, and what is asked of a driver that only pretends
//! (`support/fake_cuda.c`): which calls in which order, and that every byte arrives.

mod support;

use ir::DType;
use ir::plan::{self, Allocation, Buffer, Command, CompiledKernel, Mode, Plan, Role};
use runtime::check::{CaseRules, case};
use runtime::{Artifact, Compiled, Ptx, Tensor};
use std::process;
use support::driver::{Driver, text};

const COUNT: usize = 64;
/// More than what passes through one staging buffer, so that several take turns.
const LARGE: usize = 5 << 20;

/// y = 2 x of `count` elements by `kernel`, with a case of three runs.
fn artifact(kernel: &str, count: usize, targets: &[&str]) -> Artifact {
    let buffer = |name: &str, role| Buffer {
        name: name.into(),
        dtype: DType::F32,
        bytes: 4 * count as u64,
        device: 0,
        role,
        allocation: Allocation::Dedicated,
        shard: None,
    };
    let shape = vec![count];
    let plan = Plan {
        version: plan::VERSION,
        model: "tiny".into(),
        mode: Mode::Infer,
        batch: count,
        devices: vec![plan::PTX.into()],
        arena_bytes: vec![0],
        buffers: vec![
            buffer("x", Role::Input { shape: shape.clone() }),
            buffer("y", Role::Output { shape: shape.clone() }),
        ],
        kernels: vec![CompiledKernel {
            symbol: kernel.into(),
            tasks: count as u64 / 32,
            threads: 32,
            shared_bytes: 100_000,
            operands: 1,
            argument_bytes: vec![4 * count as u64; 2],
            flops: 0,
            bytes: 0,
        }],
        prepack: vec![],
        step: vec![Command::kernel("layer1", 0, 0, vec![0, 1])],
        flops: 1,
    };
    let x: Vec<f32> = (0..count).map(|i| (i % 1009) as f32 - 500.0).collect();
    let y: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
    let rules = CaseRules {
        mode: Mode::Infer,
        runs: 3,
        tolerance: 0.0,
        initial_seed: None,
        drawn: Default::default(),
    };
    let tensor = |data: Vec<f32>| Tensor::f32(shape.clone(), data).unwrap();
    let pairs = |name: &str, tensor: Tensor| [(name.to_string(), tensor)].into();
    Artifact {
        name: "tiny".into(),
        model: "# no model\n".into(),
        recipe: None,
        cases: vec![case("doubled", &rules, &pairs("x", tensor(x)), &pairs("y", tensor(y))).unwrap()],
        programs: vec![Compiled {
            plan,
            graph: String::new(),
            precision: "f32".into(),
            predicted_ms: None,
            host: None,
            ptx: targets
                .iter()
                .map(|&target| Ptx {
                    target: target.into(),
                    text: text(target, [("scale", 2), ("fault", 2)]),
                })
                .collect(),
        }],
    }
}

#[test]
fn without_a_driver_it_is_said_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    artifact("scale", COUNT, &["sm_80"])
        .write(&folder.path().join("m.alx"))
        .unwrap();
    let output = process::Command::new(env!("CARGO_BIN_EXE_alexrun"))
        .args(["check", "m.alx", "--devices", "cuda:0"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.contains("libcuda.so") {
        println!("skipped: this machine has a driver");
        return;
    }
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no NVIDIA driver") && said.contains("--devices sim"),
        "{said}"
    );
}

#[test]
fn a_sequence_runs_by_kernels_then_is_recorded_and_replayed() {
    let place = Driver::with(&artifact("scale", COUNT, &["sm_80"]));
    let output = place.check("cuda:0", &[]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = std::fs::read_to_string(place.log()).unwrap();
    let expected = "module sm_80\nattribute 100000\nallocate\nallocate\nwrite\nlaunch scale\nwait\ncapture scale\ngraph\n\
                    wait\ngraph\nwait\nread\nfree\nfree\nrelease\n";
    assert_eq!(log, expected);
}

#[test]
fn every_byte_arrives_through_staging() {
    let place = Driver::with(&artifact("scale", LARGE, &["sm_90"]));
    let output = place.check("cuda:0", &[]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = std::fs::read_to_string(place.log()).unwrap();
    let times = |what: &str| log.lines().filter(|line| *line == what).count();
    assert_eq!((times("write"), times("read")), (3, 3), "{log}");
}

#[test]
fn the_best_text_for_the_gpu_is_taken() {
    let place = Driver::with(&artifact("scale", COUNT, &["sm_100", "sm_80", "sm_90"]));
    for (capability, loaded) in [
        ("80", "module sm_80"),
        ("89", "module sm_80"),
        ("90", "module sm_90"),
    ] {
        let _ = std::fs::remove_file(place.log());
        let output = place.check("cuda:0", &[("FAKE_CUDA_CAPABILITY", capability)]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let log = std::fs::read_to_string(place.log()).unwrap();
        assert!(log.starts_with(loaded), "{capability}: {log}");
    }
    // Of two for 9.0, the one that is for it alone.
    let both = Driver::with(&artifact("scale", COUNT, &["sm_90", "sm_90a", "sm_80"]));
    for (capability, loaded) in [("90", "module sm_90a"), ("100", "module sm_90\n")] {
        let _ = std::fs::remove_file(both.log());
        let output = both.check("cuda:0", &[("FAKE_CUDA_CAPABILITY", capability)]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let log = std::fs::read_to_string(both.log()).unwrap();
        assert!(log.starts_with(loaded), "{capability}: {log}");
    }
    // sm_90a runs on 9.0 alone.
    let exact = Driver::with(&artifact("scale", COUNT, &["sm_90a"]));
    assert!(exact.check("cuda:0", &[]).status.success());
    exact.refused(
        2,
        "cuda:0",
        &[("FAKE_CUDA_CAPABILITY", "100")],
        &["compute capability 10.0", "sm_90a", "--target"],
    );
}

#[test]
fn drivers_and_gpus_that_will_not_do_are_refused() {
    let place = Driver::with(&artifact("scale", COUNT, &["sm_80"]));
    place.refused(
        2,
        "cuda:0",
        &[("FAKE_CUDA_VERSION", "11040")],
        &["too old", "CUDA 11.4", "CUDA 12.0 is needed", "--devices sim"],
    );
    place.refused(2, "cuda:3", &[], &["cuda:3", "one GPU, cuda:0"]);
    place.refused(
        2,
        "cuda:0",
        &[("FAKE_CUDA_CAPABILITY", "75")],
        &["Imagined GPU", "compute capability 7.5", "8.0 and later"],
    );
    place.refused(
        1,
        "cuda:0",
        &[("FAKE_CUDA_JIT", "1")],
        &[
            "ptxas fatal in scale: imagined",
            "CUDA_ERROR_INVALID_PTX",
            "PTX 8.0",
            "CUDA 12.4",
        ],
    );
    place.refused(
        1,
        "cuda:0",
        &[("FAKE_CUDA_FREE", "300")],
        &["tiny at batch 64 needs 1 MiB", "cuda:0 has 0 MiB", "37 fits"],
    );
}

#[test]
fn a_kernel_that_faults_is_named_and_the_process_ends_in_order() {
    let place = Driver::with(&artifact("fault", COUNT, &["sm_80"]));
    place.refused(
        1,
        "cuda:0",
        &[],
        &[
            "layer1",
            "kernel fault",
            "illegal memory access",
            "CUDA_ERROR_ILLEGAL_ADDRESS",
        ],
    );
    let log = std::fs::read_to_string(place.log()).unwrap();
    assert!(log.ends_with("free\nfree\nrelease\n"), "{log}");
}
