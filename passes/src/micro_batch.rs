//! Kernels in micro-batches: what it takes to run a kernel on one micro-batch after the other (see [`ir::program::MicroBatchLoop`]).

use crate::region::restrict;
use ir::nest::{Affine, Expr, Loop, Source};
use ir::plan::Role;
use ir::program::{Kernel, MicroBatchLoop, Program, Value, ValueId};
use std::collections::BTreeMap;

/// Bytes that the kernels of a micro-batch read and write, where nothing else is asked for. Measured on training and inference of
/// both AlexNets on two cores with 2 MB of cache each: below 32 MB what one core has written is still in its cache when
/// another reads it, which takes longer than from memory (8 to 10 % of inference); above 64 MB it is memory's time again
/// (5 % of training), and the arena grows.
pub const MICRO_BATCH_BYTES: u64 = 48 << 20;

/// Alignment of buffers in bytes.
const ALIGNMENT: usize = 64;

/// The least micro-batches, among those that share samples evenly, in which so many bytes become `micro_batch_bytes`, or else as many as
/// may be; `fits` says whether batch slices of so many samples are aligned.
pub fn count(samples: usize, bytes: u64, micro_batch_bytes: u64, fits: impl Fn(usize) -> bool) -> usize {
    let even =
        |&micro_batches: &usize| samples.is_multiple_of(micro_batches) && fits(samples / micro_batches);
    let fitting: Vec<usize> = (1..=samples).filter(even).collect();
    let mut enough = fitting
        .iter()
        .filter(|&&micro_batches| bytes / micro_batches as u64 <= micro_batch_bytes);
    enough.next().or(fitting.last()).copied().unwrap_or(1)
}

/// Whether batch slices of so many samples over these values are aligned however they are laid out: channels have no storage padding.
pub fn are_aligned(program: &Program, values: &[ValueId], samples: usize) -> bool {
    values.iter().all(|&id| {
        let value = program.value(id);
        (samples * value.extents[1] * value.dtype.bytes()).is_multiple_of(ALIGNMENT)
    })
}

/// A micro-batch loop of so many micro-batches that a program does not have yet.
pub fn new_micro_batch_loop(program: &Program, micro_batches: usize) -> MicroBatchLoop {
    let known = program.kernels.iter().filter_map(|call| call.micro_batch_loop);
    let last = known.map(|micro_batch_loop| micro_batch_loop.number).max();
    MicroBatchLoop {
        number: last.map_or(0, |last| last + 1),
        micro_batches,
    }
}

/// Whether a loop walks samples: nothing but the first dimension of images, from end to end, and nothing computes with it.
pub fn is_batch_loop(program: &Program, call: &Kernel, l: Loop) -> bool {
    let nest = &call.nest;
    let count = nest.extents()[l.0];
    let is_image = |id: ValueId| {
        let value = program.value(id);
        let own = value.role == Role::Temporary && value.alias.is_none();
        own && value.extents.len() > 2 && value.extents[0] == count
    };
    let first = |(d, map): (usize, &Affine)| !indexes(map, l) || (d == 0 && *map == Affine::of(l));
    let reads = nest.reads.iter().all(|read| {
        let Source::Operand(operand) = read.source else {
            return false;
        };
        let maps = || read.index.iter().map(|index| &index.map);
        let divided = read
            .index
            .iter()
            .any(|index| index.divisor != 1 && indexes(&index.map, l));
        let predicated = read.predicates.iter().any(|predicate| indexes(&predicate.map, l));
        let indexed = maps().any(|map| indexes(map, l));
        maps().enumerate().all(first)
            && !divided
            && !predicated
            && (!indexed || is_image(call.operands[operand]))
    });
    let writes = nest.outputs.iter().zip(&call.results).all(|(output, &id)| {
        let indexed = output.index.iter().any(|map| indexes(map, l));
        output.index.iter().enumerate().all(first) && (!indexed || is_image(id))
    });
    let mut values = [&nest.body]
        .into_iter()
        .chain(nest.outputs.iter().map(|output| &output.value));
    let without = |value: &Expr| {
        value
            .try_map_affine(&mut |map| (!indexes(map, l)).then(|| map.clone()))
            .is_some()
    };
    reads && writes && values.all(without)
}

fn indexes(map: &Affine, l: Loop) -> bool {
    map.coefficient(l) != 0
}

/// What a kernel reads and writes along a loop.
pub fn indexed(call: &Kernel, l: Loop) -> Vec<ValueId> {
    let nest = &call.nest;
    let reads = nest.reads.iter().filter_map(|read| {
        let Source::Operand(operand) = read.source else {
            return None;
        };
        let along = read.index.iter().any(|index| indexes(&index.map, l));
        along.then(|| call.operands[operand])
    });
    let results = nest.outputs.iter().zip(&call.results);
    let writes = results.filter(|(output, _)| output.index.iter().any(|map| indexes(map, l)));
    reads.chain(writes.map(|(_, &id)| id)).collect()
}

/// The kernel of one micro-batch. What it walks becomes a batch slice, the same for all kernels that share `windows`; what is in there
/// already as itself stays, and is expected to be as large as a micro-batch.
pub fn cut(
    program: &mut Program,
    call: &Kernel,
    l: Loop,
    micro_batches: usize,
    slices: &mut BTreeMap<ValueId, ValueId>,
) -> Kernel {
    let samples = call.nest.extents()[l.0] / micro_batches;
    let indexed = indexed(call, l);
    for &id in &indexed {
        slices
            .entry(id)
            .or_insert_with(|| batch_slice(program, id, samples));
    }
    let mut part = Kernel {
        nest: restrict(&call.nest, l, (0, samples)),
        ..call.clone()
    };
    for (output, id) in part.nest.outputs.iter_mut().zip(&call.results) {
        if indexed.contains(id) {
            output.extents[0] = samples;
        }
    }
    for id in part
        .operands
        .iter_mut()
        .chain(&mut part.results)
        .filter(|id| indexed.contains(id))
    {
        *id = slices[id];
    }
    part
}

fn batch_slice(program: &mut Program, id: ValueId, samples: usize) -> ValueId {
    let whole = program.value(id).clone();
    let mut extents = whole.extents.clone();
    extents[0] = samples;
    program.values.push(Value {
        extents,
        alias: Some(id),
        batch_slice: true,
        ..whole
    });
    ValueId(program.values.len() - 1)
}
