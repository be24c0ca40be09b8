//! Fetches the elements of a step from global to shared memory, without waiting for them.

use super::{Along, Schedule, Side};
use crate::access::Check;
use crate::emit::argument_name;
use crate::gpu::thread::{both, shared_address};
use crate::kernel::decode;
use crate::mlir::{Body, Value};
use ir::nest::{Affine, Loop};

/// Where a thread's elements lie, as far as one group of loops decides it: a side's with the batch, or the depth's.
struct Coordinate {
    /// The place among the elements of the tile, or of the step.
    place: Value,
    /// Whether the number counts something.
    exists: Value,
    /// Of the offset, of each division and of each check: the group's part.
    offset: Value,
    divided: Vec<Value>,
    checks: Vec<Value>,
}

/// An element of a thread, with its address where the depth adds nothing: if there are few, since addresses take two
/// registers.
struct Element {
    element: Coordinate,
    address: Option<Value>,
}

/// Elements of a thread whose addresses are kept.
const FEW: usize = 8;

/// Added to a check's value so that it fails: indices of arrays are below.
const BEYOND: i64 = 1 << 30;

/// A check's value, or one that fails where the element (or the depth) does not exist.
fn beyond(body: &mut Body, exists: Value, value: Value) -> Value {
    let far = body.index(BEYOND);
    body.op(format_args!("arith.select {exists}, {value}, {far} : index"))
}

/// What a thread fetches of a side in every step, as far as it does not depend on the step.
pub(super) struct Fetch<'s> {
    side: &'s Side,
    elements: Vec<Element>,
    /// Places of its depths in a step.
    depths: Vec<Value>,
}

