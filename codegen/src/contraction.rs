//! Kernels of contractions: sums of products of two reads, such as convolutions and matrix products.
//!
//! One operand is read a vector at a time along the *vector loop* (contiguous in it, constant in the other
//! operand); of the other one scalar a row is broadcast, for a tile of rows along the *tile loop*. The tile's
//! sums stay in registers over the inner reduction loops; outer reduction loops accumulate in the first result, or
//! in scratch memory where that takes the place of an operand that the epilogue reads, or is not contiguous.
//! Nothing is copied for that, apart from a small staged panel where rows of the vector operand lie far apart:
//! layouts, halos and packed weights were arranged by `passes` so that plain strides find every element.

use crate::access::{Access, Operand};
use crate::emit::{Point, Scope, argument_name, argument_type};
use crate::kernel::{KernelText, Resolved, decode, frame};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use ir::layout::Layout;
use ir::nest::{Loop, Nest, Output};

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

/// Bytes of the vector operand that one sweep over the tile loop may use: they should stay in the L2 cache.
const PANEL_BYTES: usize = 320 * 1024;
/// Rows of the vector operand farther apart than this many elements are staged, this many rows at a time.
const FAR: i64 = 512;
const STAGED_ROWS: usize = 256;
/// Bytes of scalars staged for all tiles together: they should stay in the L2 cache beside the panel.
const STAGED_BYTES: usize = 320 * 1024;
/// Points of the reduction whose scalars are staged: a tile's should stay in the L1 cache.
const STAGED_POINTS: usize = 288;
/// Products that one chain of additions may sum: chains are summed apart and then added, as the rounding error of a
/// chain grows with the square root of its length.
const CHAIN: usize = 384;
/// Cycles that storing an element costs where neighbours in a vector lie apart.
const SCATTER: f64 = 1.5;
/// Tasks to make at least, where the loops allow it.
const TASKS: usize = 16;
/// The same where every task reads an operand as a whole.
const FEW_TASKS: usize = 6;

/// Lowers a contraction, or returns `None` where its operands are not arranged for it. `in_place` says whether a
/// result shares the memory of an operand.
pub fn lower(
    nest: &Nest,
    operands: &[Operand],
    results: &[Operand],
    in_place: bool,
    width: usize,
) -> Option<KernelText> {
    let (a, b) = nest.contraction()?;
    let resolved = Resolved::new(nest, operands, results);
    if !resolved.reads[a].is_affine() || !resolved.reads[b].is_affine() {
        return None;
    }
    let mut schedule = Schedule::new(resolved, a, b, width)?;
    let mut arguments = [operands, results].concat();
    let scattered = schedule.partial.step(schedule.vector) != Some(1);
    let scratch = (!schedule.outer.is_empty() && (in_place || scattered)).then(|| Operand {
        layout: Layout::ordered(vector_last(&nest.outputs[0], schedule.vector)),
        ..results[0].clone()
    });
    if let Some(scratch) = &scratch {
        schedule.partial = Access::of_output(&nest.outputs[0], arguments.len(), scratch);
        arguments.push(scratch.clone());
    }
    let text = frame(&arguments, schedule.task_count(), |body, task| {
        schedule.write(body, task)
    });
    Some(KernelText { scratch, ..text })
}

