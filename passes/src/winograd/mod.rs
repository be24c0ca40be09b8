//! The algorithm of convolutions and their gradients: direct, or Winograd's with fewer multiplications.
//!
//! An algorithm is a rewrite of nests, so the interpreter stays the reference and nothing below knows of it. A
//! convolution, found by its index maps ([`mod@recognise`]), becomes the transform of its image's tiles, the transform of its
//! kernel's taps, one batched matrix product, and the inverse transform, which keeps all that was fused to the
//! convolution ([`mod@rewrite`]). The transforms are sums with tables of constants ([`cook_toom`]). Forward, a few taps slide
//! over tiles of places; in the gradient of the weight the taps are the result, and it is the long sum over places that is
//! cut into tiles, whose products the matrix product sums.
//!
//! Only programs for processors are rewritten. GPUs have tensor cores for the direct form, and no kernels of the transforms;
//! and where a processor and a GPU each keep a copy of a value, both must find it by the same sums.
//!
//! [`candidates`] are the forms that a nest can take, [`estimate`] what one costs, [`choose`] takes the cheapest.

pub mod cook_toom;
mod nests;
mod parts;
mod product;
pub mod recognise;
pub mod rewrite;

use ir::nest::{Loop, Nest};
use ir::plan::Mode;
use ir::program::{Algorithm, Kernel, Program, ValueId};
use product::Product;
use recognise::{Convolution, recognise};
use std::collections::BTreeMap;

/// How one pair of loops is cut into tiles of `outputs + taps − 1` products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Points of the result in a tile.
    pub outputs: usize,
    /// Points of the sum in a tile.
    pub taps: usize,
    /// Tiles of the result.
    pub output_tiles: usize,
    /// Tiles of the sum.
    pub tap_tiles: usize,
}

/// A way to compute a convolution: F(outputs, taps) along each pair of loops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// One for each pair of [`Convolution::pairs`].
    pub tilings: Vec<Tiling>,
}

impl Form {
    /// Its name in the literature: outputs along each pair, then taps.
    pub fn name(&self) -> String {
        let along = |count: fn(&Tiling) -> usize| {
            let counts: Vec<String> = self.tilings.iter().map(|t| count(t).to_string()).collect();
            counts.join("x")
        };
        format!("F({}, {})", along(|t| t.outputs), along(|t| t.taps))
    }

    /// Products along the pair that has the most.
    pub fn products(&self) -> usize {
        let each = self.tilings.iter().map(|t| t.outputs + t.taps - 1);
        each.max().unwrap_or(1)
    }
}

/// Products of one dimension that forms are made for. Larger ones lose more digits: with 8 points the entries of the
/// tables span a factor of 180.
const PRODUCTS: [usize; 4] = [4, 6, 7, 8];

/// The forms that a nest can take, besides its own; none where it is no convolution.
pub fn candidates(nest: &Nest) -> Vec<Form> {
    let Some(conv) = recognise(nest) else {
        return vec![];
    };
    let forms = PRODUCTS
        .iter()
        .filter_map(|&products| form(nest, &conv, products));
    let mut found: Vec<Form> = vec![];
    forms.for_each(|form| {
        if !found.contains(&form) {
            found.push(form);
        }
    });
    found
}

/// The form with so many products along each pair, fewer where a loop is shorter.
fn form(nest: &Nest, conv: &Convolution, products: usize) -> Option<Form> {
    let extents = nest.extents();
    let tiling = |pair: &recognise::Pair| {
        let (outputs, taps) = (extents[pair.parallel.0], extents[pair.reduction.0]);
        let room = |other: usize| products.checked_sub(other - 1).filter(|&tile| tile > 1);
        let (outputs, taps) = match outputs < taps {
            true => (outputs, room(outputs)?.min(taps)),
            false => (room(taps)?.min(outputs), taps),
        };
        let tiling = Tiling {
            outputs,
            taps,
            output_tiles: extents[pair.parallel.0].div_ceil(outputs),
            tap_tiles: extents[pair.reduction.0].div_ceil(taps),
        };
        let exact = outputs * tiling.output_tiles == extents[pair.parallel.0];
        // Backwards, only a sum that is one tile can be written as one going forwards.
        let fits = (exact || pair.may_exceed) && (!pair.flipped || tiling.tap_tiles == 1);
        fits.then_some(tiling)
    };
    let tilings = conv.pairs.iter().map(tiling).collect::<Option<_>>()?;
    Some(Form { tilings })
}

/// Multiply-adds in the time of transforming an element of the tiles, or of the products: reading it, writing it, a few
/// additions. Measured on layers of `models/` in batches of 1 to 128, in caches and out of them: 28 to 49, and 26 to 72
/// for an element of the taps, whose sources lie far apart.
const TRANSFORM: f64 = 40.0;
const TRANSFORM_OF_TAP: f64 = 50.0;
/// Multiply-adds in the time of reading an element of taps that were prepared: 4 bytes, as `layout` has it.
const READ: f64 = 11.0;
/// What starting three more kernels costs: about 5 microseconds each.
const LAUNCHES: f64 = 1.5e6;
/// Lanes assumed when judging how well a side fills vectors.
const LANES: usize = 16;

