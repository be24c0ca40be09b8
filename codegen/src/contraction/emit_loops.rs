//! The loops around a register tile: tasks, panels of the vector loop, rows of tiles, and what is staged for them.

use super::{Schedule, Staged, Tile};
use crate::emit::{Point, argument_name, argument_type};
use crate::kernel::delinearize;
use crate::mlir::{Body, Value};
use ir::nest::Loop;

impl Schedule {
    pub(super) fn write(&self, body: &mut Body, task: Value) {
        let zero = body.index(0);
        let mut loops = vec![zero; self.nest.extents.len()];
        let iterations = delinearize(body, task, &self.task_extents());
        for (l, &value) in self.tasks.iter().zip(&iterations) {
            loops[l.0] = value;
        }
        let last = *iterations.last().expect("panels or blocks are decoded last");
        let sweep: Vec<Loop> = self.before.iter().chain(&self.outer).copied().collect();
        self.nested(body, &mut loops, &sweep, &mut |body, loops| {
            self.write_panels(body, loops, last)
        });
    }

    pub(super) fn nested(
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
    pub(super) fn write_panels(&self, body: &mut Body, loops: &mut [Value], last: Value) {
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
    pub(super) fn write_rows(
        &self,
        body: &mut Body,
        loops: Vec<Value>,
        tile: Tile,
        mask: Option<Value>,
        last: Value,
    ) {
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
    pub(super) fn stage(&self, body: &mut Body, loops: &[Value], tile: Tile, mask: Option<Value>) -> Value {
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
    pub(super) fn stage_scalars(&self, body: &mut Body, loops: &[Value], tile: Tile) -> Value {
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

    pub(super) fn scratch_type(&self) -> String {
        let points: usize = self.inner.iter().map(|&l| self.nest.extent(l)).product();
        let tiles = self.rows().div_ceil(self.tile.rows);
        format!("memref<{}xf32>", tiles * points * self.tile.width)
    }

    /// Where row `r` of the tile and the point of the inner reduction at `loops` lies among staged scalars.
    pub(super) fn scratch_row(&self, body: &mut Body, loops: &[Value], r: usize) -> Value {
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
}
