//! Conformance cases that an artifact takes along: every kernel alone, against exact references, and every program as a
//! whole, against the same model compiled for this processor.

use crate::compile::program_of;
use codegen::access::Operand;
use codegen::bridge::HostTarget;
use codegen::gpu::Precision;
use codegen::{Buffers, MicroBatchLaunches, Target};
use ir::Graph;
use ir::interpreter::evaluate_point;
use ir::nest::{Affine, uniform};
use ir::plan::{LEARNING_RATE, Mode, RANDOM_STATE, Role};
use ir::program::{Kernel, Program};
use passes::{DeviceKind, OptLevel, Options};
use runtime::check::{CaseRules, case, draw};
use runtime::kernel_check::{Fill, KernelCase, KernelCases, Samples};
use runtime::tensor::{Data, Tensor};
use runtime::{Case, Compiled, DeviceSpec, Error, Executor};
use std::collections::BTreeMap;

/// What f32 arithmetic may differ by, relative to the largest magnitude of a tensor: sums of products differ from exact
/// ones by a few units in the last place times the root of their length.
const F32: f64 = 2e-5;
/// Evaluations of a body that the references of one kernel may take, and samples at the most and at the least.
const EVALUATIONS: u64 = 1 << 20;
const SAMPLES: (u64, u64) = (8, 256);
/// Layers in a row multiply the relative error of one; so much is allowed to a whole program.
const LAYERS: f64 = 20.0;

/// What the rounding of factors adds: half a unit in the last place of the mantissa, or a whole one where tf32 is cut, for
/// each of two.
fn rounding(target: &Target) -> f64 {
    match target {
        Target::Host(_) | Target::Gpu(_, Precision::F32) => 0.0,
        Target::Gpu(gpu, Precision::Tf32) if gpu.has_warpgroups() => 2.0 / 1024.0,
        Target::Gpu(_, Precision::Tf32) => 2.0 / 2048.0,
        Target::Gpu(_, Precision::Bf16) => 2.0 / 256.0,
    }
}

/// The coarsest rounding of several devices.
fn coarsest(targets: &[Target]) -> f64 {
    targets.iter().map(rounding).fold(0.0, f64::max)
}

/// The kernels of a program, each alone, as they lie in an artifact.
pub fn kernels(
    program: &Program,
    calls: &[Vec<MicroBatchLaunches<usize>>],
    targets: &[Target],
) -> Result<Case, Error> {
    let name = format!("{}-kernels", runtime::artifact::mode_name(program.mode));
    kernel_cases(program, calls, targets).to_case(&name)
}

/// The kernels of a program, each alone.
pub fn kernel_cases(
    program: &Program,
    calls: &[Vec<MicroBatchLaunches<usize>>],
    targets: &[Target],
) -> KernelCases {
    let mode = program.mode;
    let all = program.kernels.iter().enumerate();
    let pairs: Vec<(usize, &Kernel)> = all.filter(|(_, call)| !program.is_transfer(call)).collect();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut kernels: Vec<Option<KernelCase>> = vec![None; program.kernels.len()];
    std::thread::scope(|scope| {
        let work = |worker: usize| {
            let own = pairs.iter().skip(worker).step_by(workers);
            let made = own.map(|&(i, call)| {
                (
                    i,
                    kernel(program, calls, i, call, &targets[program.device_of(call).0]),
                )
            });
            made.collect::<Vec<_>>()
        };
        let others: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        for worker in others {
            for (i, case) in worker.join().expect("references are evaluated to the end") {
                kernels[i] = Some(case);
            }
        }
    });
    let kernels = kernels.into_iter().flatten().collect();
    KernelCases { mode, kernels }
}

fn kernel(
    program: &Program,
    calls: &[Vec<MicroBatchLaunches<usize>>],
    number: usize,
    call: &Kernel,
    target: &Target,
) -> KernelCase {
    let operands: Vec<Operand> = call
        .operands
        .iter()
        .map(|&id| codegen::operand(program, id))
        .collect();
    let buffers = Buffers::new(program);
    // Inputs are drawn with both signs, unless that leads out of what an operation is defined on.
    let signed = samples(program, &buffers, number, call, &operands, false);
    let finite = |outputs: &[Samples]| outputs.iter().all(|o| o.expected.iter().all(|x| x.is_finite()));
    let (positive, outputs) = match finite(&signed) {
        true => (false, signed),
        false => (true, samples(program, &buffers, number, call, &operands, true)),
    };
    // Zeros around operands are written by launches of their own, those of the kernels that made them.
    let mut launches: Vec<usize> = vec![];
    for &id in &call.operands {
        let makes = |other: &Kernel| {
            let mut results = other.results.iter();
            results.any(|&result| program.slice_base(result) == program.slice_base(id))
        };
        let maker = (0..number).rev().find(|&other| makes(&program.kernels[other]));
        if program.value(id).layout.has_padding() {
            let micro_batches = maker.map_or(&[][..], |maker| &calls[maker]);
            launches.extend(micro_batches.iter().flat_map(|micro_batch| &micro_batch.paddings));
        }
    }
    launches.extend(&calls[number][0].launches);
    let mut inputs: Vec<Fill> = vec![];
    for &id in &call.operands {
        if inputs.iter().all(|fill| fill.buffer != buffers.of(id)) {
            inputs.push(fill(number, buffers.of(id), positive));
        }
    }
    let contracts = call.nest.contraction().is_some();
    KernelCase {
        label: call.label.clone(),
        launches,
        inputs,
        outputs,
        tolerance: F32 + if contracts { rounding(target) } else { 0.0 },
    }
}

