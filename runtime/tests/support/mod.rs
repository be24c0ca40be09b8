//! Small artifacts whose kernels are written in C: this crate's tests need no compiler of ours.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod driver;
pub mod feeds;
pub mod runs;

use ir::DType;
use ir::plan::{self, Allocation, Buffer, Command, CompiledKernel, Init, Mode, Plan, Role};
use runtime::{Artifact, Compiled, HostObject};
use std::process;

/// The host object of `kernels.c`. Whoever builds Rust has `cc`, because it links with it.
pub fn object(batch: usize, features: usize, classes: usize) -> HostObject {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("kernels.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/kernels.c");
    let status = process::Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(&out)
        .arg(source)
        .arg("-lm")
        .args(
            [("BATCH", batch), ("FEATURES", features), ("CLASSES", classes)]
                .map(|(n, v)| format!("-D{n}={v}")),
        )
        .status()
        .expect("cc runs");
    assert!(status.success());
    let arch = runtime::device::cpu::HOST_ARCH.to_string();
    HostObject {
        arch,
        features: Vec::new(),
        code: std::fs::read(out).unwrap(),
    }
}

pub fn buffer(name: &str, dtype: DType, count: usize, role: Role) -> Buffer {
    let bytes = (count * dtype.bytes()) as u64;
    Buffer {
        name: name.into(),
        dtype,
        bytes,
        device: 0,
        role,
        allocation: Allocation::Dedicated,
        shard: None,
    }
}

pub fn input(name: &str, dtype: DType, shape: &[usize]) -> Buffer {
    buffer(
        name,
        dtype,
        shape.iter().product(),
        Role::Input { shape: shape.into() },
    )
}

pub fn output(name: &str, shape: &[usize]) -> Buffer {
    buffer(
        name,
        DType::F32,
        shape.iter().product(),
        Role::Output { shape: shape.into() },
    )
}

pub fn parameter(name: &str, shape: &[usize], init: Init) -> Buffer {
    buffer(
        name,
        DType::F32,
        shape.iter().product(),
        Role::Parameter {
            shape: shape.into(),
            init,
        },
    )
}

pub fn kernel(symbol: &str, tasks: usize, argument_bytes: &[usize]) -> CompiledKernel {
    let argument_bytes: Vec<u64> = argument_bytes.iter().map(|&bytes| bytes as u64).collect();
    let bytes = argument_bytes.iter().sum();
    CompiledKernel {
        symbol: symbol.into(),
        tasks: tasks as u64,
        threads: 0,
        shared_bytes: 0,
        argument_bytes,
        operands: 0,
        flops: tasks as u64,
        bytes,
    }
}

pub fn launch(label: &str, kernel: usize, arguments: &[usize]) -> Command {
    Command::kernel(label, 0, kernel, arguments.into())
}

pub fn plan(
    mode: Mode,
    batch: usize,
    buffers: Vec<Buffer>,
    kernels: Vec<CompiledKernel>,
    step: Vec<Command>,
) -> Plan {
    Plan {
        version: plan::VERSION,
        model: "tiny".into(),
        mode,
        batch,
        devices: vec!["cpu".into()],
        arena_bytes: vec![0],
        buffers,
        kernels,
        prepack: Vec::new(),
        step,
        flops: 1000,
    }
}

pub fn compiled(plan: Plan, host: HostObject) -> Compiled {
    Compiled {
        plan,
        graph: "# the optimised graph\n".into(),
        precision: "f32".into(),
        predicted_ms: None,
        host: Some(host),
        ptx: vec![],
    }
}

/// `sum = a + 2·weight`, where `2·weight` is prepared, then `out = sqrt(sum)`; 1000 elements.
pub fn arithmetic() -> Compiled {
    const N: usize = 1000;
    let mut sum = buffer("sum", DType::F32, N, Role::Temporary);
    sum.allocation = Allocation::Arena(64);
    let buffers = vec![
        input("a", DType::F32, &[10, 100]),
        parameter("layer.weight", &[N], Init::Constant(0.5)),
        buffer("packed", DType::F32, N, Role::Packed),
        sum,
        output("out", &[N]),
    ];
    let kernels = vec![
        kernel("twice", N, &[4 * N, 4 * N]),
        kernel("add", N, &[4 * N, 4 * N, 4 * N]),
        kernel("root", N, &[4 * N, 4 * N]),
    ];
    let step = vec![launch("plus", 1, &[0, 2, 3]), launch("root", 2, &[3, 4])];
    let mut plan = plan(Mode::Infer, 10, buffers, kernels, step);
    plan.prepack = vec![launch("pack layer.weight", 0, &[1, 2])];
    plan.arena_bytes = vec![64 + 4 * N as u64];
    compiled(plan, object(1, 1, 1))
}

/// A linear classifier that trains at `batch` and infers at `infer_batch`, on images `[3, side, side]`.
pub fn classifier(batch: usize, infer_batch: usize, side: usize, classes: usize) -> Artifact {
    let features = 3 * side * side;
    let shared = |batch: usize| {
        vec![
            input("images", DType::F32, &[batch, 3, side, side]),
            parameter("fc.weight", &[classes, features], Init::Normal(0.01)),
            parameter("fc.bias", &[classes], Init::Constant(0.0)),
            output("logits", &[batch, classes]),
        ]
    };
    let (images, weights, scores) = (4 * batch * features, 4 * classes * features, 4 * batch * classes);
    let mut buffers = shared(batch);
    let init = Init::Constant(0.0);
    buffers.extend([
        input(plan::LABELS, DType::I64, &[batch]),
        input(plan::RANDOM_STATE, DType::I64, &[2]),
        input(plan::LEARNING_RATE, DType::F32, &[]),
        output(plan::LOSS, &[]),
        buffer("gradient", DType::F32, batch * classes, Role::Temporary),
        buffer(
            "fc.weight.momentum",
            DType::F32,
            classes * features,
            Role::State {
                shape: vec![classes, features],
                init,
            },
        ),
    ]);
    let kernels = vec![
        kernel("logits", batch, &[images, weights, 4 * classes, scores]),
        kernel("loss", 1, &[scores, 8 * batch, 16, scores, 4]),
        kernel(
            "update",
            classes,
            &[images, scores, 4, weights, weights, 4 * classes],
        ),
    ];
    let step = vec![
        launch("fc", 0, &[0, 1, 2, 3]),
        launch("loss", 1, &[3, 4, 5, 8, 7]),
        launch("update fc", 2, &[0, 8, 6, 1, 9, 2]),
    ];
    let train = plan(Mode::Train, batch, buffers, kernels, step);
    let (images, scores) = (4 * infer_batch * features, 4 * infer_batch * classes);
    let kernels = vec![kernel(
        "logits",
        infer_batch,
        &[images, weights, 4 * classes, scores],
    )];
    let infer = plan(
        Mode::Infer,
        infer_batch,
        shared(infer_batch),
        kernels,
        vec![launch("fc", 0, &[0, 1, 2, 3])],
    );
    Artifact {
        name: "tiny".into(),
        model: "model tiny\n".into(),
        recipe: None,
        programs: vec![
            compiled(train, object(batch, features, classes)),
            compiled(infer, object(infer_batch, features, classes)),
        ],
        cases: Vec::new(),
    }
}
