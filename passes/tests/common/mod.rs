//! What the tests of this crate share: tensors, nests and programs evaluated on them.

// Each test file uses its own part.
#![allow(dead_code)]

use ir::interpreter::{check_coverage, evaluate_nest};
use ir::nest::Nest;
use ir::plan::{Allocation, Region, Role};
use ir::program::{Kernel, Program, ValueId};
use ir::types::DType;
use std::collections::HashMap;
use std::ops::Range;

pub use ir::interpreter::Tensor;

/// The paper's update, with dropout.
pub const OPTIMIZER: passes::Optimizer = passes::Optimizer {
    momentum: 0.9,
    weight_decay: 0.0005,
    bias_lr_factor: 1.0,
    bias_weight_decay: 0.0,
    dropout: true,
};

/// Tensors by the number of their source.
pub type Tensors = HashMap<usize, Tensor>;

/// Panics where elements differ by more than 1e-9, relative to those larger than 1.
pub fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(
        (found.dtype, &found.extents),
        (expected.dtype, &expected.extents),
        "{what}"
    );
    for (i, (found, expected)) in found.data.iter().zip(&expected.data).enumerate() {
        let close = (found - expected).abs() <= 1e-9 * expected.abs().max(1.0);
        assert!(
            close || found == expected,
            "{what}: element {i} is {found} instead of {expected}"
        );
    }
}

/// A tensor of numbers between −1 and 1.
pub fn random(extents: &[usize], seed: u64) -> Tensor {
    let number = |i: usize| 2.0 * ir::nest::uniform(seed as i64, 5, 3, i as u32) - 1.0;
    Tensor::f32(extents, (0..extents.iter().product()).map(number).collect())
}

/// The results of a nest whose operands are numbered as the tensors are.
pub fn evaluate(nest: &Nest, tensors: &Tensors) -> Vec<Tensor> {
    let absent = Tensor::f32(&[], vec![f64::NAN]);
    let count = tensors.keys().max().map_or(0, |last| last + 1);
    let operands: Vec<&Tensor> = (0..count).map(|i| tensors.get(&i).unwrap_or(&absent)).collect();
    check_coverage(nest).expect("a nest writes each element once");
    evaluate_nest(nest, &operands).expect("a nest can be evaluated")
}

/// Tensors of the interface by name.
pub type Named = HashMap<String, Tensor>;

/// Runs a program once, every kernel in order, on the buffers it plans: values that share a buffer overwrite
/// each other, and what a kernel writes into the arena destroys whatever else lies there.
///
/// Returns the outputs, parameters and states afterwards.
pub fn run(program: &Program, given: &Named) -> Named {
    let mut buffers: HashMap<ValueId, Tensor> = HashMap::new();
    for (v, value) in program.values.iter().enumerate() {
        if matches!(
            value.role,
            Role::Input { .. } | Role::Parameter { .. } | Role::State { .. }
        ) {
            let tensor = given
                .get(&value.name)
                .unwrap_or_else(|| panic!("{} is not given", value.name));
            let part = value
                .shard
                .clone()
                .unwrap_or_else(|| Region::whole(&tensor.extents));
            let tensor = cut(tensor, &part);
            assert_eq!(tensor.extents, value.extents, "{}", value.name);
            buffers.insert(ValueId(v), tensor);
        }
    }
    for sequence in program.kernel_sequences() {
        for micro_batch in 0..sequence[0].micro_batches() {
            sequence
                .iter()
                .for_each(|kernel| run_kernel(program, &mut buffers, kernel, micro_batch));
        }
    }
    let leaves = |role: &Role| {
        matches!(
            role,
            Role::Output { .. } | Role::Parameter { .. } | Role::State { .. }
        )
    };
    let values = program
        .values
        .iter()
        .enumerate()
        .filter(|(_, value)| leaves(&value.role));
    let mut left = Named::new();
    for (v, value) in values {
        let shape = value.role.shape().expect("leaves are of the interface");
        let count = shape.iter().product();
        let whole = left
            .entry(value.name.clone())
            .or_insert_with(|| Tensor::new(value.dtype, shape, vec![f64::NAN; count]));
        let part = value.shard.clone().unwrap_or_else(|| Region::whole(shape));
        for (&x, at) in buffers[&ValueId(v)].data.iter().zip(elements(shape, &part)) {
            let copied = whole.data[at].is_nan() || whole.data[at] == x;
            assert!(copied, "copies of {} differ at {at}", value.name);
            whole.data[at] = x;
        }
    }
    left
}

