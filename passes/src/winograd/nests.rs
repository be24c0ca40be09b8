//! The four nests of a form: transforms of both reads, their products, and the inverse transform.

use super::parts::{Parts, Renamed, Side, Tensor};
use super::product::Product;
use ir::DType;
use ir::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Predicate, Read, Source};

impl Parts<'_> {
    /// A transform: tables times one read, stored as a tensor.
    fn transform(
        &self,
        renamed: Renamed,
        reduction: Vec<usize>,
        tables: Vec<Expr>,
        read: Read,
        output: Output,
    ) -> Nest {
        let body = tables
            .into_iter()
            .reduce(|a, b| a * b)
            .expect("a convolution has a pair");
        Nest {
            parallel: renamed.parallel,
            reduction,
            reads: vec![read],
            combine: Combine::Sum,
            body: body * Expr::Read(0),
            outputs: vec![output],
        }
    }

    /// Tiles of the image, transformed.
    pub(super) fn tiles(&self, tensor: &Tensor) -> Nest {
        let mut renamed = Renamed::new(self.extents.len());
        let conv = self.conv;
        let products: Vec<Loop> = self.matrices.iter().map(|m| renamed.add(m.products)).collect();
        conv.batch
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let panel = self.keep(&mut renamed, &conv.image_only, Side::Image);
        conv.shared
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let (mut rows, mut depths) = (vec![], vec![]);
        for (pair, tiling) in conv.pairs.iter().zip(&self.form.tilings) {
            let (row, depth) = (renamed.add(tiling.output_tiles), renamed.add(tiling.tap_tiles));
            renamed.old[pair.parallel.0] = Affine::default().plus_loop(row, tiling.outputs as i64);
            renamed.old[pair.reduction.0] = match pair.flipped {
                true => Affine::constant(tiling.taps as i64 - 1),
                false => Affine::default().plus_loop(depth, tiling.taps as i64),
            };
            rows.push(row);
            depths.push(depth);
        }
        let first = renamed.parallel.len();
        let mut read = self.read(conv.image, &renamed, 0);
        let mut tables = vec![];
        for (i, (pair, matrices)) in conv.pairs.iter().zip(&self.matrices).enumerate() {
            let element = Loop(first + i);
            let map = &mut read.index[pair.dimension].map;
            *map = std::mem::take(map).plus_loop(element, 1);
            tables.push(self.table(&matrices.data, products[i], matrices.products, element));
        }
        let row = self.places(&conv.image_only, &rows, |t| t.output_tiles, &renamed);
        let depth = self.places(&conv.shared, &depths, |t| t.tap_tiles, &renamed);
        let batch = self.batch(&products, &renamed);
        let output = self.output(tensor, batch, (row, panel), depth);
        let elements = self.matrices.iter().map(|m| m.products).collect();
        self.transform(renamed, elements, tables, read, output)
    }

    /// Taps of the kernel, transformed.
    pub(super) fn taps(&self, tensor: &Tensor) -> Nest {
        let mut renamed = Renamed::new(self.extents.len());
        let conv = self.conv;
        let products: Vec<Loop> = self.matrices.iter().map(|m| renamed.add(m.products)).collect();
        conv.batch
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let panel = self.keep(&mut renamed, &conv.filter_only, Side::Filter);
        conv.shared
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let tilings = || self.form.tilings.iter();
        let depths: Vec<Loop> = tilings().map(|t| renamed.add(t.tap_tiles)).collect();
        let first = renamed.parallel.len();
        let (mut tables, mut predicates) = (vec![], vec![]);
        for (i, ((pair, tiling), matrices)) in
            conv.pairs.iter().zip(tilings()).zip(&self.matrices).enumerate()
        {
            let (tap, taps, extent) = (
                Loop(first + i),
                tiling.taps as i64,
                self.extents[pair.reduction.0],
            );
            let place = Affine::default().plus_loop(depths[i], taps).plus_loop(tap, 1);
            if tiling.taps * tiling.tap_tiles > extent {
                let (low, high) = (0, extent as i64);
                predicates.push(Predicate {
                    map: place.clone(),
                    low,
                    high,
                });
            }
            renamed.old[pair.reduction.0] = match pair.flipped {
                true => Affine::constant(taps - 1).plus_loop(tap, -1),
                false => place,
            };
            tables.push(self.table(&matrices.taps, products[i], tiling.taps, tap));
        }
        let mut read = self.read(conv.kernel, &renamed, 0);
        read.predicates = predicates;
        let column = self.places(&conv.filter_only, &[], |_| 1, &renamed);
        let depth = self.places(&conv.shared, &depths, |t| t.tap_tiles, &renamed);
        let batch = self.batch(&products, &renamed);
        let output = self.output(tensor, batch, (column, panel), depth);
        let taps = tilings().map(|t| t.taps).collect();
        self.transform(renamed, taps, tables, read, output)
    }

    /// The products of transformed tiles and taps, summed over what both walk.
    pub(super) fn product(&self, image: &Tensor, kernel: &Tensor, result: &Tensor) -> Nest {
        let Product {
            batch,
            rows,
            columns,
            depth,
        } = self.product;
        let (whole, panelled, lanes) = match self.side {
            Side::Filter => (rows, columns, self.lanes),
            Side::Image => (columns, rows, self.lanes),
        };
        // Loops: batch, places of the side without panels, panels, lanes; depth.
        let [b, w, p, l, d] = std::array::from_fn(Loop);
        let read = |operand: usize, index: [Affine; 3]| Read {
            source: Source::Operand(operand),
            index: index.map(Index::new).into(),
            predicates: vec![],
            padding_value: 0.0,
        };
        let panels = |operand: usize| {
            let rows = Affine::of(d).plus_loop(p, depth as i64);
            read(operand, [Affine::of(b), Affine::of(l), rows])
        };
        let plain =
            |operand: usize, inner: Loop, outer: Loop| read(operand, [b, inner, outer].map(Affine::of));
        let place = Affine::of(l).plus_loop(p, lanes as i64);
        let reads = match self.side {
            Side::Filter => vec![plain(0, d, w), panels(1)],
            Side::Image => vec![plain(1, w, d), panels(0)],
        };
        debug_assert_eq!(image.batch, kernel.batch);
        Nest {
            parallel: vec![batch, whole, panelled / lanes, lanes],
            reduction: vec![depth],
            reads,
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Read(1),
            outputs: vec![Output {
                dtype: DType::F32,
                extents: result.extents(),
                index: vec![Affine::of(b), place, Affine::of(w)],
                value: Expr::Reduced,
            }],
        }
    }

    /// The inverse transform, and all that the nest did with finished sums.
    pub(super) fn finish(&self, result: &Tensor, operand: usize) -> Nest {
        let mut renamed = Renamed::new(self.extents.len());
        let conv = self.conv;
        let pairs = || conv.pairs.iter().zip(&self.form.tilings);
        for l in (0..self.nest.parallel.len()).map(Loop) {
            let pair = pairs().find(|(pair, _)| pair.parallel == l);
            let extent = pair.map_or(self.extents[l.0], |(_, tiling)| tiling.output_tiles);
            renamed.keep(l, extent);
        }
        let tiles: Vec<Loop> = conv.pairs.iter().map(|pair| pair.parallel).collect();
        let first = renamed.parallel.len() + conv.pairs.len();
        let products: Vec<Loop> = (0..conv.pairs.len()).map(|i| Loop(first + i)).collect();
        let batch = self.batch(&products, &renamed);
        let row = self.places(&conv.image_only, &tiles, |t| t.output_tiles, &renamed);
        let column = self.places(&conv.filter_only, &[], |_| 1, &renamed);
        let (inner, outer) = match self.side {
            Side::Filter => (column, row),
            Side::Image => (row, column),
        };
        debug_assert_eq!(result.extents().len(), 3);
        let read = Read {
            source: Source::Operand(operand),
            index: [batch, inner, outer].map(Index::new).into(),
            predicates: vec![],
            padding_value: 0.0,
        };
        let mut tables = vec![];
        for (i, ((pair, tiling), matrices)) in pairs().zip(&self.matrices).enumerate() {
            let within = renamed.add(tiling.outputs);
            let tile = pair.parallel;
            renamed.old[tile.0] = Affine::default()
                .plus_loop(tile, tiling.outputs as i64)
                .plus_loop(within, 1);
            tables.push(self.table(&matrices.inverse, within, matrices.products, products[i]));
        }
        let body = tables
            .into_iter()
            .reduce(|a, b| a * b)
            .expect("a convolution has a pair");
        let mut reads = self.nest.reads.clone();
        let reads_of_parallel = |i: usize| i != conv.image && i != conv.kernel;
        for (_, old) in reads
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| reads_of_parallel(*i))
        {
            *old = old.map_affine(&mut |map| renamed.map(map));
        }
        reads[conv.image] = read;
        // Nothing refers to the kernel any more, and the number of other reads must stay.
        let body = body * Expr::Read(conv.image);
        let outputs = self.nest.outputs.iter().map(|output| Output {
            index: output.index.iter().map(|map| renamed.map(map)).collect(),
            value: output.value.map_affine(&mut |map| renamed.map(map)),
            ..output.clone()
        });
        let outputs = outputs.collect();
        reads[conv.kernel] = reads[conv.image].clone();
        crate::substitute::normalize(Nest {
            parallel: renamed.parallel,
            reduction: self.matrices.iter().map(|m| m.products).collect(),
            reads,
            combine: Combine::Sum,
            body,
            outputs,
        })
    }
}