struct Schedule {
    nest: Resolved,
    /// Where partial sums are kept between iterations of the outer reduction.
    partial: Access,
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

impl Schedule {
    fn new(mut nest: Resolved, a: usize, b: usize, width: usize) -> Option<Schedule> {
        let (vector, scalar, panel) = choose_vector(&nest, a, b, width)?;
        let (row, tile) = choose_tile(&nest, vector, scalar, panel, width);
        let far = |nest: &Resolved, l: Loop| nest.reads[panel].step(l).unwrap_or(0).abs() >= FAR;

        // The reduction, in the order in which the scalar operand lies in memory; as much of it inside the tile
        // as lets the panel stay in cache.
        let mut reduction: Vec<Loop> = nest
            .reduction_loops()
            .into_iter()
            .filter(|&l| nest.extent(l) > 1)
            .collect();
        reduction.sort_by_key(|&l| std::cmp::Reverse(nest.reads[scalar].step(l).map(i64::abs)));
        let row_bytes = tile.vectors * tile.width * 4;
        let reused = |l: &&Loop| **l != vector && reuses(&nest, scalar, **l);
        let reuse: usize = nest
            .parallel_loops()
            .iter()
            .filter(reused)
            .map(|&l| nest.extent(l))
            .product();
        let row_tiles = row.map_or(1, |l| nest.extent(l).div_ceil(tile.rows));
        let contiguous = row.is_some_and(|l| nest.reads[scalar].step(l) == Some(1));
        let mut scalars_staged = contiguous && reuse >= 4 && tile.rows <= tile.width;
        let stage = reduction.len() == 1 && far(&nest, reduction[0]) && row.is_some();
        let limit = match (stage, scalars_staged) {
            (true, _) => STAGED_ROWS,
            (_, true) => STAGED_POINTS
                .min(STAGED_BYTES / (4 * tile.width * row_tiles))
                .max(1),
            _ => PANEL_BYTES / row_bytes,
        };
        let mut inner: Vec<Loop> = vec![];
        let mut points = 1;
        while let Some(&l) = reduction.last() {
            if points * nest.extent(l) > limit {
                break;
            }
            points *= nest.extent(l);
            inner.insert(0, l);
            reduction.pop();
        }
        // Of the next loop a part, so that partial sums are loaded and stored less often.
        if let Some(&l) = reduction.last() {
            let extent = nest.extent(l);
            let most = if inner.is_empty() || scalars_staged {
                limit / points
            } else {
                (limit / 2).min(STAGED_POINTS) / points
            };
            let part = (2..=most.min(extent)).rev().find(|&d| extent.is_multiple_of(d));
            let part = part.unwrap_or(if inner.is_empty() { extent } else { 1 });
            if part == extent {
                reduction.pop();
                inner.insert(0, l);
            } else if part > 1 {
                inner.insert(0, nest.split(l, part));
            }
        }
        if nest.outputs[0].0.dtype != ir::DType::F32 {
            inner = reduction.drain(..).chain(inner).collect();
        }
        let staged = stage && inner.len() == 1;
        let chain = if staged {
            0
        } else {
            split_chain(&mut nest, &mut inner)
        };

        // Everything else is a task, or a loop within one.
        let mut others: Vec<Loop> = nest.parallel_loops();
        others.retain(|&l| l != vector && Some(l) != row);
        let panels = nest.extent(vector).div_ceil(tile.vectors * tile.width);
        let (mut tasks, mut count) = (vec![], 1);
        let mut panels_are_tasks = false;
        let mut block = None;
        if others.is_empty() {
            let size = |access: &Access| access.elements;
            let (result, from, to) = (&nest.outputs[0].0, &nest.reads[scalar], &nest.reads[panel]);
            if size(result) > size(to).max(size(from)) {
                block = Some(4.min(row_tiles.div_ceil(TASKS)).max(1));
            } else if size(to) > size(from) {
                panels_are_tasks = true;
            } else {
                block = Some(8.min(row_tiles.div_ceil(TASKS)).max(1));
            }
        } else if !reduction.is_empty() {
            // Each task sweeps the whole outer reduction: make few tasks that share little.
            panels_are_tasks = panels > 1;
            count = panels;
            let steps = |l: &Loop| nest.reads[panel].step(*l) != Some(0);
            others.sort_by_key(|l| !steps(l));
            while count < FEW_TASKS && !others.is_empty() {
                let l = others.remove(0);
                count *= nest.extent(l);
                tasks.push(l);
            }
        } else {
            while count < TASKS && !others.is_empty() {
                let l = others.remove(0);
                count *= nest.extent(l);
                tasks.push(l);
            }
        }
        // A staged panel is one for all loops after it, so none of them may move it.
        let (before, after): (Vec<Loop>, Vec<Loop>) = others
            .into_iter()
            .partition(|&l| nest.reads[panel].step(l) != Some(0) && (staged || !reuses(&nest, scalar, l)));
        let used_again: usize = after.iter().map(|&l| nest.extent(l)).product();
        scalars_staged &=
            !reduction.is_empty() && used_again > 1 && after.iter().all(|&l| reuses(&nest, scalar, l));
        Some(Schedule {
            partial: nest.outputs[0].0.clone(),
            nest,
            scalar,
            panel,
            vector,
            row,
            tile,
            tasks,
            panels_are_tasks,
            block,
            before,
            outer: reduction,
            after,
            inner,
            chain,
            staged,
            scalars_staged,
        })
    }

