//! The batch of a convolution in micro-batches, one turn each, so that what lies between the nests of a form is small.
//!
//! For the second convolution of `models/alexnet.ir` at batch 128 the transformed tensors of the whole batch are 565 MB,
//! more than all that a training step otherwise keeps at that time. A turn takes as many samples as make them
//! [`TURN_BYTES`], which caches hold, too.

use super::Form;
use super::recognise::Convolution;
use super::rewrite::Product;
use crate::partition::region::restrict;
use ir::nest::{Affine, Expr, Loop, Nest, Source};
use ir::plan::Role;
use ir::program::{Group, KernelCall, Program, Value, ValueId};

/// Bytes of the transformed tensors of a turn.
static TURN_BYTES: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| std::env::var("TB").map_or(16 << 20, |v| v.parse::<usize>().unwrap() << 20));

/// A convolution over one micro-batch.
pub struct Turns {
    /// The kernel: what walks samples are windows.
    pub call: KernelCall,
    /// Its group.
    pub group: Group,
    /// Whether the turns add up to a result, rather than making a part of it each.
    pub sums: bool,
}

/// Cuts a convolution into turns, if that is worth it and the loop over its samples lets it.
pub fn cut(program: &mut Program, call: &KernelCall, conv: &Convolution, form: &Form) -> Option<Turns> {
    let nest = &call.nest;
    let samples = loop_over_samples(program, call, conv)?;
    let sums = conv.shared.contains(&samples);
    let count = nest.extents()[samples.0];
    let turns = turns(&Product::new(nest, conv, form), count, sums)?;
    let number = program.kernels.iter().filter_map(|call| call.group).map(|group| group.number);
    let group = Group {
        number: number.max().map_or(0, |last| last + 1),
        turns,
    };
    let mut part = KernelCall {
        nest: restrict(nest, samples, (0, count / turns)),
        ..call.clone()
    };
    for (operand, id) in part.operands.iter_mut().enumerate() {
        let mut reads = nest.reads.iter().filter(|read| read.source == Source::Operand(operand));
        if reads.any(|read| read.index.iter().any(|index| walks(&index.map, samples))) {
            *id = window(program, *id, turns);
        }
    }
    for (id, output) in part.results.iter_mut().zip(&mut part.nest.outputs) {
        if output.index.iter().any(|map| walks(map, samples)) {
            output.extents[0] /= turns;
            *id = window(program, *id, turns);
        }
    }
    Some(Turns { call: part, group, sums })
}

fn walks(map: &Affine, l: Loop) -> bool {
    map.coefficient(l) != 0
}

/// How many turns: the least that keep to [`TURN_BYTES`], or else one a sample.
fn turns(product: &Product, samples: usize, sums: bool) -> Option<usize> {
    let Product {
        batch,
        rows,
        columns,
        depth,
    } = *product;
    let elements = match sums {
        true => batch * depth * (rows + columns),
        false => batch * rows * (depth + columns),
    };
    let divisors = (1..=samples).filter(|turns| samples.is_multiple_of(*turns));
    let turns = divisors
        .filter(|turns| 4 * elements / turns <= *TURN_BYTES)
        .min()
        .unwrap_or(samples);
    (turns > 1).then_some(turns)
}

/// The loop that walks the first dimension of the image, if it walks nothing but first dimensions of values that can have
/// windows, from end to end, and nothing computes with it.
fn loop_over_samples(program: &Program, call: &KernelCall, conv: &Convolution) -> Option<Loop> {
    let nest = &call.nest;
    let first = &nest.reads[conv.image].index.first()?.map;
    let mut loops = conv.image_only.iter().chain(&conv.shared).copied();
    let l = loops.find(|l| *first == Affine::of(*l))?;
    let count = nest.extents()[l.0];
    let whole = |id: ValueId| {
        let value = program.value(id);
        let own = value.role == Role::Temporary && value.alias.is_none();
        own && value.extents.len() > 2 && value.extents[0] == count
    };
    let is_first = |(d, map): (usize, &Affine)| !walks(map, l) || (d == 0 && *map == Affine::of(l));
    let reads = nest.reads.iter().all(|read| {
        let Source::Operand(operand) = read.source else {
            return false;
        };
        let mut maps = read.index.iter().map(|index| &index.map);
        let walked = maps.clone().any(|map| walks(map, l));
        let plain = read.index.iter().all(|index| index.divisor == 1 || !walks(&index.map, l));
        let guarded = read.guards.iter().any(|guard| walks(&guard.map, l));
        maps.by_ref().enumerate().all(is_first)
            && plain
            && !guarded
            && (!walked || whole(call.operands[operand]))
    });
    let writes = nest.outputs.iter().zip(&call.results).all(|(output, &id)| {
        let walked = output.index.iter().any(|map| walks(map, l));
        output.index.iter().enumerate().all(is_first) && (!walked || whole(id))
    });
    let computes = expressions(nest).any(|value| value.try_map_affine(&mut |map| (!walks(map, l)).then(|| map.clone())).is_none());
    (reads && writes && !computes).then_some(l)
}

fn expressions(nest: &Nest) -> impl Iterator<Item = &Expr> {
    [&nest.body].into_iter().chain(nest.outputs.iter().map(|output| &output.value))
}

/// The window of so many turns over a value.
fn window(program: &mut Program, id: ValueId, turns: usize) -> ValueId {
    let whole = program.value(id).clone();
    let mut extents = whole.extents.clone();
    extents[0] /= turns;
    program.values.push(Value {
        extents,
        alias: Some(id),
        window: true,
        ..whole
    });
    ValueId(program.values.len() - 1)
}
