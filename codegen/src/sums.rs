//! Sums of many terms on a CPU: short chains of additions in f32, whose results are added in f64.
//!
//! The rounding error of a chain of `n` additions is up to `(n − 1)·2⁻²⁴` of the sum of magnitudes (Higham, "Accuracy and
//! Stability of Numerical Algorithms", section 4.2). A chain of [`CHAIN`] terms therefore stays below 9e-7, and f64
//! additions of up to 2²⁰ chains' results add nothing that an f32 shows. A chain begins at zero, so that a core computes
//! several of them at once.
//!
//! Where points of the result do not fill vectors with neighbours in memory, lanes run along a loop of the reduction.

use crate::emit::{Point, Scope};
use crate::kernel::FlatNest;
use crate::mlir::{Memory, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::Loop;

/// Terms of one chain of f32 additions.
pub const CHAIN: usize = 16;

/// Whether a long sum can have lanes along a reduction loop: all reads of its body are the same element for all lanes or
/// neighbours in memory.
pub fn has_lanes_along(resolved: &FlatNest, l: Loop, width: usize) -> bool {
    let steps: Vec<Option<i64>> = resolved.body_reads().iter().map(|read| read.step(l)).collect();
    let loops = resolved.reduction_loops();
    let terms: usize = loops.iter().map(|&l| resolved.extent(l)).product();
    terms > CHAIN
        && resolved.extent(l) >= width
        && steps.iter().all(|step| matches!(step, Some(0 | 1)))
        && steps.contains(&Some(1))
}

/// Writes the sum of a nest's body at a point, or at a vector of points. `along` is a reduction loop for lanes of a width,
/// for a single point.
pub fn sum(resolved: &FlatNest, math: &mut Math, point: &Point, along: Option<(Loop, usize)>) -> Value {
    let loops = resolved.reduction_loops();
    let terms: usize = loops.iter().map(|&l| resolved.extent(l)).product();
    // A thread of a GPU has few terms: long sums are shared by a block there.
    if terms <= CHAIN || math.body.memory == Memory::Gpu {
        let axes = axes(resolved, math, &loops);
        return chain(resolved, math, point, &axes);
    }
    let total = match along {
        None => {
            let axes = axes(resolved, math, &loops);
            let zero = math.constant_f64(0.0);
            blocks(resolved, math, point, &axes, zero)
        }
        Some((along, width)) => sum_along(resolved, math, point, &loops, (along, width)),
    };
    math.narrow(total)
}

/// The sum at a single point with lanes along a reduction loop, as f64. What does not fill a vector is added one by one.
fn sum_along(
    resolved: &FlatNest,
    math: &mut Math,
    point: &Point,
    loops: &[Loop],
    (along, width): (Loop, usize),
) -> Value {
    let extent = resolved.extent(along);
    let whole = extent / width * width;
    let others: Vec<Loop> = loops.iter().copied().filter(|&l| l != along).collect();
    let mut all = axes(resolved, math, &others);
    let low = math.body.index(0);
    all.push(Axis {
        l: along,
        low,
        count: whole / width,
        step: width as i64,
    });
    let lanes = Lanes { width, mask: None };
    let mut vector = Math {
        body: math.body,
        lanes,
    };
    let in_lanes = Point {
        vector: Some(along),
        ..point.clone()
    };
    let zero = vector.constant_f64(0.0);
    let sums = blocks(resolved, &mut vector, &in_lanes, &all, zero);
    let ty = lanes.of("f64");
    let total = math
        .body
        .op(format_args!("vector.reduction <add>, {sums} : {ty} into f64"));
    if whole == extent {
        return total;
    }
    let low = math.body.index(whole as i64);
    *all.last_mut().expect("the loop along the lanes is the last") = Axis {
        l: along,
        low,
        count: extent - whole,
        step: 1,
    };
    blocks(resolved, math, point, &all, total)
}

/// Iterations of a loop: `count` of them from `low` in steps.
#[derive(Clone, Copy)]
struct Axis {
    l: Loop,
    low: Value,
    count: usize,
    step: i64,
}

/// All iterations of loops.
fn axes(resolved: &FlatNest, math: &mut Math, loops: &[Loop]) -> Vec<Axis> {
    let low = math.body.index(0);
    let axis = |&l: &Loop| Axis {
        l,
        low,
        count: resolved.extent(l),
        step: 1,
    };
    loops.iter().map(axis).collect()
}

fn terms(axes: &[Axis]) -> usize {
    axes.iter().map(|axis| axis.count).product()
}

/// Adds the terms of all iterations to `total`, which is f64, chain by chain.
fn blocks(resolved: &FlatNest, math: &mut Math, point: &Point, axes: &[Axis], total: Value) -> Value {
    if terms(axes) <= CHAIN {
        let sum = chain(resolved, math, point, axes);
        let sum = math.widen(sum);
        return math.f64("addf", total, sum);
    }
    let (first, rest) = axes.split_first().expect("no loops have one term");
    // So many iterations of the first loop are one chain; at least one, which may be several chains by itself.
    let most = (CHAIN / terms(rest)).max(1);
    let is_long = |part: &usize| first.count.is_multiple_of(*part) && 2 * part > most;
    let part = (1..=most).rev().find(is_long).unwrap_or(most);
    let step = first.step * part as i64;
    let (whole, left) = (first.count / part, first.count % part);
    let lanes = math.lanes;
    let end = math.body.sum(whole as i64 * step, &[(first.low, 1)]);
    let some = |low: Value, count: usize| {
        let some = Axis { low, count, ..*first };
        [&[some], rest].concat()
    };
    let ty = [lanes.of("f64")];
    let total = math
        .body
        .for_carry(first.low, end, step, &[total], &ty, |body, low, total| {
            let mut math = Math { body, lanes };
            let sum = match part {
                1 => {
                    let mut point = point.clone();
                    point.loops[first.l.0] = low;
                    blocks(resolved, &mut math, &point, rest, total[0])
                }
                _ => blocks(resolved, &mut math, point, &some(low, part), total[0]),
            };
            vec![sum]
        })[0];
    match left {
        0 => total,
        _ => blocks(resolved, math, point, &some(end, left), total),
    }
}

/// The sum of the terms of all iterations, one after the other in f32.
fn chain(resolved: &FlatNest, math: &mut Math, point: &Point, axes: &[Axis]) -> Value {
    let zero = math.constant(0.0);
    add_terms(resolved, math, point, axes, zero)
}

fn add_terms(resolved: &FlatNest, math: &mut Math, point: &Point, axes: &[Axis], sum: Value) -> Value {
    let Some((axis, rest)) = axes.split_first() else {
        let value = Scope::of_reads(&resolved.reads).value(math, point, &resolved.body);
        return math.f("addf", sum, value);
    };
    let lanes = math.lanes;
    let end = math.body.sum(axis.count as i64 * axis.step, &[(axis.low, 1)]);
    let ty = [lanes.of("f32")];
    math.body
        .for_carry(axis.low, end, axis.step, &[sum], &ty, |body, i, sum| {
            let mut point = point.clone();
            point.loops[axis.l.0] = i;
            vec![add_terms(
                resolved,
                &mut Math { body, lanes },
                &point,
                rest,
                sum[0],
            )]
        })[0]
}