    fn panels(&self) -> usize {
        self.nest
            .extent(self.vector)
            .div_ceil(self.tile.vectors * self.tile.width)
    }

    fn rows(&self) -> usize {
        self.row.map_or(1, |l| self.nest.extent(l))
    }

    /// Extents of the loops that the task number counts, panels or row blocks last.
    fn task_extents(&self) -> Vec<usize> {
        let mut extents: Vec<usize> = self.tasks.iter().map(|&l| self.nest.extent(l)).collect();
        extents.push(match self.block {
            _ if self.panels_are_tasks => self.panels(),
            Some(block) => self.rows().div_ceil(block * self.tile.rows),
            None => 1,
        });
        extents
    }

    fn task_count(&self) -> u64 {
        self.task_extents().iter().map(|&n| n as u64).product()
    }

    fn write(&self, body: &mut Body, task: Value) {
        let zero = body.index(0);
        let mut loops = vec![zero; self.nest.extents.len()];
        let iterations = decode(body, task, &self.task_extents());
        for (l, &value) in self.tasks.iter().zip(&iterations) {
            loops[l.0] = value;
        }
        let last = *iterations.last().expect("panels or blocks are decoded last");
        let sweep: Vec<Loop> = self.before.iter().chain(&self.outer).copied().collect();
        self.nested(body, &mut loops, &sweep, &mut |body, loops| {
            self.write_panels(body, loops, last)
        });
    }

    fn nested(
        &self,
        body: &mut Body,
        loops: &mut Vec<Value>,
        rest: &[Loop],
        innermost: &mut dyn FnMut(&mut Body, &mut Vec<Value>),
    ) {
        let Some((&l, rest)) = rest.split_first() else {
            return innermost(body, loops);
        };
        body.for_extent(self.nest.extent(l), |body, i| {
            loops[l.0] = i;
            self.nested(body, loops, rest, innermost);
        });
    }

    /// All panels of the vector loop, or the one that the task is for; a last narrow one apart.
    fn write_panels(&self, body: &mut Body, loops: &mut [Value], last: Value) {
        let (extent, wide) = (self.nest.extent(self.vector), self.tile.vectors * self.tile.width);
        let (whole, rest) = (extent / wide, extent % wide);
        let narrow = Tile {
            vectors: rest.div_ceil(self.tile.width),
            ..self.tile
        };
        let one = |body: &mut Body, start: Value, tile: Tile, partial: usize| {
            let mut loops = loops.to_vec();
            loops[self.vector.0] = start;
            let mask = (partial > 0).then(|| {
                let count = body.index(partial as i64);
                body.op(format_args!(
                    "vector.create_mask {count} : vector<{}xi1>",
                    tile.width
                ))
            });
            self.write_rows(body, loops, tile, mask, last);
        };
        let partial = rest % self.tile.width;
        if self.panels_are_tasks {
            let start = body.sum(0, &[(last, wide as i64)]);
            match (whole, rest) {
                (_, 0) => one(body, start, self.tile, 0),
                (0, _) => one(body, start, narrow, partial),
                _ => {
                    let count = body.index(whole as i64);
                    let is_whole = body.op(format_args!("arith.cmpi ult, {last}, {count} : index"));
                    body.if_true(is_whole, |body| one(body, start, self.tile, 0));
                    let is_rest = body.op(format_args!("arith.cmpi uge, {last}, {count} : index"));
                    body.if_true(is_rest, |body| one(body, start, narrow, partial));
                }
            }
            return;
        }
        if whole > 0 {
            let (low, high) = (body.index(0), body.index((whole * wide) as i64));
            body.for_each(low, high, wide as i64, |body, start| {
                one(body, start, self.tile, 0)
            });
        }
        if rest > 0 {
            let start = body.index((whole * wide) as i64);
            one(body, start, narrow, partial);
        }
    }

