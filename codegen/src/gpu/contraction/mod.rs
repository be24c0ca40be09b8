//! Sums of products as matrix products that were never laid out: *rows* × *depth* times *depth* × *columns*.
//!
//! A parallel loop that only one operand depends on belongs to that operand's *side*; the loops of a side, and those of
//! the reduction (the depth), are counted as one number each. A block computes a tile of rows × columns. It walks the
//! depth in steps: while it multiplies one step of both sides from shared memory, the next steps are on their way
//! there (`cp.async`), each element fetched from where it lies, or a zero where it lies outside. So convolutions, their
//! gradients and matrix products are one kernel, and nothing is rearranged in memory for it.
//!
//! Max pooling is no epilogue here. Its windows overlap (3 × 3 in steps of 2), so a tile of 128 points of an image, 11 × 11,
//! has 5 × 5 whole windows, which stand for 100 points: 28 % more work. At batch 128 on an H200 (4.8 TB/s, 65 % of the tf32
//! rate) the first convolution of `alexnet-owt` would save 198 MB of writing and reading again, 41 µs, for 5 GFLOP, 16 µs;
//! the second 143 MB, 30 µs, for 16 GFLOP, 50 µs. So it pays in one layer of one model, and in inference only: the 2012
//! network pools its first two layers after they are normalised across channels.
//!
//! `choose` decides, `copy` fetches, `convert` fetches what is rounded or transposed on the way, `multiply` has the arithmetic of
//! threads (f32) and of warps (tensor cores), `warpgroup` that of four warps together, `write` puts them together and
//! finishes the outputs.

mod choose;
mod convert;
mod copy;
mod interleave;
mod multiply;
pub mod warpgroup;
mod write;

use super::thread::emit_function;
use super::{KernelArguments, Partial, Precision, lower_points};
use crate::access::FlatPredicate;
use crate::kernel::{FlatNest, KernelText};
use ir::DType;
use ir::nest::Loop;

/// Farther than any index of an array, and less than what [`copy`] adds to make a check fail.
const FAR: i64 = 1 << 28;

/// Who computes a part of a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    /// A thread, with multiply-adds in f32.
    Thread,
    /// A warp, with `mma.sync`.
    Warp,
    /// A warp too, but four of them with one `wgmma`: each has 16 of its 64 rows.
    Warpgroup,
}

/// The shape of a block's work.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    rows: usize,
    columns: usize,
    /// Terms of the sums in one step.
    depth: usize,
    /// Steps that are in shared memory at once.
    stages: usize,
    threads: usize,
    unit: Unit,
    /// Of one thread or one warp: rows and columns.
    part: (usize, usize),
    /// The share of the peak that it can reach: small ones load more for each product.
    reuse: f64,
}

/// Which way neighbours in memory lie, and neighbouring threads fetch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum MajorDim {
    /// Along the side's own loops.
    Mn,
    /// Along the depth.
    K,
}

/// What a line of shared memory holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lines {
    /// The elements of a side at one depth.
    Depths,
    /// The depths of one element.
    Elements,
    /// The same, its 16-byte parts in an order that depends on the element: see [`warpgroup`].
    Swizzled,
}

impl Tile {
    /// Whether a multiprocessor has no place for another block.
    fn is_alone(&self) -> bool {
        self.rows * self.columns > 128 * 128
    }
}

impl MatrixOperand {
    /// Whether it is transposed on its way to shared memory, and its elements interleaved to lines: see `convert`.
    fn is_transposed(&self) -> bool {
        self.lines == Lines::Swizzled && self.along == MajorDim::Mn && self.vector > 1
    }
}

/// One operand's part in the product.
#[derive(Clone, Debug)]
struct MatrixOperand {
    /// Its position in the nest's reads.
    read: usize,
    /// The parallel loops that it alone depends on, the last fastest.
    loops: Vec<Loop>,
    extent: usize,
    along: MajorDim,
    /// Neighbours fetched at once: 16 bytes, or one element.
    vector: usize,
    /// Depths that a thread fetches as one, each of them apart: what shares a word of shared memory, or is transposed.
    deep: usize,
    /// Whether it comes to shared memory through registers, to be rounded or transposed: see `convert`.
    by_registers: bool,
    /// Whether it would be transposed, but for the tile.
    untransposed: bool,
    /// Elements of it in a tile.
    tile: usize,
    lines: Lines,
    /// Words from one line of it in shared memory to the next.
    stride: usize,
    /// Words of one stage.
    words: usize,
}

struct Schedule<'a> {
    nest: &'a FlatNest,
    precision: Precision,
    tile: Tile,
    /// Loops that both operands depend on, or neither.
    batch: Vec<Loop>,
    rows: MatrixOperand,
    columns: MatrixOperand,
    depth: Vec<Loop>,
    /// Parts of the depth that different blocks sum.
    k_slices: usize,
}

/// The same nest with checks of ranges before those of divisions: a value far beyond fails the first check.
fn with_ranges_first(nest: &FlatNest) -> FlatNest {
    let mut nest = nest.clone();
    for read in &mut nest.reads {
        read.checks
            .sort_by_key(|check| matches!(check, FlatPredicate::Divides(..)));
        // A division without a range stands alone where the range is known to hold.
        if let Some(FlatPredicate::Divides(map, _)) = read.checks.first() {
            let everything = FlatPredicate::Range(map.clone(), -FAR, FAR);
            read.checks.insert(0, everything);
        }
    }
    nest
}

/// Lowers the product of reads `a` and `b`, or returns `None` where it is none of f32 with zeros outside. `warpgroups` says
/// that the architecture has `wgmma`.
pub fn lower(
    nest: &FlatNest,
    a: usize,
    b: usize,
    call: &KernelArguments,
    precision: Precision,
    warpgroups: bool,
) -> Option<Vec<KernelText>> {
    let fits = |read: usize| nest.reads[read].dtype == DType::F32 && nest.reads[read].padding_value == 0.0;
    let nest = &with_ranges_first(nest);
    if !fits(a) || !fits(b) {
        return None;
    }
    let schedule = Schedule::new(nest, a, b, precision, warpgroups);
    let partial = (schedule.k_slices > 1 || !schedule.writes_along_columns()).then(|| {
        let order = [&schedule.batch[..], &schedule.rows.loops, &schedule.columns.loops].concat();
        Partial::new(nest, call, schedule.k_slices, &order)
    });
    let mut arguments = call.arguments.clone();
    arguments.extend(partial.as_ref().map(|partial| partial.scratch.clone()));
    let text = emit_function(
        &arguments,
        call.in_place,
        schedule.grid(),
        |body, block, thread| {
            schedule.write(body, block, thread, partial.as_ref());
        },
    );
    let Some(partial) = partial else {
        return Some(vec![text]);
    };
    let first = KernelText {
        scratch: Some(partial.scratch.clone()),
        ..text
    };
    Some(vec![first, lower_points(&partial.finish, call, Some(&partial))])
}
