//! The matrix product that a form of Winograd's algorithm makes of a convolution.

use super::recognise::Convolution;
use super::{Form, Tiling};
use ir::nest::{Loop, Nest};

/// The matrix product at the heart of a form: `[batch, rows, columns]` from sums over `depth`. Rows are the image's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Products of the transforms times groups.
    pub batch: usize,
    /// Places of the image's side.
    pub rows: usize,
    /// Those of the kernel's side.
    pub columns: usize,
    /// Terms of a sum.
    pub depth: usize,
}

impl Product {
    /// The product that a form of this convolution makes.
    pub fn new(nest: &Nest, conv: &Convolution, form: &Form) -> Product {
        let extents = nest.extents();
        let points = |loops: &[Loop]| loops.iter().map(|l| extents[l.0]).product::<usize>();
        let tiles = |count: fn(&Tiling) -> usize| form.tilings.iter().map(count).product::<usize>();
        Product {
            batch: points(&conv.batch) * tiles(|t| t.outputs + t.taps - 1),
            rows: points(&conv.image_only) * tiles(|t| t.output_tiles),
            columns: points(&conv.filter_only),
            depth: points(&conv.shared) * tiles(|t| t.tap_tiles),
        }
    }
}