    /// The loops after the panel, and the tiles of rows; a last short tile apart.
    fn write_rows(&self, body: &mut Body, loops: Vec<Value>, tile: Tile, mask: Option<Value>, last: Value) {
        let panel = self.staged.then(|| self.stage(body, &loops, tile, mask));
        let (rows, step) = (self.rows(), tile.rows);
        let scalars = self
            .scalars_staged
            .then(|| self.stage_scalars(body, &loops, tile));
        let whole = rows / step * step;
        let short = Tile {
            rows: rows - whole,
            ..tile
        };
        // The loops after the panel come inside the tile: its rows of the scalar operand are reused by them.
        let one = |body: &mut Body, start: Value, tile: Tile| {
            let mut loops = loops.clone();
            if let Some(row) = self.row {
                loops[row.0] = start;
            }
            self.nested(body, &mut loops, &self.after, &mut |body, loops| {
                self.write_tile(body, loops, tile, mask, Staged { panel, scalars });
            });
        };
        match self.block {
            None => {
                if whole == step {
                    let start = body.index(0);
                    one(body, start, tile);
                } else if whole > 0 {
                    let (low, high) = (body.index(0), body.index(whole as i64));
                    body.for_each(low, high, step as i64, |body, start| one(body, start, tile));
                }
                if short.rows > 0 {
                    let start = body.index(whole as i64);
                    one(body, start, short);
                }
            }
            Some(block) => {
                let low = body.sum(0, &[(last, (block * step) as i64)]);
                let (next, end) = (
                    body.sum((block * step) as i64, &[(low, 1)]),
                    body.index(whole as i64),
                );
                let high = body.op(format_args!("arith.minui {next}, {end} : index"));
                body.for_each(low, high, step as i64, |body, start| one(body, start, tile));
                if short.rows > 0 {
                    // The short tile belongs to the block in which it starts.
                    let after_low = body.op(format_args!("arith.cmpi ule, {low}, {end} : index"));
                    let before_next = body.op(format_args!("arith.cmpi ult, {end}, {next} : index"));
                    let mine = body.op(format_args!("arith.andi {after_low}, {before_next} : i1"));
                    body.if_true(mine, |body| one(body, end, short));
                }
            }
        }
    }

    /// Copies the panel's rows next to each other; returns the scratch buffer.
    fn stage(&self, body: &mut Body, loops: &[Value], tile: Tile, mask: Option<Value>) -> Value {
        let l = self.inner[0];
        let (rows, row) = (self.nest.extent(l), tile.vectors * tile.width);
        let ty = format!("memref<{}xf32>", rows * row);
        let scratch = body.at_entry(format_args!("memref.alloca() {{alignment = 64 : i64}} : {ty}"));
        let access = &self.nest.reads[self.panel];
        body.for_extent(rows, |body, k| {
            let mut loops = loops.to_vec();
            loops[l.0] = k;
            for j in 0..tile.vectors {
                let value = self.load_panel(body, access, &loops, tile, j, mask);
                let at = body.sum((j * tile.width) as i64, &[(k, row as i64)]);
                body.line(format_args!(
                    "vector.store {value}, {scratch}[{at}] : {ty}, vector<{}xf32>",
                    tile.width
                ));
            }
        });
        scratch
    }