impl Schedule<'_> {
    /// Prepares a thread's share of a side; `first` is the number of the tile's first element.
    pub(super) fn fetch<'s>(
        &self,
        body: &mut Body,
        side: &'s Side,
        loops: &[Value],
        first: Value,
        thread: Value,
    ) -> Fetch<'s> {
        let (threads, depth) = (self.tile.threads, self.tile.depth);
        // Extents of the places that threads take at once, along the side and along the depth.
        let (wide, deep) = match (side.along, side.by_depth) {
            // Eight lanes of 16 bytes are a line of memory; as few different depths a thread as can be, since where each of
            // those lies is worked out anew in every step.
            (Along::Side, _) if side.vector > 1 => {
                let wide = (threads / depth).max(8);
                (wide, threads / wide)
            }
            (Along::Side, _) => (32, threads / 32),
            // Lines of shared memory are depths, and memory runs along the depth: 8 × 4 lanes are 8 words of 4
            // lines, in different banks and in whole sectors of 32 bytes.
            (Along::Depth, true) => (threads / 8, 8),
            (Along::Depth, false) => {
                let deep = depth / side.vector;
                (threads / deep, deep)
            }
        };
        let (across, down) = match side.along {
            Along::Side => (
                body.index_op("remui", thread, wide as i64),
                body.index_op("divui", thread, wide as i64),
            ),
            Along::Depth => (
                body.index_op("divui", thread, deep as i64),
                body.index_op("remui", thread, deep as i64),
            ),
        };
        let steps = match side.along {
            Along::Side => (side.vector, 1),
            Along::Depth => (1, side.vector),
        };
        let places = |body: &mut Body, at: Value, step: usize, together: usize, all: usize| {
            (0..all.div_ceil(step * together))
                .map(|pass| body.sum((pass * together * step) as i64, &[(at, step as i64)]))
                .collect::<Vec<Value>>()
        };
        let elements = places(body, across, steps.0, wide, side.tile);
        let few = elements.len() <= FEW && self.nest.reads[side.read].divided.is_empty();
        let depths = places(body, down, steps.1, deep, depth);
        let name = argument_name(self.nest.reads[side.read].argument);
        let elements = elements
            .into_iter()
            .map(|place| {
                let number = body.sum(0, &[(first, 1), (place, 1)]);
                let mut element =
                    self.coordinate(body, side, &side.loops, side.extent, place, number, Some(loops));
                // An element that does not exist fails its first check, whatever the depth.
                if let Some(first) = element.checks.first_mut() {
                    *first = beyond(body, element.exists, *first);
                }
                let address = few.then(|| body.global_address(&name, "f32", element.offset));
                Element { element, address }
            })
            .collect();
        Fetch {
            side,
            elements,
            depths,
        }
    }

    /// Starts fetching one step into the stage of shared memory at `stage` (in words), whose depths are counted from
    /// `from` up to `end`.
    pub(super) fn start(&self, body: &mut Body, fetch: &Fetch, stage: Value, from: Value, end: Value) {
        let side = fetch.side;
        let access = &self.nest.reads[side.read];
        let name = argument_name(access.argument);
        let bytes = 4 * side.vector;
        for &place in &fetch.depths {
            let number = body.sum(0, &[(from, 1), (place, 1)]);
            let mut depth = self.coordinate(body, side, &self.depth, self.terms(), place, number, None);
            depth.exists = body.op(format_args!("arith.cmpi ult, {number}, {end} : index"));
            if let Some(first) = depth.checks.first_mut() {
                *first = beyond(body, depth.exists, *first);
            }
            for Element { element, address } in &fetch.elements {
                let mut inside = match access.checks.is_empty() {
                    true => Some(both(body, element.exists, depth.exists)),
                    false => None,
                };
                for (i, check) in access.checks.iter().enumerate() {
                    let sum = body.sum(0, &[(element.checks[i], 1), (depth.checks[i], 1)]);
                    let holds = match check {
                        Check::Range(_, low, high) => {
                            let (shifted, size) = (body.sum(-low, &[(sum, 1)]), body.index(high - low));
                            body.op(format_args!("arith.cmpi ult, {shifted}, {size} : index"))
                        }
                        Check::Divides(_, divisor) => {
                            let (rest, zero) = (body.index_op("remsi", sum, *divisor), body.index(0));
                            body.op(format_args!("arith.cmpi eq, {rest}, {zero} : index"))
                        }
                    };
                    inside = Some(match inside {
                        None => holds,
                        Some(others) => both(body, others, holds),
                    });
                }
                let inside = inside.expect("existence is a condition, if nothing else is");
                // Nothing is fetched from outside: no bytes, from wherever that would be.
                let from = match address {
                    Some(address) => {
                        let offset =
                            body.op(format_args!("arith.index_cast {} : index to i64", depth.offset));
                        body.op(format_args!(
                            "llvm.getelementptr {address}[{offset}] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32"
                        ))
                    }
                    None => {
                        let mut offset = body.sum(0, &[(element.offset, 1), (depth.offset, 1)]);
                        for (i, (_, divisor, stride)) in access.divided.iter().enumerate() {
                            let sum = body.sum(0, &[(element.divided[i], 1), (depth.divided[i], 1)]);
                            let quotient = body.index_op("divsi", sum, *divisor);
                            offset = body.sum(0, &[(offset, 1), (quotient, *stride)]);
                        }
                        body.global_address(&name, "f32", offset)
                    }
                };
                let (all, none) = (
                    body.op(format_args!("arith.constant {bytes} : i32")),
                    body.op("arith.constant 0 : i32"),
                );
                let size = body.op(format_args!("arith.select {inside}, {all}, {none} : i32"));
                let (line, column) = match side.by_depth {
                    true => (depth.place, element.place),
                    false => (element.place, depth.place),
                };
                let to = body.sum(0, &[(stage, 1), (line, side.stride as i64), (column, 1)]);
                let to = shared_address(body, to);
                let cache = if bytes == 16 { "cg" } else { "ca" };
                body.line(format_args!(
                    "llvm.call_intrinsic \"llvm.nvvm.cp.async.{cache}.shared.global.{bytes}.s\"({to}, {from}, {size}) : \
                     (!llvm.ptr<3>, !llvm.ptr<1>, i32) -> ()"
                ));
            }
        }
    }

    /// The part that some loops, counted as one number, have in where a side's elements lie. `fixed` gives the values
    /// of all other loops and asks for the constants too.
    #[allow(clippy::too_many_arguments)]
    fn coordinate(
        &self,
        body: &mut Body,
        side: &Side,
        counted: &[Loop],
        extent: usize,
        place: Value,
        number: Value,
        fixed: Option<&[Value]>,
    ) -> Coordinate {
        let nest = self.nest;
        let extents: Vec<usize> = counted.iter().map(|&l| nest.extent(l)).collect();
        let values = decode(body, number, &extents);
        let mut part = |map: &Affine| {
            let counted = counted.iter().copied().zip(values.iter().copied());
            let batch = fixed.map_or(vec![], |loops| {
                self.batch.iter().map(|&l| (l, loops[l.0])).collect()
            });
            let terms: Vec<(Value, i64)> = counted
                .chain(batch)
                .map(|(l, value)| (value, map.coefficient(l)))
                .collect();
            body.sum(if fixed.is_some() { map.constant } else { 0 }, &terms)
        };
        let access = &nest.reads[side.read];
        let offset = part(&access.offset);
        let divided = access.divided.iter().map(|d| part(&d.0)).collect();
        let checks = access.checks.iter().map(|check| part(check.map())).collect();
        let end = body.index(extent as i64);
        Coordinate {
            place,
            exists: body.op(format_args!("arith.cmpi ult, {number}, {end} : index")),
            offset,
            divided,
            checks,
        }
    }
}
