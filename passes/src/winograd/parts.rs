//! What the nests of a form share: tensors between them, loops renamed, and numbers that count several loops.

use super::cook_toom::{Matrices, matrices};
use super::product::Product;
use super::recognise::Convolution;
use super::{Form, Tiling};
use ir::DType;
use ir::nest::{Affine, Expr, Index, Loop, Nest, Output, Read, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Image,
    Filter,
}

/// A tensor between the nests, of three dimensions that each count several loops: the batch, then the dimension that
/// layouts put innermost, then all else. The lanes of panels are the innermost, and panels and the depth all else.
pub(super) struct Tensor {
    pub(super) batch: usize,
    pub(super) inner: usize,
    pub(super) outer: usize,
}

impl Tensor {
    pub(super) fn extents(&self) -> Vec<usize> {
        vec![self.batch, self.inner, self.outer]
    }
}

/// Loops of a new nest that stand for those of the old one.
pub(super) struct Renamed {
    pub(super) parallel: Vec<usize>,
    /// What an old loop is in the new ones.
    pub(super) old: Vec<Affine>,
}

impl Renamed {
    pub(super) fn new(loops: usize) -> Renamed {
        Renamed {
            parallel: vec![],
            old: vec![Affine::default(); loops],
        }
    }

    pub(super) fn add(&mut self, extent: usize) -> Loop {
        self.parallel.push(extent);
        Loop(self.parallel.len() - 1)
    }

    pub(super) fn keep(&mut self, l: Loop, extent: usize) {
        self.old[l.0] = Affine::of(self.add(extent));
    }

    pub(super) fn map(&self, map: &Affine) -> Affine {
        let terms = map.terms.iter();
        terms.fold(Affine::constant(map.constant), |sum, &(l, factor)| {
            sum.plus(&self.old[l.0], factor)
        })
    }
}

pub(super) struct Parts<'a> {
    pub(super) nest: &'a Nest,
    pub(super) conv: &'a Convolution,
    pub(super) form: &'a Form,
    pub(super) matrices: Vec<Matrices>,
    pub(super) extents: Vec<usize>,
    pub(super) side: Side,
    pub(super) product: Product,
    /// Lanes of a panel.
    pub(super) lanes: usize,
}

impl Parts<'_> {
    pub(super) fn new<'a>(nest: &'a Nest, conv: &'a Convolution, form: &'a Form, side: Side) -> Parts<'a> {
        let product = Product::new(nest, conv, form);
        let extents = nest.extents();
        let panelled = match side {
            Side::Image => &conv.image_only,
            Side::Filter => &conv.filter_only,
        };
        let lanes = panelled.last().map_or(1, |l| panel(extents[l.0], side));
        Parts {
            nest,
            conv,
            form,
            matrices: form.tilings.iter().map(|t| matrices(t.outputs, t.taps)).collect(),
            extents,
            side,
            product,
            lanes,
        }
    }

    /// The transformed image, the transformed kernel, and their products.
    pub(super) fn tensors(&self) -> (Tensor, Tensor, Tensor) {
        let Product {
            batch,
            rows,
            columns,
            depth,
        } = self.product;
        let lanes = self.lanes;
        let plain = |inner: usize, outer: usize| Tensor { batch, inner, outer };
        let panels = |places: usize| plain(lanes, places / lanes * depth);
        match self.side {
            // Channels are what the other side's places share, and what is next to each other in images.
            Side::Filter => (plain(depth, rows), panels(columns), plain(columns, rows)),
            Side::Image => (panels(rows), plain(columns, depth), plain(rows, columns)),
        }
    }

    /// The number of the batch: products of the pairs, then groups.
    pub(super) fn batch(&self, products: &[Loop], renamed: &Renamed) -> Affine {
        let mut number = Affine::default();
        for (&l, matrices) in products.iter().zip(&self.matrices) {
            number = Affine::default()
                .plus(&number, matrices.products as i64)
                .plus_loop(l, 1);
        }
        self.count(number, &self.conv.batch, renamed)
    }

    /// A number of more loops, each of them faster than those before.
    pub(super) fn count(&self, mut number: Affine, loops: &[Loop], renamed: &Renamed) -> Affine {
        for l in loops {
            let own = &renamed.old[l.0];
            number = Affine::default()
                .plus(&number, self.extents[l.0] as i64)
                .plus(own, 1);
        }
        number
    }

    /// Loops and then tiles of the pairs as one number.
    pub(super) fn places(
        &self,
        loops: &[Loop],
        tiles: &[Loop],
        count: fn(&Tiling) -> usize,
        renamed: &Renamed,
    ) -> Affine {
        let mut number = self.count(Affine::default(), loops, renamed);
        for (&l, tiling) in tiles.iter().zip(&self.form.tilings) {
            number = Affine::default()
                .plus(&number, count(tiling) as i64)
                .plus_loop(l, 1);
        }
        number
    }

    /// Keeps the loops of a side; the last one is cut into panels if it is their side. The lanes of a panel, then.
    pub(super) fn keep(&self, renamed: &mut Renamed, loops: &[Loop], side: Side) -> Option<Loop> {
        let mut panel = None;
        for (i, &l) in loops.iter().enumerate() {
            let extent = self.extents[l.0];
            if side == self.side && i + 1 == loops.len() {
                let (outer, inner) = (renamed.add(extent / self.lanes), renamed.add(self.lanes));
                renamed.old[l.0] = Affine::default()
                    .plus_loop(outer, self.lanes as i64)
                    .plus_loop(inner, 1);
                panel = Some(inner);
            } else {
                renamed.keep(l, extent);
            }
        }
        panel
    }

    pub(super) fn table(&self, values: &[f64], row: Loop, columns: usize, column: Loop) -> Expr {
        Expr::Table {
            values: values.to_vec(),
            index: Affine::of(column).plus_loop(row, columns as i64),
        }
    }

    /// A read of the old nest over new loops, from this operand.
    pub(super) fn read(&self, read: usize, renamed: &Renamed, operand: usize) -> Read {
        let read = &self.nest.reads[read];
        Read {
            source: Source::Operand(operand),
            index: read
                .index
                .iter()
                .map(|index| Index::new(renamed.map(&index.map)))
                .collect(),
            predicates: vec![],
            padding_value: read.padding_value,
        }
    }

    /// A transformed tensor as an output.
    pub(super) fn output(
        &self,
        tensor: &Tensor,
        batch: Affine,
        (place, panel): (Affine, Option<Loop>),
        depth: Affine,
    ) -> Output {
        let index = match panel {
            Some(inner) => {
                // The number of a panel: all of the place's loops but the lanes.
                let whole = place.plus_loop(inner, -1);
                let terms = whole.terms.iter().map(|&(l, step)| (l, step / self.lanes as i64));
                let panel = Affine {
                    terms: terms.collect(),
                    constant: 0,
                };
                let rows = Affine::default()
                    .plus(&panel, self.product.depth as i64)
                    .plus(&depth, 1);
                vec![batch, Affine::of(inner), rows]
            }
            // The dimension that is innermost in memory comes second.
            None if self.side == Side::Filter => vec![batch, depth, place],
            None => vec![batch, place, depth],
        };
        Output {
            dtype: DType::F32,
            extents: tensor.extents(),
            index,
            value: Expr::Reduced,
        }
    }
}

/// Lanes of a panel: as for packed weights; where the other side could be the vectors too, as many as let this one be.
fn panel(extent: usize, side: Side) -> usize {
    match side {
        Side::Image if extent.is_multiple_of(64) => 64,
        _ => crate::layout::panel_width(extent),
    }
}
