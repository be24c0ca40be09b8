//! Kernels for GPUs: the same nests, each thread a point, a tile of points or a part of a reduction.
//!
//! | module | what it lowers |
//! |---|---|
//! | [`contraction`] | sums of products: convolutions, their gradients, matrix products; tiles in shared memory |
//! | [`rows`] | long sums of few points: a block a point, or threads side by side on adjacent points |
//! | [`transpose`] | points whose reads and outputs run along different loops in memory; by way of shared memory |
//! | [`points`] | everything else: a thread a point, or four adjacent ones; [`slide`]: with windows along these |
//! | [`peak`] | kernels that only reach a limit |
//! | [`thread`] | the frame of a kernel, shared memory, numbers of loops |
//!
//! A kernel is launched as a grid of one dimension; a block is a task. Where the grid would be small, a reduction is
//! split among blocks: they leave partial sums in scratch memory, and a second kernel adds those and finishes.

pub mod contraction;
pub mod peak;
pub mod points;
pub mod rows;
mod slide;
pub mod thread;
pub mod transpose;
pub mod vector;

use crate::access::{Access, Operand};
use crate::kernel::{FlatNest, KernelText};
use ir::DType;
use ir::layout::Layout;
use ir::nest::{Affine, Combine, Expr, Loop, Nest};
pub use ir::profile::Precision;

/// Multiprocessors to keep busy: those of an H200. Fewer only see more blocks each.
pub const SM_COUNT: usize = 132;

/// The kernels of a nest, in the order they run; all take operands, results and, where one has it, scratch memory.
/// `warpgroups` says that the architecture has `wgmma`.
pub fn lower(
    nest: &Nest,
    operands: &[Operand],
    results: &[Operand],
    in_place: bool,
    precision: Precision,
    warpgroups: bool,
) -> Vec<KernelText> {
    let call = KernelArguments {
        arguments: [operands, results].concat(),
        in_place,
    };
    let mut resolved = FlatNest::new(nest, operands, results);
    if let Some((a, b)) = nest.contraction()
        && let Some(texts) = contraction::lower(&resolved, a, b, &call, precision, warpgroups)
    {
        return texts;
    }
    resolved.collapse();
    rows::lower(&resolved, &call).unwrap_or_else(|| vec![lower_points(&resolved, &call, None)])
}

/// The kernel of a nest that gives every point to one thread. `partial` names what an earlier kernel left to be added:
/// its scratch memory is passed on.
fn lower_points(nest: &FlatNest, call: &KernelArguments, partial: Option<&Partial>) -> KernelText {
    transpose::lower(nest, call, partial).unwrap_or_else(|| points::lower(nest, call, partial))
}

/// What kernels of one nest are passed.
#[derive(Clone, Debug)]
pub struct KernelArguments {
    /// Operands, then results.
    pub arguments: Vec<Operand>,
    /// Whether a result shares the memory of an operand.
    pub in_place: bool,
}

/// Partial results of a reduction that blocks share: one a part and point, in scratch memory.
#[derive(Clone, Debug)]
pub struct Partial {
    /// Elements of scratch memory, in f32.
    pub scratch: Operand,
    /// Where a part of a point lies; the loop after all others counts parts.
    pub access: Access,
    /// The nest that adds the parts and finishes.
    pub finish: FlatNest,
}

impl Partial {
    /// `parts` partial sums for every point of the given parallel loops, which lie in this order, the last fastest.
    pub fn new(nest: &FlatNest, call: &KernelArguments, k_slices: usize, loops: &[Loop]) -> Partial {
        let points: usize = loops.iter().map(|&l| nest.extent(l)).product();
        let scratch = Operand {
            dtype: DType::F32,
            extents: vec![k_slices, points],
            layout: Layout::row_major(2),
        };
        let mut finish = nest.clone();
        finish.extents.truncate(nest.parallel);
        finish.extents.push(k_slices);
        let mut offset = Affine::constant(0).plus_loop(Loop(nest.parallel), points as i64);
        let mut stride = 1;
        for &l in loops.iter().rev() {
            offset = offset.plus_loop(l, stride);
            stride *= nest.extent(l) as i64;
        }
        let access = Access {
            argument: call.arguments.len(),
            dtype: DType::F32,
            elements: k_slices * points,
            offset,
            divided: vec![],
            checks: vec![],
            padding_value: 0.0,
        };
        finish.combine = Combine::Sum;
        finish.body = Expr::Read(finish.reads.len());
        finish.reads.push(access.clone());
        Partial {
            scratch,
            access,
            finish,
        }
    }
}

/// How many parts to make of a reduction of `length` steps: as many as wanted, none with fewer steps than `least`.
pub fn k_slices(length: usize, least: usize, wanted: usize) -> usize {
    (length / least.max(1)).min(wanted).max(1)
}