    /// Copies the scalars of all tiles so that each tile's lie next to each other, `width` elements a point of the
    /// inner reduction. Reading them all at once walks memory in order, which the processor's prefetchers follow;
    /// tile by tile it would wait for memory at every point.
    fn stage_scalars(&self, body: &mut Body, loops: &[Value], tile: Tile) -> Value {
        let (width, ty) = (tile.width, self.scratch_type());
        let scratch = body.at_entry(format_args!("memref.alloca() {{alignment = 64 : i64}} : {ty}"));
        let row = self.row.expect("scalars are staged for rows");
        let access = &self.nest.reads[self.scalar];
        let (name, memref) = (argument_name(access.argument), argument_type(access));
        let rows = self.rows();
        let zero = body.op(format_args!("arith.constant dense<0.0> : vector<{width}xf32>"));
        let mask = |body: &mut Body, count: usize| {
            let count = body.index(count as i64);
            body.op(format_args!("vector.create_mask {count} : vector<{width}xi1>"))
        };
        let (whole, rest) = (rows / tile.rows, rows % tile.rows);
        let (full, partial) = (mask(body, tile.rows), mask(body, rest));
        self.nested(body, &mut loops.to_vec(), &self.inner, &mut |body, loops| {
            let one = |body: &mut Body, start: Value, mask: Value| {
                let mut loops = loops.clone();
                loops[row.0] = start;
                let from = Point { loops: loops.clone(), vector: None }.offset(body, access);
                let line = body.op(format_args!(
                    "vector.maskedload {name}[{from}], {mask}, {zero} : {memref}, vector<{width}xi1>, vector<{width}xf32> into vector<{width}xf32>"
                ));
                let to = self.scratch_row(body, &loops, 0);
                body.line(format_args!("vector.store {line}, {scratch}[{to}] : {ty}, vector<{width}xf32>"));
            };
            if whole > 0 {
                let (low, high) = (body.index(0), body.index((whole * tile.rows) as i64));
                body.for_each(low, high, tile.rows as i64, |body, start| one(body, start, full));
            }
            if rest > 0 {
                let start = body.index((whole * tile.rows) as i64);
                one(body, start, partial);
            }
        });
        scratch
    }

    fn scratch_type(&self) -> String {
        let points: usize = self.inner.iter().map(|&l| self.nest.extent(l)).product();
        let tiles = self.rows().div_ceil(self.tile.rows);
        format!("memref<{}xf32>", tiles * points * self.tile.width)
    }

    /// Where row `r` of the tile and the point of the inner reduction at `loops` lies among staged scalars.
    fn scratch_row(&self, body: &mut Body, loops: &[Value], r: usize) -> Value {
        let mut stride = self.tile.width as i64;
        let mut terms = vec![];
        for &l in self.inner.iter().rev() {
            terms.push((loops[l.0], stride));
            stride *= self.nest.extent(l) as i64;
        }
        let row = self.row.expect("scalars are staged for rows");
        let tile = body.index_op("divui", loops[row.0], self.tile.rows as i64);
        terms.push((tile, stride));
        body.sum(r as i64, &terms)
    }

    /// Vector `j` of the panel at a point of the reduction.
    fn load_panel(
        &self,
        body: &mut Body,
        access: &Access,
        loops: &[Value],
        tile: Tile,
        j: usize,
        mask: Option<Value>,
    ) -> Value {
        let (name, memref, width) = (argument_name(access.argument), argument_type(access), tile.width);
        let point = Point {
            loops: loops.to_vec(),
            vector: None,
        };
        let base = point.offset(body, access);
        let at = body.sum((j * width) as i64, &[(base, 1)]);
        match mask.filter(|_| j + 1 == tile.vectors) {
            None => body.op(format_args!(
                "vector.load {name}[{at}] : {memref}, vector<{width}xf32>"
            )),
            Some(mask) => {
                let zero = body.op(format_args!("arith.constant dense<0.0> : vector<{width}xf32>"));
                body.op(format_args!(
                    "vector.maskedload {name}[{at}], {mask}, {zero} : {memref}, vector<{width}xi1>, vector<{width}xf32> into vector<{width}xf32>"
                ))
            }
        }
    }

    /// Whether all outer reduction loops are at their first (or last) iteration.
    fn at_edge(&self, body: &mut Body, loops: &[Value], last: bool) -> Option<Value> {
        let mut condition: Option<Value> = None;
        for &l in &self.outer {
            let edge = body.index(if last { self.nest.extent(l) as i64 - 1 } else { 0 });
            let here = body.op(format_args!("arith.cmpi eq, {}, {edge} : index", loops[l.0]));
            condition = Some(match condition {
                None => here,
                Some(other) => body.op(format_args!("arith.andi {other}, {here} : i1")),
            });
        }
        condition
    }

