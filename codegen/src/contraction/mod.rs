//! Kernels of contractions: sums of products of two reads, such as convolutions and matrix products.
//!
//! One operand is read a vector at a time along the *vector loop* (contiguous in it, constant in the other
//! operand); of the other one scalar a row is broadcast, for a tile of rows along the *tile loop*. The tile's
//! sums stay in registers over the inner reduction loops; outer reduction loops accumulate in the first result, or
//! in scratch memory where that takes the place of an operand that the epilogue reads, or is not contiguous. Where
//! sums are added to what the result holds, all of them are, and none is the first.
//! Nothing is copied for that, apart from a small staged panel where rows of the vector operand lie far apart:
//! layouts, storage padding and packed weights were arranged by `passes` so that plain strides find every element.
//!
//! `choose` makes the schedule, `emit_loops` writes the loops around a tile, `tile` the tile itself.

mod choose;
mod emit_loops;
mod tile;

use crate::access::{Access, Operand};
use crate::kernel::{FlatNest, KernelText, emit_function};
use crate::mlir::Value;
use ir::layout::Layout;
use ir::nest::{Expr, Loop, Nest, Output, Read, Source};

/// The tile of sums held in registers, and the vector registers of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    rows: usize,
    vectors: usize,
    width: usize,
}

/// Copies of operand parts on the stack, where kernels made them.
#[derive(Clone, Copy, Debug, Default)]
struct Staged {
    panel: Option<Value>,
    scalars: Option<Value>,
}

/// Lowers a contraction, or returns `None` where its operands are not arranged for it. `overwritten` are the
/// operands whose memory is that of a result.
pub fn lower(
    nest: &Nest,
    operands: &[Operand],
    results: &[Operand],
    overwritten: &[usize],
    width: usize,
) -> Option<KernelText> {
    let (a, b) = nest.contraction()?;
    let resolved = FlatNest::new(nest, operands, results);
    let outputs = resolved.outputs.iter().map(|output| &output.0);
    if !outputs
        .chain([&resolved.reads[a], &resolved.reads[b]])
        .all(Access::is_affine)
    {
        return None;
    }
    let mut schedule = Schedule::new(resolved, a, b, width)?;
    let mut arguments = [operands, results].concat();
    let scattered = schedule.partial.step(schedule.vector) != Some(1);
    let in_place = !overwritten.is_empty();
    schedule.adds = adds(nest, overwritten) && !schedule.outer.is_empty() && !scattered;
    let splits = !schedule.outer.is_empty() && !schedule.adds;
    let scratch = (splits && (in_place || scattered)).then(|| Operand {
        layout: Layout::ordered(vector_last(&nest.outputs[0], schedule.vector)),
        ..results[0].clone()
    });
    if let Some(scratch) = &scratch {
        schedule.partial = Access::of_output(nest, &nest.outputs[0], arguments.len(), scratch);
        arguments.push(scratch.clone());
    }
    let text = emit_function(&arguments, schedule.task_count(), |body, task| {
        schedule.write(body, task)
    });
    Some(KernelText { scratch, ..text })
}

/// Whether all that a nest does with its sums is to add them to the elements they overwrite.
fn adds(nest: &Nest, overwritten: &[usize]) -> bool {
    let [output] = &nest.outputs[..] else { return false };
    let own = |read: &Read| {
        let there = matches!(read.source, Source::Operand(i) if overwritten.contains(&i));
        let mut maps = read.index.iter().zip(&output.index);
        there
            && read.predicates.is_empty()
            && maps.all(|(index, map)| index.divisor == 1 && index.map == *map)
    };
    let mut sums = nest.reads.iter().enumerate().filter(|(_, read)| own(read));
    sums.any(|(i, _)| output.value == Expr::Reduced + Expr::Read(i))
}

/// The dimensions of an output, the one along which the vector loop runs innermost.
fn vector_last(output: &Output, vector: Loop) -> Vec<usize> {
    let mut order: Vec<usize> = (0..output.index.len()).collect();
    order.sort_by_key(|&d| output.index[d].coefficient(vector) != 0);
    order
}

struct Schedule {
    nest: FlatNest,
    /// Where partial sums are kept between iterations of the outer reduction.
    partial: Access,
    /// Whether these are the results, and the sums of every iteration are added to what is there.
    adds: bool,
    /// The read broadcast from, and the read taken in vectors.
    scalar: usize,
    panel: usize,
    vector: Loop,
    row: Option<Loop>,
    tile: Tile,
    /// Loops decoded from the task number.
    tasks: Vec<Loop>,
    /// Whether tasks also number the panels of the vector loop, or blocks of this many row tiles.
    panels_are_tasks: bool,
    block: Option<usize>,
    /// Loops within a task before the outer reduction, that reduction, and loops after it.
    before: Vec<Loop>,
    outer: Vec<Loop>,
    after: Vec<Loop>,
    /// Reduction loops inside the tile, outermost first; the last ones, from `chain` on, are one chain of additions.
    inner: Vec<Loop>,
    chain: usize,
    staged: bool,
    /// Whether a tile's scalars are staged: worth it if loops after the panel use them again.
    scalars_staged: bool,
}