/// Multiply-adds that take about as long as a nest does: its own products, without a form, or those of a form with its
/// transforms. Lanes of vectors that would stay empty count.
pub fn estimate(nest: &Nest, mode: Mode, form: Option<&Form>) -> f64 {
    let Some(conv) = recognise(nest) else {
        return nest.points() as f64;
    };
    let Some(form) = form else {
        return nest.points() as f64 * empty_lanes(nest, &conv);
    };
    let Product {
        batch,
        rows,
        columns,
        depth,
    } = Product::new(nest, &conv, form);
    let elements = |a: usize, b: usize| (batch * a * b) as f64;
    let tap = match mode {
        Mode::Infer => READ,
        Mode::Gradients | Mode::Train => TRANSFORM_OF_TAP,
    };
    let filled = columns
        .next_multiple_of(LANES)
        .min(columns.max(rows).next_multiple_of(LANES));
    elements(rows, depth) * filled as f64
        + TRANSFORM * (elements(rows, depth) + elements(rows, columns))
        + tap * elements(columns, depth)
        + LAUNCHES
}

/// The lanes of a direct convolution's vectors, relative to those that are used. Vectors go along channels: those that walk
/// the kernel alone or, in the gradient of a weight, those of the image.
fn empty_lanes(nest: &Nest, conv: &Convolution) -> f64 {
    let channels = nest.reads[conv.image].index.get(1);
    let walks = |l: &&Loop| channels.is_some_and(|channels| channels.map.coefficient(**l) == 1);
    let of_image = conv.image_only.iter().filter(walks);
    let extents = conv
        .filter_only
        .iter()
        .chain(of_image)
        .map(|l| nest.parallel[l.0]);
    let lanes = extents.map(|extent| extent.next_multiple_of(LANES) as f64 / extent as f64);
    lanes.fold(f64::INFINITY, f64::min)
}

/// Gives every convolution the form that is estimated to take the least time. Returns as [`rewrite_all`] does.
pub fn choose(program: &mut Program, micro_batch_bytes: MicroBatchBytes) -> BTreeMap<usize, ValueId> {
    rewrite_all(program, micro_batch_bytes, &|program, call, forms| {
        chosen(&call.nest, program.mode, forms, call.algorithm).map(|best| best.1.clone())
    })
}

/// The form that takes the least time, and what that is of the direct time.
fn cheapest<'f>(nest: &Nest, mode: Mode, forms: &'f [Form]) -> Option<(f64, &'f Form)> {
    let own = estimate(nest, mode, None);
    let shares = forms
        .iter()
        .map(|form| (estimate(nest, mode, Some(form)) / own, form));
    shares.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// The form that an algorithm means, and what it takes of the direct time; the cheapest if none was chosen, or if the nest
/// is part of one that was chosen for and has no such form itself. None if the direct way is it.
fn chosen<'f>(
    nest: &Nest,
    mode: Mode,
    forms: &'f [Form],
    algorithm: Option<Algorithm>,
) -> Option<(f64, &'f Form)> {
    match algorithm {
        Some(Algorithm::Direct) => None,
        Some(Algorithm::Winograd(products)) if forms.iter().any(|form| form.products() == products) => {
            let form = forms.iter().find(|form| form.products() == products)?;
            Some((
                estimate(nest, mode, Some(form)) / estimate(nest, mode, None),
                form,
            ))
        }
        _ => cheapest(nest, mode, forms).filter(|best| best.0 < 1.0),
    }
}

/// What a nest takes in an algorithm, or in the one that [`choose`] gives it, of the time it takes directly.
pub fn time_ratio(nest: &Nest, mode: Mode, algorithm: Option<Algorithm>) -> f64 {
    chosen(nest, mode, &candidates(nest), algorithm).map_or(1.0, |best| best.0)
}

/// What takes one of a convolution's forms, or none.
pub type FormSelector<'c> = &'c dyn Fn(&Program, &Kernel, &[Form]) -> Option<Form>;

/// Bytes that are between the nests of a kernel's form in a micro-batch, if possible.
pub type MicroBatchBytes<'c> = &'c dyn Fn(&Kernel) -> u64;

/// Gives every convolution the form that `choice` takes. Returns what is made in micro-batches, by the number of the micro-batch loop.
pub fn rewrite_all(
    program: &mut Program,
    micro_batch_bytes: MicroBatchBytes,
    choice: FormSelector,
) -> BTreeMap<usize, ValueId> {
    let kernels = std::mem::take(&mut program.kernels);
    let mut makes = BTreeMap::new();
    for call in kernels {
        let chosen = match &candidates(&call.nest)[..] {
            [] => None,
            forms => choice(program, &call, forms),
        };
        match (chosen, recognise(&call.nest)) {
            (Some(form), Some(conv)) => {
                let calls = rewrite::rewrite(program, &call, &conv, &form, micro_batch_bytes(&call));
                let micro_batch_loops = calls.iter().filter_map(|part| part.micro_batch_loop);
                makes.extend(
                    micro_batch_loops.map(|micro_batch_loop| (micro_batch_loop.number, call.results[0])),
                );
                program.kernels.extend(calls);
            }
            _ => program.kernels.push(call),
        }
    }
    makes
}