    /// One register tile: its sums over the inner reduction, then the outputs.
    fn write_tile(&self, body: &mut Body, loops: &[Value], tile: Tile, mask: Option<Value>, staged: Staged) {
        let count = tile.rows * tile.vectors;
        let types = vec![format!("vector<{}xf32>", tile.width); count];
        let (chains, chain) = self.inner.split_at(self.chain);
        let sums = if chains.is_empty() {
            let zeros = zeros(body, tile);
            self.sum(body, loops, tile, mask, staged, chain, zeros, &types)
        } else {
            let totals = zeros(body, tile);
            self.sum_chains(body, loops, tile, mask, staged, chains, totals, &types)
        };
        let sums = match self.at_edge(body, loops, false) {
            None => sums,
            Some(first) => body.if_else(
                first,
                &types,
                |_| sums.clone(),
                |body| {
                    let partial = self.partial_sums(body, loops, tile, mask, None);
                    add(body, tile, &partial, &sums)
                },
            ),
        };
        match self.at_edge(body, loops, true) {
            None => self.finish(body, loops, tile, mask, &sums),
            Some(last) => {
                body.if_true(last, |body| self.finish(body, loops, tile, mask, &sums));
                let truth = body.op("arith.constant true");
                let more = body.op(format_args!("arith.xori {last}, {truth} : i1"));
                body.if_true(more, |body| {
                    self.partial_sums(body, loops, tile, mask, Some(&sums));
                });
            }
        }
    }