fn fill(number: usize, buffer: usize, positive: bool) -> Fill {
    Fill {
        buffer,
        seed: (number as u64) << 32 | buffer as u64,
        positive,
    }
}

/// References at points spread over the parallel loops.
fn samples(
    program: &Program,
    buffers: &Buffers,
    number: usize,
    call: &Kernel,
    operands: &[Operand],
    positive: bool,
) -> Vec<Samples> {
    let nest = &call.nest;
    let points = nest.parallel_points();
    let terms: u64 = nest.reduction.iter().map(|&n| n as u64).product();
    let count = (EVALUATIONS / terms.max(1))
        .clamp(SAMPLES.0, SAMPLES.1)
        .min(points);
    let element = |operand: usize, index: &[usize]| {
        let value = &operands[operand];
        if index.iter().zip(&value.extents).any(|(i, extent)| i >= extent) {
            return None;
        }
        let offset = value.layout.strides(&value.extents).offset(index) as u64;
        let buffer = buffers.of(call.operands[operand]);
        Some(fill(number, buffer, positive).number(value.dtype, offset))
    };
    let results = call.results.iter();
    let mut samples: Vec<Samples> = results
        .map(|&id| Samples {
            buffer: buffers.of(id),
            at: vec![],
            expected: vec![],
        })
        .collect();
    for i in 0..count {
        // One point in each of as many equal stretches, the ends among them.
        let drawn = uniform(number as i64, 1, 0, i as u32);
        let stretch = points / count;
        let mut rest = match i {
            0 => 0,
            _ if i + 1 == count => points - 1,
            _ => i * stretch + (drawn * stretch as f64) as u64,
        };
        let mut point = vec![0; nest.parallel.len()];
        for (at, &extent) in point.iter_mut().zip(&nest.parallel).rev() {
            *at = (rest % extent as u64) as usize;
            rest /= extent as u64;
        }
        let values = evaluate_point(nest, &point, &element);
        let signed: Vec<i64> = point.iter().map(|&at| at as i64).collect();
        for (((sample, value), output), &id) in samples
            .iter_mut()
            .zip(values)
            .zip(&nest.outputs)
            .zip(&call.results)
        {
            if output.place(&signed).is_none() {
                continue;
            }
            let index: Vec<usize> = output
                .index
                .iter()
                .map(|map: &Affine| map.at(&signed) as usize)
                .collect();
            let operand = codegen::operand(program, id);
            sample
                .at
                .push(operand.layout.strides(&operand.extents).offset(&index) as u64);
            sample.expected.push(match operand.dtype {
                ir::DType::F32 => value,
                ir::DType::I64 | ir::DType::U8 => value.trunc(),
            });
        }
    }
    samples
}

/// A program as a whole: everything that is set is drawn, and what a run leaves behind is what the same graph, compiled for
/// this processor in f32, leaves behind.
pub fn whole(graph: &Graph, options: &Options, targets: &[Target]) -> Result<Case, Error> {
    let own = Options {
        machine: DeviceKind::Cpu,
        second: None,
        opt_level: match options.opt_level {
            OptLevel::None => OptLevel::None,
            _ => OptLevel::greedy(DeviceKind::Cpu),
        },
        ..*options
    };
    let program =
        passes::compile(graph, &own, &mut |_, _| {}).map_err(|error| Error::input(error.to_string()))?;
    let host = [Target::Host(HostTarget::native())];
    let compiled =
        codegen::compile(&program, &host, false).map_err(|error| Error::work(error.to_string()))?;
    let program: Compiled = program_of(compiled, &host, String::new());
    let mut executor = Executor::new(&program, &DeviceSpec::parse_list("cpu")?)?;
    let plan = program.plan.clone();
    let (mut set, mut drawn) = (BTreeMap::new(), BTreeMap::new());
    for (i, buffer) in plan.buffers.iter().enumerate() {
        let (Some(shape), false) = (buffer.role.shape(), matches!(buffer.role, Role::Output { .. })) else {
            continue;
        };
        // Parameters start as they do in training.
        if let Role::Parameter { .. } | Role::State { .. } = buffer.role {
            continue;
        }
        let data = match &buffer.name[..] {
            LEARNING_RATE => Data::F32(vec![0.01]),
            RANDOM_STATE => Data::I64(vec![7, 3]),
            name => {
                let seed = i as u64;
                executor.set(name, &draw(&plan, name, seed)?)?;
                drawn.insert(name.to_string(), seed);
                continue;
            }
        };
        set.insert(buffer.name.clone(), Tensor::new(shape.to_vec(), data)?);
    }
    executor.initialise(0)?;
    for (name, tensor) in &set {
        executor.set(name, tensor)?;
    }
    executor.run()?;
    // Outputs, and the smaller parameters, which a step has changed. Rounded factors turn some values about 0 to the other
    // side, where their gradients are others: then only outputs are compared.
    let exact = coarsest(targets) == 0.0;
    let small = |shape: &[usize]| shape.iter().product::<usize>() <= 1 << 14;
    let kept = executor.names(|role| match role {
        Role::Output { .. } => true,
        Role::Parameter { shape, .. } => exact && options.mode == Mode::Train && small(shape),
        _ => false,
    });
    let mut expect = BTreeMap::new();
    for name in kept {
        let tensor = executor.get(&name)?;
        expect.insert(name, tensor);
    }
    let rules = CaseRules {
        mode: options.mode,
        runs: 1,
        tolerance: LAYERS * (F32 + coarsest(targets)),
        initial_seed: Some(0),
        drawn,
    };
    case(runtime::artifact::mode_name(options.mode), &rules, &set, &expect)
}
