//! The arithmetic of one step: threads with fused multiply-add, or warps with tensor cores.
//!
//! Where the lanes of a warp read shared memory, they hit different banks (there are 32, a word each):
//! - f32: a thread's rows and columns come as vectors of four. Eight lanes read eight neighbouring vectors of columns,
//!   and all of them the same vectors of rows.
//! - tensor cores: lane `4g + t` holds elements of row (or column) `g` at some depths (PTX ISA, matrix fragments of
//!   `mma.m16n8k8` and `.m16n8k16`). Which depth of a step is which of the instruction's does not matter as long as both
//!   sides agree, so a lane always takes the neighbours `2t` and `2t + 1`. In lines of depths whose length is 8 more than a
//!   multiple of 32 they are one pair of words, `8g + 2t`, for half a warp at a time; in lines of elements with 4 more,
//!   words `g + 8t` of two lines.

use super::convert::pack;
use super::{Lines, MatrixOperand, Schedule, Unit};
use crate::gpu::Precision;
use crate::gpu::thread::load_shared;
use crate::mlir::{Body, Value};

/// Steps of the depth written out in a loop's body, for f32.
const UNROLL: usize = 4;
/// Rows and columns of one instruction of the tensor cores.
pub(super) const FRAGMENT: (usize, usize) = (16, 8);

/// Where a thread works in its tile.
pub(super) struct Position {
    /// First row and column of its part: of vectors of four (f32), or of its warp.
    pub row: Value,
    pub column: Value,
    /// The lane's group and its number within (tensor cores).
    pub group: Value,
    pub member: Value,
}