    /// The sums over the loops around chains, each chain summed apart from the totals.
    #[allow(clippy::too_many_arguments)]
    fn sum_chains(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        staged: Staged,
        rest: &[Loop],
        totals: Vec<Value>,
        types: &[String],
    ) -> Vec<Value> {
        let Some((&l, rest)) = rest.split_first() else {
            let (zeros, chain) = (zeros(body, tile), &self.inner[self.chain..]);
            let sums = self.sum(body, loops, tile, mask, staged, chain, zeros, types);
            return add(body, tile, &totals, &sums);
        };
        let (low, high) = (body.index(0), body.index(self.nest.extent(l) as i64));
        body.for_carry(low, high, 1, &totals, types, |body, i, totals| {
            let mut loops = loops.to_vec();
            loops[l.0] = i;
            self.sum_chains(body, &loops, tile, mask, staged, rest, totals.to_vec(), types)
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn sum(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        staged: Staged,
        rest: &[Loop],
        sums: Vec<Value>,
        types: &[String],
    ) -> Vec<Value> {
        let Some((&l, rest)) = rest.split_first() else {
            return self.multiply(body, loops, tile, mask, staged, &sums);
        };
        let (low, high) = (body.index(0), body.index(self.nest.extent(l) as i64));
        body.for_carry(low, high, 1, &sums, types, |body, i, sums| {
            let mut loops = loops.to_vec();
            loops[l.0] = i;
            self.sum(body, &loops, tile, mask, staged, rest, sums.to_vec(), types)
        })
    }

    /// One point of the reduction: the panel's vectors times each row's scalar.
    fn multiply(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        staged: Staged,
        sums: &[Value],
    ) -> Vec<Value> {
        let width = tile.width;
        let vectors: Vec<Value> = (0..tile.vectors)
            .map(|j| match staged.panel {
                None => self.load_panel(body, &self.nest.reads[self.panel], loops, tile, j, mask),
                Some(scratch) => {
                    let (l, row) = (self.inner[0], tile.vectors * width);
                    let at = body.sum((j * width) as i64, &[(loops[l.0], row as i64)]);
                    let size = self.nest.extent(l) * row;
                    body.op(format_args!(
                        "vector.load {scratch}[{at}] : memref<{size}xf32>, vector<{width}xf32>"
                    ))
                }
            })
            .collect();
        let access = &self.nest.reads[self.scalar];
        let (name, memref) = (argument_name(access.argument), argument_type(access));
        let base = Point {
            loops: loops.to_vec(),
            vector: None,
        }
        .offset(body, access);
        let step = self
            .row
            .map_or(0, |row| access.step(row).expect("the scalar operand is affine"));
        let mut results = vec![];
        for r in 0..tile.rows {
            let scalar = match staged.scalars {
                None => {
                    let at = body.sum(r as i64 * step, &[(base, 1)]);
                    body.op(format_args!("memref.load {name}[{at}] : {memref}"))
                }
                Some(scratch) => {
                    let at = self.scratch_row(body, loops, r);
                    body.op(format_args!(
                        "memref.load {scratch}[{at}] : {}",
                        self.scratch_type()
                    ))
                }
            };
            let splat = body.op(format_args!(
                "vector.broadcast {scalar} : f32 to vector<{width}xf32>"
            ));
            for (j, vector) in vectors.iter().enumerate() {
                let sum = sums[r * tile.vectors + j];
                results.push(body.op(format_args!(
                    "vector.fma {splat}, {vector}, {sum} : vector<{width}xf32>"
                )));
            }
        }
        results
    }

    /// Visits the tile's vectors: the point of each, and its lanes.
    fn each_vector(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        visit: &mut dyn FnMut(&mut Math, Point, usize),
    ) {
        for r in 0..tile.rows {
            for j in 0..tile.vectors {
                let mut loops = loops.to_vec();
                if let Some(row) = self.row {
                    loops[row.0] = body.sum(r as i64, &[(loops[row.0], 1)]);
                }
                loops[self.vector.0] = body.sum((j * tile.width) as i64, &[(loops[self.vector.0], 1)]);
                let lanes = Lanes {
                    width: tile.width,
                    mask: mask.filter(|_| j + 1 == tile.vectors),
                };
                let point = Point {
                    loops,
                    vector: Some(self.vector),
                };
                visit(&mut Math { body, lanes }, point, r * tile.vectors + j);
            }
        }
    }

    /// Loads the partial sums, or stores them.
    fn partial_sums(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        sums: Option<&[Value]>,
    ) -> Vec<Value> {
        let access = &self.partial;
        let mut loaded = vec![];
        self.each_vector(body, loops, tile, mask, &mut |math, point, i| match sums {
            None => loaded.push(point.read(math, access)),
            Some(sums) => point.store(math, access, sums[i]),
        });
        loaded
    }

    /// The outputs of finished sums.
    fn finish(&self, body: &mut Body, loops: &[Value], tile: Tile, mask: Option<Value>, sums: &[Value]) {
        self.each_vector(body, loops, tile, mask, &mut |math, point, i| {
            let mut scope = Scope::of_reads(&self.nest.reads);
            scope.reduced = Some(sums[i]);
            for (access, value) in &self.nest.outputs {
                let value = scope.value(math, &point, value);
                point.store(math, access, value);
            }
        });
    }
}

/// The dimensions of an output, the one along which the vector loop runs innermost.
fn vector_last(output: &Output, vector: Loop) -> Vec<usize> {
    let mut order: Vec<usize> = (0..output.index.len()).collect();
    order.sort_by_key(|&d| output.index[d].coefficient(vector) != 0);
    order
}

/// Sums of a tile that start at zero.
fn zeros(body: &mut Body, tile: Tile) -> Vec<Value> {
    let zero = body.op(format_args!(
        "arith.constant dense<0.0> : vector<{}xf32>",
        tile.width
    ));
    vec![zero; tile.rows * tile.vectors]
}

/// Sums of a tile, vector by vector.
fn add(body: &mut Body, tile: Tile, left: &[Value], right: &[Value]) -> Vec<Value> {
    let ty = format!("vector<{}xf32>", tile.width);
    let pairs = left.iter().zip(right);
    pairs
        .map(|(left, right)| body.op(format_args!("arith.addf {left}, {right} : {ty}")))
        .collect()
}

/// Where in `inner` the loops of one chain of at most [`CHAIN`] additions begin; the loop at that border is split
/// if its divisors allow it.
fn split_chain(nest: &mut Resolved, inner: &mut Vec<Loop>) -> usize {
    let mut points = 1;
    for at in (0..inner.len()).rev() {
        let l = inner[at];
        let extent = nest.extent(l);
        if points * extent > CHAIN {
            let parts = (2..=CHAIN / points).rev().filter(|&d| extent.is_multiple_of(d));
            return match parts.max() {
                Some(part) if part > 2 || points > 1 => {
                    inner.insert(at + 1, nest.split(l, part));
                    at + 1
                }
                _ if points > 1 => at + 1,
                _ => at,
            };
        }
        points *= extent;
    }
    0
}

/// Whether the scalar operand is the same at every iteration of a loop.
fn reuses(nest: &Resolved, scalar: usize, l: Loop) -> bool {
    nest.reads[scalar].step(l) == Some(0)
}

/// The loop to vectorise, with the operand broadcast and the operand read in vectors: the one that wastes the fewest
/// lanes, unless the sums are so short that storing scattered results would cost more.
fn choose_vector(nest: &Resolved, a: usize, b: usize, width: usize) -> Option<(Loop, usize, usize)> {
    let products: usize = nest.reduction_loops().iter().map(|&l| nest.extent(l)).product();
    // Cycles of an element of the result.
    let cost = |l: Loop| {
        let scattered = nest.outputs.iter().filter(|o| o.0.step(l) != Some(1)).count();
        let lanes = nest.extent(l) as f64 / nest.extent(l).div_ceil(width) as f64;
        products as f64 / lanes + scattered as f64 * SCATTER
    };
    let mut best: Option<(f64, Loop, usize, usize)> = None;
    for (scalar, panel) in [(a, b), (b, a)] {
        for l in nest.parallel_loops() {
            if nest.reads[panel].step(l) != Some(1) || nest.reads[scalar].step(l) != Some(0) {
                continue;
            }
            let cost = cost(l);
            let better = best.is_none_or(|(least, other, ..)| {
                cost < least * 0.99 || (cost < least * 1.01 && nest.extent(l) > nest.extent(other))
            });
            if better {
                best = Some((cost, l, scalar, panel));
            }
        }
    }
    best.map(|(_, l, scalar, panel)| (l, scalar, panel))
}

/// The loop to tile, if any, and the tile that keeps the multipliers busiest.
fn choose_tile(
    nest: &Resolved,
    vector: Loop,
    scalar: usize,
    panel: usize,
    width: usize,
) -> (Option<Loop>, Tile) {
    let registers = if width >= 16 { 32 } else { 16 };
    let mut candidates: Vec<Option<Loop>> = nest
        .parallel_loops()
        .into_iter()
        .filter(|&l| {
            l != vector && nest.reads[panel].step(l) == Some(0) && nest.reads[scalar].step(l) != Some(0)
        })
        .map(Some)
        .collect();
    candidates.sort_by_key(|l| l.and_then(|l| nest.reads[scalar].step(l)).map(i64::abs));
    if candidates.is_empty() {
        candidates.push(None);
    }
    let columns = nest.extent(vector).div_ceil(width);
    let mut best: Option<(f64, Option<Loop>, Tile)> = None;
    for &row in &candidates {
        let extent = row.map_or(1, |l| nest.extent(l));
        for vectors in 1..=4usize.min(columns) {
            let most = ((registers - 1 - vectors) / vectors).min(14.max(24 / vectors));
            let tiles = extent.div_ceil(most);
            let rows = extent.div_ceil(tiles);
            let cycles = |rows: usize, vectors: usize| -> f64 {
                if rows * vectors == 0 {
                    0.0
                } else {
                    (rows * vectors).max(rows + vectors).max(6) as f64 + 0.5
                }
            };
            let sweep = |vectors: usize| {
                (extent / rows) as f64 * cycles(rows, vectors) + cycles(extent % rows, vectors)
            };
            let total = (columns / vectors) as f64 * sweep(vectors) + sweep(columns % vectors);
            let cost = total / (extent * columns) as f64;
            if best.as_ref().is_none_or(|(other, ..)| cost < other * 0.995) {
                best = Some((cost, row, Tile { rows, vectors, width }));
            }
        }
    }
    best.map(|(_, row, tile)| (row, tile))
        .expect("there is at least one candidate tile")
}
