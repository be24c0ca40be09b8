//! A convolution as four nests: transforms of both reads, a batched matrix product, and the inverse transform.

use super::cook_toom::{Matrices, matrices};
use super::recognise::Convolution;
use super::{Form, Tiling};
use ir::DType;
use ir::layout::Layout;
use ir::nest::{Affine, Combine, Expr, Guard, Index, Loop, Nest, Output, Read, Source};
use ir::plan::{Mode, Place, Role};
use ir::program::{KernelCall, Program, Value, ValueId};

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
            columns: points(&conv.kernel_only),
            depth: points(&conv.shared) * tiles(|t| t.tap_tiles),
        }
    }
}

/// Replaces a kernel by the nests of a form. Returns the four kernels in order; values are added to the program.
pub fn rewrite(program: &mut Program, call: &KernelCall, conv: &Convolution, form: &Form) -> Vec<KernelCall> {
    // Tiles of the result would come between the lanes of the image's side.
    let side = match form.tilings.iter().all(|tiling| tiling.output_tiles == 1) {
        true => side_of_panels(program, call, conv),
        false => Side::Kernel,
    };
    let parts = Parts::new(&call.nest, conv, form, side);
    let (image, kernel, result) = parts.tensors();
    let label = &call.label;
    let operand = |read: usize| match call.nest.reads[read].source {
        Source::Operand(i) => call.operands[i],
        Source::Stage(_) => unreachable!("Program::verify rejects kernels that read stages"),
    };
    let (from_image, from_kernel) = (operand(conv.image), operand(conv.kernel));
    let constant = program.mode == Mode::Infer
        && matches!(
            program.value(program.owner(from_kernel)).role,
            Role::Parameter { .. }
        );
    let tiles = add(program, format!("{label}.tiles"), image.extents());
    let taps = add(program, format!("{label}.taps"), kernel.extents());
    let products = add(program, format!("{label}.products"), result.extents());
    let kernel_call = |label: String, nest, operands, result, prepare| KernelCall {
        label,
        nest,
        operands,
        results: vec![result],
        prepare,
    };
    let finish = KernelCall {
        nest: parts.finish(&result, call.operands.len()),
        operands: call.operands.iter().copied().chain([products]).collect(),
        ..call.clone()
    };
    vec![
        kernel_call(
            format!("taps of {label}"),
            parts.taps(&kernel),
            vec![from_kernel],
            taps,
            constant,
        ),
        kernel_call(
            format!("tiles of {label}"),
            parts.tiles(&image),
            vec![from_image],
            tiles,
            false,
        ),
        kernel_call(
            format!("products of {label}"),
            parts.product(&image, &kernel, &result),
            vec![tiles, taps],
            products,
            false,
        ),
        drop_unused(finish),
    ]
}

fn add(program: &mut Program, name: String, extents: Vec<usize>) -> ValueId {
    program.values.push(Value {
        name,
        dtype: DType::F32,
        layout: Layout::row_major(extents.len()),
        extents,
        role: Role::Temporary,
        alias: None,
        place: Place::Own,
    });
    ValueId(program.values.len() - 1)
}

/// Removes operands that no read uses.
fn drop_unused(mut call: KernelCall) -> KernelCall {
    let old = std::mem::take(&mut call.operands);
    for read in &mut call.nest.reads {
        if let Source::Operand(i) = &mut read.source {
            let place = call.operands.iter().position(|&id| id == old[*i]);
            *i = place.unwrap_or_else(|| {
                call.operands.push(old[*i]);
                call.operands.len() - 1
            });
        }
    }
    call
}