impl Schedule<'_> {
    pub(super) fn on_tensor_cores(&self) -> bool {
        self.tile.unit != Unit::Thread
    }

    /// Sums that a thread holds.
    pub(super) fn sums(&self) -> usize {
        let (rows, columns) = self.tile.part;
        match self.on_tensor_cores() {
            true => rows * columns / 32,
            false => rows * columns,
        }
    }

    pub(super) fn position(&self, body: &mut Body, thread: Value) -> Position {
        let (rows, columns) = self.tile.part;
        if !self.on_tensor_cores() {
            let across = (self.tile.columns / columns) as i64;
            let (x, y) = (
                body.index_op("remui", thread, across),
                body.index_op("divui", thread, across),
            );
            let zero = body.index(0);
            return Position {
                row: body.sum(0, &[(y, 4)]),
                column: body.sum(0, &[(x, 4)]),
                group: zero,
                member: zero,
            };
        }
        let warp = body.index_op("divui", thread, 32);
        let lane = body.index_op("remui", thread, 32);
        let across = (self.tile.columns / columns) as i64;
        let (x, y) = (
            body.index_op("remui", warp, across),
            body.index_op("divui", warp, across),
        );
        Position {
            row: body.sum(0, &[(y, rows as i64)]),
            column: body.sum(0, &[(x, columns as i64)]),
            group: body.index_op("divui", lane, 4),
            member: body.index_op("remui", lane, 4),
        }
    }

    /// Adds the products of the step in the stage at `stage` (in words) to a thread's sums.
    pub(super) fn multiply(
        &self,
        body: &mut Body,
        at: &Position,
        stage: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        match self.on_tensor_cores() {
            true => self.multiply_warps(body, at, stage, sums),
            false => self.multiply_threads(body, at, stage, sums),
        }
    }

    fn multiply_threads(&self, body: &mut Body, at: &Position, stage: Value, sums: &[Value]) -> Vec<Value> {
        let (rows, columns) = self.tile.part;
        let down = self.tile.rows / rows;
        let across = self.tile.columns / columns;
        let (low, high) = (body.index(0), body.index(self.tile.depth as i64));
        let types = vec!["f32".to_string(); sums.len()];
        body.for_carry(low, high, UNROLL as i64, sums, &types, |body, k, sums| {
            let mut sums = sums.to_vec();
            for step in 0..UNROLL {
                let mut load =
                    |side: &MatrixOperand, first: Value, start: usize, count: usize, apart: usize| {
                        let mut values = vec![];
                        for group in 0..count / 4 {
                            let constant = start + step * side.stride + 4 * apart * group;
                            let terms = [(stage, 1), (k, side.stride as i64), (first, 1)];
                            let word = body.sum(constant as i64, &terms);
                            let four = load_shared(body, word, 4);
                            for i in 0..4 {
                                values.push(body.op(format_args!(
                                    "vector.extract {four}[{i}] : f32 from vector<4xf32>"
                                )));
                            }
                        }
                        values
                    };
                let left = load(&self.rows, at.row, 0, rows, down);
                let right = load(&self.columns, at.column, self.rows.words, columns, across);
                for (i, a) in left.iter().enumerate() {
                    for (j, b) in right.iter().enumerate() {
                        let sum = &mut sums[i * columns + j];
                        *sum = body.op(format_args!("math.fma {a}, {b}, {sum} : f32"));
                    }
                }
            }
            sums
        })
    }

    fn multiply_warps(&self, body: &mut Body, at: &Position, stage: Value, sums: &[Value]) -> Vec<Value> {
        let (rows, columns) = (self.tile.part.0 / FRAGMENT.0, self.tile.part.1 / FRAGMENT.1);
        let deep = if self.precision == Precision::Tf32 { 8 } else { 16 };
        let mut sums = sums.to_vec();
        for step in (0..self.tile.depth).step_by(deep) {
            // Registers of the fragments: rows g and g + 8 at the first depths, then both at the last ones.
            let left: Vec<Vec<Value>> = (0..rows)
                .map(|i| {
                    let [upper, lower] = [0, 8].map(|down| {
                        let row = FRAGMENT.0 * i + down;
                        self.fragment(body, &self.rows, at, at.row, stage, (0, row, step))
                    });
                    vec![upper[0], lower[0], upper[1], lower[1]]
                })
                .collect();
            for j in 0..columns {
                let (start, column) = (self.rows.words, FRAGMENT.1 * j);
                let right = self.fragment(body, &self.columns, at, at.column, stage, (start, column, step));
                for (i, left) in left.iter().enumerate() {
                    let first = (i * columns + j) * 4;
                    let made = self.matrix_product(body, left, &right, &sums[first..first + 4]);
                    sums[first..first + 4].copy_from_slice(&made);
                }
            }
        }
        sums
    }

    /// A lane's two registers of a row or column: the element `offset` after the lane's own, at the depths from `depth`
    /// on; `start` is where the side begins in the stage.
    fn fragment(
        &self,
        body: &mut Body,
        side: &MatrixOperand,
        at: &Position,
        first: Value,
        stage: Value,
        (start, offset, depth): (usize, usize, usize),
    ) -> [Value; 2] {
        let pair = |body: &mut Body, depth: usize| {
            let by_depth = side.lines == Lines::Depths;
            let (along, across) = if by_depth {
                (1, side.stride)
            } else {
                (side.stride, 1)
            };
            let constant = start + offset * along + depth * across;
            let terms = [
                (stage, 1),
                (first, along as i64),
                (at.group, along as i64),
                (at.member, 2 * across as i64),
            ];
            let word = body.sum(constant as i64, &terms);
            if by_depth {
                let next = body.sum(across as i64, &[(word, 1)]);
                return [load_shared(body, word, 1), load_shared(body, next, 1)];
            }
            let two = load_shared(body, word, 2);
            [0, 1].map(|i| body.op(format_args!("vector.extract {two}[{i}] : f32 from vector<2xf32>")))
        };
        if self.precision == Precision::Tf32 {
            return pair(body, depth).map(|value| {
                body.op(format_args!(
                    "llvm.call_intrinsic \"llvm.nvvm.f2tf32.rna\"({value}) : (f32) -> i32"
                ))
            });
        }
        [depth, depth + 8].map(|depth| {
            let [low, high] = pair(body, depth);
            pack(body, low, high)
        })
    }

    /// One instruction of the tensor cores.
    fn matrix_product(&self, body: &mut Body, left: &[Value], right: &[Value], sums: &[Value]) -> Vec<Value> {
        let name = match self.precision {
            Precision::Bf16 => "m16n8k16.row.col.bf16",
            _ => "m16n8k8.row.col.tf32",
        };
        let operands: Vec<String> = [left, right, sums]
            .concat()
            .iter()
            .map(Value::to_string)
            .collect();
        let ty = "!llvm.struct<(f32, f32, f32, f32)>";
        let made = body.op(format_args!(
            "llvm.call_intrinsic \"llvm.nvvm.mma.{name}\"({}) : (i32, i32, i32, i32, i32, i32, f32, f32, f32, f32) -> {ty}",
            operands.join(", ")
        ));
        (0..4)
            .map(|i| body.op(format_args!("llvm.extractvalue {made}[{i}] : {ty}")))
            .collect()
    }
}
