//! Kernels in turns: what it takes to run a kernel on one micro-batch after the other (see [`ir::program::Group`]).

use crate::partition::region::restrict;
use ir::nest::{Affine, Expr, Loop, Source};
use ir::plan::Role;
use ir::program::{Group, KernelCall, Program, Value, ValueId};
use std::collections::BTreeMap;

/// Bytes that the kernels of a turn read and write, where nothing else is asked for. Measured on training and inference of
/// both AlexNets on two cores with 2 MB of cache each: below 32 MB what one core has written is still in its cache when
/// another reads it, which takes longer than from memory (8 to 10 % of inference); above 64 MB it is memory's time again
/// (5 % of training), and the arena grows.
pub const TURN_BYTES: u64 = 48 << 20;

/// Alignment of buffers in bytes.
const ALIGNMENT: usize = 64;

/// The least turns, among those that share samples evenly, in which so many bytes become `turn_bytes`, or else as many as
/// may be; `fits` says whether windows of so many samples are aligned.
pub fn count(samples: usize, bytes: u64, turn_bytes: u64, fits: impl Fn(usize) -> bool) -> usize {
    let even = |&turns: &usize| samples.is_multiple_of(turns) && fits(samples / turns);
    let fitting: Vec<usize> = (1..=samples).filter(even).collect();
    let mut enough = fitting
        .iter()
        .filter(|&&turns| bytes / turns as u64 <= turn_bytes);
    enough.next().or(fitting.last()).copied().unwrap_or(1)
}

/// Whether windows of so many samples over these values are aligned however they are laid out: channels have no halo.
pub fn are_aligned(program: &Program, values: &[ValueId], samples: usize) -> bool {
    values.iter().all(|&id| {
        let value = program.value(id);
        (samples * value.extents[1] * value.dtype.bytes()).is_multiple_of(ALIGNMENT)
    })
}

/// A group of so many turns that a program does not have yet.
pub fn new_group(program: &Program, turns: usize) -> Group {
    let known = program.kernels.iter().filter_map(|call| call.group);
    let last = known.map(|group| group.number).max();
    Group {
        number: last.map_or(0, |last| last + 1),
        turns,
    }
}

/// Whether a loop walks samples: nothing but the first dimension of images, from end to end, and nothing computes with it.
pub fn walks_samples(program: &Program, call: &KernelCall, l: Loop) -> bool {
    let nest = &call.nest;
    let count = nest.extents()[l.0];
    let is_image = |id: ValueId| {
        let value = program.value(id);
        let own = value.role == Role::Temporary && value.alias.is_none();
        own && value.extents.len() > 2 && value.extents[0] == count
    };
    let first = |(d, map): (usize, &Affine)| !walks(map, l) || (d == 0 && *map == Affine::of(l));
    let reads = nest.reads.iter().all(|read| {
        let Source::Operand(operand) = read.source else {
            return false;
        };
        let maps = || read.index.iter().map(|index| &index.map);
        let divided = read
            .index
            .iter()
            .any(|index| index.divisor != 1 && walks(&index.map, l));
        let guarded = read.guards.iter().any(|guard| walks(&guard.map, l));
        let walked = maps().any(|map| walks(map, l));
        maps().enumerate().all(first) && !divided && !guarded && (!walked || is_image(call.operands[operand]))
    });
    let writes = nest.outputs.iter().zip(&call.results).all(|(output, &id)| {
        let walked = output.index.iter().any(|map| walks(map, l));
        output.index.iter().enumerate().all(first) && (!walked || is_image(id))
    });
    let mut values = [&nest.body]
        .into_iter()
        .chain(nest.outputs.iter().map(|output| &output.value));
    let without = |value: &Expr| {
        value
            .try_map_affine(&mut |map| (!walks(map, l)).then(|| map.clone()))
            .is_some()
    };
    reads && writes && values.all(without)
}

fn walks(map: &Affine, l: Loop) -> bool {
    map.coefficient(l) != 0
}

/// What a kernel reads and writes along a loop.
pub fn walked(call: &KernelCall, l: Loop) -> Vec<ValueId> {
    let nest = &call.nest;
    let reads = nest.reads.iter().filter_map(|read| {
        let Source::Operand(operand) = read.source else {
            return None;
        };
        let along = read.index.iter().any(|index| walks(&index.map, l));
        along.then(|| call.operands[operand])
    });
    let results = nest.outputs.iter().zip(&call.results);
    let writes = results.filter(|(output, _)| output.index.iter().any(|map| walks(map, l)));
    reads.chain(writes.map(|(_, &id)| id)).collect()
}

/// The kernel of one turn. What it walks becomes a window, the same for all kernels that share `windows`; what is in there
/// already as itself stays, and is expected to be as large as a turn.
pub fn cut(
    program: &mut Program,
    call: &KernelCall,
    l: Loop,
    turns: usize,
    windows: &mut BTreeMap<ValueId, ValueId>,
) -> KernelCall {
    let samples = call.nest.extents()[l.0] / turns;
    let walked = walked(call, l);
    for &id in &walked {
        windows.entry(id).or_insert_with(|| window(program, id, samples));
    }
    let mut part = KernelCall {
        nest: restrict(&call.nest, l, (0, samples)),
        ..call.clone()
    };
    for (output, id) in part.nest.outputs.iter_mut().zip(&call.results) {
        if walked.contains(id) {
            output.extents[0] = samples;
        }
    }
    for id in part
        .operands
        .iter_mut()
        .chain(&mut part.results)
        .filter(|id| walked.contains(id))
    {
        *id = windows[id];
    }
    part
}

fn window(program: &mut Program, id: ValueId, samples: usize) -> ValueId {
    let whole = program.value(id).clone();
    let mut extents = whole.extents.clone();
    extents[0] = samples;
    program.values.push(Value {
        extents,
        alias: Some(id),
        window: true,
        ..whole
    });
    ValueId(program.values.len() - 1)
}