/// Runs a micro-batch of one kernel.
fn run_kernel(
    program: &Program,
    buffers: &mut HashMap<ValueId, Tensor>,
    kernel: &Kernel,
    micro_batch: usize,
) {
    let slice = |id: ValueId| {
        let value = program.value(id);
        value.batch_slice.then(|| {
            let mut part = Region::whole(&value.extents);
            part.offset[0] = micro_batch * value.extents[0];
            part
        })
    };
    let mut operands = Tensors::new();
    for (i, &v) in kernel.operands.iter().enumerate() {
        let name = &program.value(v).name;
        let alive = buffers.get(&program.owner(v));
        let whole = alive.unwrap_or_else(|| panic!("{}: {name} is gone", kernel.label));
        operands.insert(
            i,
            slice(v).map_or_else(|| whole.clone(), |part| cut(whole, &part)),
        );
    }
    let results = evaluate(&kernel.nest, &operands);
    for (output, &result) in kernel.results.iter().enumerate() {
        let owner = program.owner(result);
        for (i, &operand) in kernel.operands.iter().enumerate() {
            let (read, label) = (program.owner(operand), &kernel.label);
            if read == owner {
                assert_elementwise(kernel, i, output, &operands, &results);
            } else if program.value(owner).device == program.value(read).device {
                let apart = !overlap(
                    &bytes(program, result, micro_batch),
                    &bytes(program, operand, micro_batch),
                );
                assert!(apart, "{label} overwrites what it reads");
            }
        }
    }
    for (tensor, &result) in results.into_iter().zip(&kernel.results) {
        let owner = program.owner(result);
        let Some(part) = slice(result) else {
            buffers.retain(|&other, _| {
                let here = program.value(owner).device == program.value(other).device;
                other != owner && !(here && overlap(&bytes(program, owner, 0), &bytes(program, other, 0)))
            });
            buffers.insert(owner, tensor);
            continue;
        };
        buffers.retain(|&other, _| micro_batch > 0 || other != owner);
        for (&other, tensor) in buffers.iter_mut().filter(|(other, _)| **other != owner) {
            destroy(program, other, tensor, result, micro_batch);
        }
        let value = program.value(owner);
        let count = value.extents.iter().product();
        let whole = buffers
            .entry(owner)
            .or_insert_with(|| Tensor::new(value.dtype, &value.extents, vec![f64::NAN; count]));
        for (x, at) in tensor.data.into_iter().zip(elements(&value.extents, &part)) {
            whole.data[at] = x;
        }
    }
}

/// The places of a part's elements in its tensor, row-major.
fn elements(shape: &[usize], part: &Region) -> Vec<usize> {
    let mut places = vec![0];
    for ((&extent, &from), &count) in shape.iter().zip(&part.offset).zip(&part.shape) {
        let along = |place: usize| (from..from + count).map(move |i| place * extent + i);
        places = places.into_iter().flat_map(along).collect();
    }
    places
}

/// A part of a tensor.
fn cut(tensor: &Tensor, part: &Region) -> Tensor {
    let places = elements(&tensor.extents, part);
    let data = places.into_iter().map(|at| tensor.data[at]).collect();
    Tensor::new(tensor.dtype, &part.shape, data)
}

