//! A register tile: sums of products over the inner reduction, and the outputs of finished sums.

use super::{Schedule, Staged, Tile};
use crate::access::Access;
use crate::emit::{Point, Scope, argument_name, argument_type};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::Loop;

impl Schedule {
    /// Vector `j` of the panel at a point of the reduction.
    pub(super) fn load_panel(
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
    pub(super) fn at_edge(&self, body: &mut Body, loops: &[Value], last: bool) -> Option<Value> {
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
    pub(super) fn write_tile(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        staged: Staged,
    ) {
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
        if self.adds {
            let before = self.partial_sums(body, loops, tile, mask, None);
            let sums = add(body, tile, &before, &sums);
            self.partial_sums(body, loops, tile, mask, Some(&sums));
            return;
        }
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
    pub(super) fn sum_chains(
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
    pub(super) fn sum(
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
    pub(super) fn multiply(
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
    pub(super) fn each_vector(
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
    pub(super) fn partial_sums(
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
    pub(super) fn finish(
        &self,
        body: &mut Body,
        loops: &[Value],
        tile: Tile,
        mask: Option<Value>,
        sums: &[Value],
    ) {
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