/// Whose places lie next to each other in the product's result: those next to each other in the nest's own, as far as
/// layouts are known. Images are kept channels last.
fn side_of_panels(program: &Program, call: &KernelCall, conv: &Convolution) -> Side {
    let output = &call.nest.outputs[0];
    let result = program.value(call.results[0]);
    let order = match result.role {
        Role::Temporary if result.alias.is_none() => Layout::channels_last(output.extents.len()).order,
        _ => (0..output.extents.len()).collect(),
    };
    let step = |loops: &[Loop]| {
        let last = loops.last()?;
        let walked = |d: &usize| output.index[*d].coefficient(*last) != 0;
        order.iter().rev().position(|d| walked(d))
    };
    match (step(&conv.image_only), step(&conv.kernel_only)) {
        (Some(image), Some(kernel)) if image < kernel => Side::Image,
        _ => Side::Kernel,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Image,
    Kernel,
}

/// A tensor between the nests, of three dimensions that each count several loops: the batch, then the dimension that
/// layouts put innermost, then all else. The lanes of panels are the innermost, and panels and the depth all else.
struct Tensor {
    batch: usize,
    inner: usize,
    outer: usize,
}

impl Tensor {
    fn extents(&self) -> Vec<usize> {
        vec![self.batch, self.inner, self.outer]
    }
}

/// Loops of a new nest that stand for those of the old one.
struct Renamed {
    parallel: Vec<usize>,
    /// What an old loop is in the new ones.
    old: Vec<Affine>,
}

impl Renamed {
    fn new(loops: usize) -> Renamed {
        Renamed {
            parallel: vec![],
            old: vec![Affine::default(); loops],
        }
    }

    fn add(&mut self, extent: usize) -> Loop {
        self.parallel.push(extent);
        Loop(self.parallel.len() - 1)
    }

    fn keep(&mut self, l: Loop, extent: usize) {
        self.old[l.0] = Affine::of(self.add(extent));
    }

    fn map(&self, map: &Affine) -> Affine {
        let terms = map.terms.iter();
        terms.fold(Affine::constant(map.constant), |sum, &(l, factor)| {
            sum.plus(&self.old[l.0], factor)
        })
    }
}

struct Parts<'a> {
    nest: &'a Nest,
    conv: &'a Convolution,
    form: &'a Form,
    matrices: Vec<Matrices>,
    extents: Vec<usize>,
    side: Side,
    product: Product,
    /// Lanes of a panel.
    lanes: usize,
}