/// Checks that a kernel may overwrite an operand with an output: no element depends on another of the operand.
fn assert_elementwise(
    kernel: &Kernel,
    operand: usize,
    output: usize,
    operands: &Tensors,
    results: &[Tensor],
) {
    let mut changed = operands.clone();
    let is_changed = |e: usize| ir::nest::mix(e as u32).is_multiple_of(2);
    let data = &mut changed.get_mut(&operand).expect("the operand is there").data;
    data.iter_mut()
        .enumerate()
        .filter(|(e, _)| is_changed(*e))
        .for_each(|(_, x)| *x += 1.0);
    let (before, after) = (
        &results[output].data,
        &evaluate(&kernel.nest, &changed)[output].data,
    );
    assert_eq!(before.len(), operands[&operand].data.len());
    let same = (0..before.len())
        .filter(|&e| !is_changed(e))
        .all(|e| before[e] == after[e]);
    assert!(
        same,
        "{} overwrites elements of operand {operand} that it still needs",
        kernel.label
    );
}

/// Where a value lies in its device's arena, if it does: of a batch slice, at a micro-batch.
fn bytes(program: &Program, id: ValueId, micro_batch: usize) -> Option<Range<u64>> {
    let value = program.value(id);
    let bytes = value.bytes();
    match program.value(program.owner(id)).allocation {
        Allocation::Arena(from) => {
            let from = from
                + if value.batch_slice {
                    micro_batch as u64 * bytes
                } else {
                    0
                };
            Some(from..from + bytes)
        }
        Allocation::Dedicated => None,
    }
}

fn overlap(a: &Option<Range<u64>>, b: &Option<Range<u64>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
        _ => false,
    }
}

/// Makes the samples of another value useless that lie where a batch slice was written.
fn destroy(program: &Program, other: ValueId, tensor: &mut Tensor, slice: ValueId, micro_batch: usize) {
    let value = program.value(other);
    let (Some(whole), written) = (bytes(program, other, 0), bytes(program, slice, micro_batch)) else {
        return;
    };
    if value.device != program.value(slice).device || !overlap(&Some(whole.clone()), &written) {
        return;
    }
    let in_order = value.layout.order.first() == Some(&0) && value.layout.padding[0] == (0, 0);
    let samples = if in_order { value.extents[0] } else { 1 };
    let each = (whole.end - whole.start) / samples as u64;
    let elements = tensor.data.len() / samples;
    for (sample, data) in tensor.data.chunks_mut(elements).enumerate() {
        let from = whole.start + sample as u64 * each;
        if overlap(&Some(from..from + each), &written) {
            data.fill(f64::NAN);
        }
    }
}

/// Numbers for whatever a program wants to be given: labels and other integers below `classes`, a learning rate
/// of 0.1.
pub fn given(program: &Program, classes: usize, seed: u64) -> Named {
    let mut given = Named::new();
    for (i, value) in program.values.iter().enumerate() {
        let mut tensor = random(&value.extents, seed.wrapping_mul(1000) + i as u64);
        tensor.dtype = value.dtype;
        match &value.name[..] {
            ir::plan::RANDOM_STATE => tensor.data = vec![seed as f64, 3.0],
            ir::plan::LEARNING_RATE => tensor.data = vec![0.1],
            _ if value.dtype != DType::F32 => {
                tensor
                    .data
                    .iter_mut()
                    .for_each(|x| *x = ((*x + 1.0) / 2.0 * classes as f64).floor());
            }
            _ => {}
        }
        given.insert(value.name.clone(), tensor);
    }
    given
}

/// Compares everything that two runs left behind.
pub fn assert_all_close(found: &Named, expected: &Named, what: &str) {
    let names = |named: &Named| {
        let mut names: Vec<String> = named.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(found), names(expected), "{what}");
    for (name, tensor) in expected {
        assert_close(&found[name], tensor, &format!("{what}: {name}"));
    }
}

/// Panics unless the text of a program says all of it: what is read from it is the same program.
pub fn assert_read_back(program: &Program, what: &str) {
    let text = ir::program::text::print(program);
    let again = ir::program::text::parse(&text, "program")
        .unwrap_or_else(|errors| panic!("{what}\n{}", ir::text::render(&errors, &text, false)));
    assert!(again == *program, "{what}: another program is read from\n{text}");
}
