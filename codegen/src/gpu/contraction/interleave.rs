//! The order of lines of a transposed side in shared memory: threads take turns, so that their stores meet different banks.

use crate::gpu::vector::VECTOR;
use crate::mlir::{Body, Value};

/// Elements that are interleaved to as many lines, and lanes that load them.
pub(super) const INTERLEAVED: usize = 32;
pub(super) const INTERLEAVERS: usize = INTERLEAVED / VECTOR;

/// The line of the first element of vector `number` of a transposed side; the others are [`INTERLEAVERS`] lines apart.
pub(super) fn line_of(body: &mut Body, number: Value) -> Value {
    let (all, lane) = (
        body.index_op("divui", number, INTERLEAVERS as i64),
        body.index_op("remui", number, INTERLEAVERS as i64),
    );
    body.sum(0, &[(all, INTERLEAVED as i64), (lane, 1)])
}

/// The element whose depths are in line `number` of a transposed side.
pub(super) fn interleaved(body: &mut Body, number: Value) -> Value {
    let mut part = |op: &str, value: Value, by: usize| body.index_op(op, value, by as i64);
    let (all, rest) = (
        part("divui", number, INTERLEAVED),
        part("remui", number, INTERLEAVED),
    );
    let (i, j) = (
        part("divui", rest, INTERLEAVERS),
        part("remui", rest, INTERLEAVERS),
    );
    body.sum(0, &[(all, INTERLEAVED as i64), (j, VECTOR as i64), (i, 1)])
}