impl Parts<'_> {
    fn new<'a>(nest: &'a Nest, conv: &'a Convolution, form: &'a Form, side: Side) -> Parts<'a> {
        let product = Product::new(nest, conv, form);
        let extents = nest.extents();
        let panelled = match side {
            Side::Image => &conv.image_only,
            Side::Kernel => &conv.kernel_only,
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
    fn tensors(&self) -> (Tensor, Tensor, Tensor) {
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
            Side::Kernel => (plain(depth, rows), panels(columns), plain(columns, rows)),
            Side::Image => (panels(rows), plain(columns, depth), plain(rows, columns)),
        }
    }

    /// The number of the batch: products of the pairs, then groups.
    fn batch(&self, products: &[Loop], renamed: &Renamed) -> Affine {
        let mut number = Affine::default();
        for (&l, matrices) in products.iter().zip(&self.matrices) {
            number = Affine::default()
                .plus(&number, matrices.products as i64)
                .plus_loop(l, 1);
        }
        self.count(number, &self.conv.batch, renamed)
    }

    /// A number of more loops, each of them faster than those before.
    fn count(&self, mut number: Affine, loops: &[Loop], renamed: &Renamed) -> Affine {
        for l in loops {
            let own = &renamed.old[l.0];
            number = Affine::default()
                .plus(&number, self.extents[l.0] as i64)
                .plus(own, 1);
        }
        number
    }

    /// Loops and then tiles of the pairs as one number.
    fn places(
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
    fn keep(&self, renamed: &mut Renamed, loops: &[Loop], side: Side) -> Option<Loop> {
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

    fn table(&self, values: &[f64], row: Loop, columns: usize, column: Loop) -> Expr {
        Expr::Table {
            values: values.to_vec(),
            index: Affine::of(column).plus_loop(row, columns as i64),
        }
    }

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
    fn tiles(&self, tensor: &Tensor) -> Nest {
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
    fn taps(&self, tensor: &Tensor) -> Nest {
        let mut renamed = Renamed::new(self.extents.len());
        let conv = self.conv;
        let products: Vec<Loop> = self.matrices.iter().map(|m| renamed.add(m.products)).collect();
        conv.batch
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let panel = self.keep(&mut renamed, &conv.kernel_only, Side::Kernel);
        conv.shared
            .iter()
            .for_each(|l| renamed.keep(*l, self.extents[l.0]));
        let tilings = || self.form.tilings.iter();
        let depths: Vec<Loop> = tilings().map(|t| renamed.add(t.tap_tiles)).collect();
        let first = renamed.parallel.len();
        let (mut tables, mut guards) = (vec![], vec![]);
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
                guards.push(Guard {
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
        read.guards = guards;
        let column = self.places(&conv.kernel_only, &[], |_| 1, &renamed);
        let depth = self.places(&conv.shared, &depths, |t| t.tap_tiles, &renamed);
        let batch = self.batch(&products, &renamed);
        let output = self.output(tensor, batch, (column, panel), depth);
        let taps = tilings().map(|t| t.taps).collect();
        self.transform(renamed, taps, tables, read, output)
    }

    /// A read of the old nest over new loops, from this operand.
    fn read(&self, read: usize, renamed: &Renamed, operand: usize) -> Read {
        let read = &self.nest.reads[read];
        Read {
            source: Source::Operand(operand),
            index: read
                .index
                .iter()
                .map(|index| Index::new(renamed.map(&index.map)))
                .collect(),
            guards: vec![],
            outside: read.outside,
        }
    }

    /// A transformed tensor as an output.
    fn output(
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
            None if self.side == Side::Kernel => vec![batch, depth, place],
            None => vec![batch, place, depth],
        };
        Output {
            dtype: DType::F32,
            extents: tensor.extents(),
            index,
            value: Expr::Reduced,
        }
    }

    /// The products of transformed tiles and taps, summed over what both walk.
    fn product(&self, image: &Tensor, kernel: &Tensor, result: &Tensor) -> Nest {
        let Product {
            batch,
            rows,
            columns,
            depth,
        } = self.product;
        let (whole, panelled, lanes) = match self.side {
            Side::Kernel => (rows, columns, self.lanes),
            Side::Image => (columns, rows, self.lanes),
        };
        // Loops: batch, places of the side without panels, panels, lanes; depth.
        let [b, w, p, l, d] = std::array::from_fn(Loop);
        let read = |operand: usize, index: [Affine; 3]| Read {
            source: Source::Operand(operand),
            index: index.map(Index::new).into(),
            guards: vec![],
            outside: 0.0,
        };
        let panels = |operand: usize| {
            let rows = Affine::of(d).plus_loop(p, depth as i64);
            read(operand, [Affine::of(b), Affine::of(l), rows])
        };
        let plain =
            |operand: usize, inner: Loop, outer: Loop| read(operand, [b, inner, outer].map(Affine::of));
        let place = Affine::of(l).plus_loop(p, lanes as i64);
        let reads = match self.side {
            Side::Kernel => vec![plain(0, d, w), panels(1)],
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
    fn finish(&self, result: &Tensor, operand: usize) -> Nest {
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
        let column = self.places(&conv.kernel_only, &[], |_| 1, &renamed);
        let (inner, outer) = match self.side {
            Side::Kernel => (column, row),
            Side::Image => (row, column),
        };
        debug_assert_eq!(result.extents().len(), 3);
        let read = Read {
            source: Source::Operand(operand),
            index: [batch, inner, outer].map(Index::new).into(),
            guards: vec![],
            outside: 0.0,
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
        for (i, old) in reads.iter_mut().enumerate() {
            if reads_of_parallel(i) {
                old.index
                    .iter_mut()
                    .for_each(|index| index.map = renamed.map(&index.map));
                old.guards
                    .iter_mut()
                    .for_each(|guard| guard.map = renamed.map(&guard.map));
            }
        }
        reads[conv.image] = read;
        // Nothing refers to the kernel any more, and the number of other reads must stay.
        let body = body * Expr::Read(conv.image);
        let outputs = self.nest.outputs.iter().map(|output| Output {
            index: output.index.iter().map(|map| renamed.map(map)).collect(),
            value: rename(&output.value, &renamed),
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

/// An expression over new loops.
fn rename(value: &Expr, renamed: &Renamed) -> Expr {
    value.map_leaves(&mut |leaf| match leaf {
        Expr::Index(map) => Expr::Index(renamed.map(map)),
        Expr::Table { values, index } => Expr::Table {
            values: values.clone(),
            index: renamed.map(index),
        },
        Expr::Uniform {
            seed,
            step,
            stream,
            element,
        } => Expr::Uniform {
            seed: *seed,
            step: *step,
            stream: *stream,
            element: renamed.map(element),
        },
        other => other.clone(),
    })
}

/// Lanes of a panel: as for packed weights; where the other side could be the vectors too, as many as let this one be.
fn panel(extent: usize, side: Side) -> usize {
    match side {
        Side::Image if extent.is_multiple_of(64) => 64,
        _ => crate::layout::panel_width(extent),
    }
}
