//! Fetches the elements of a step from global to shared memory, without waiting for them.

use super::{Along, Lines, Schedule, Side};
use crate::access::Check;
use crate::emit::argument_name;
use crate::gpu::thread::{both, shared_address};
use crate::kernel::decode;
use crate::mlir::{Body, Value};
use ir::nest::{Affine, Loop};

/// Where a thread's elements lie, as far as one group of loops decides it: a side's with the batch, or the depth's.
struct Coordinate {
    /// Whether the number counts something.
    exists: Value,
    /// Of the offset, of each division and of each check: the group's part.
    offset: Value,
    divided: Vec<Value>,
    checks: Vec<Value>,
}

/// Elements of a thread that lie in one line of memory, so that where the first lies says where all do.
struct Group {
    first: Coordinate,
    /// Its address where the depth adds nothing: if there are few, since addresses take two registers.
    address: Option<Value>,
    /// Places in the tile, counted from the thread's first.
    members: Vec<usize>,
}

/// Groups of a thread whose addresses are kept.
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
    /// The place of its first element in the tile.
    place: Value,
    groups: Vec<Group>,
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
        let (wide, deep) = match (side.along, side.lines) {
            // Lanes that are 8 × 4 are whole sectors of 4 depths, and hit different banks: see `warpgroup`.
            (Along::Side, Lines::Swizzled) => (8, threads / 8),
            // Eight lanes of 16 bytes are a line of memory; as few different depths a thread as can be, since where each of
            // those lies is worked out anew in every step.
            (Along::Side, _) if side.vector > 1 => {
                let wide = (threads / depth).max(8);
                (wide, threads / wide)
            }
            (Along::Side, _) => (32, threads / 32),
            // Lines of shared memory are depths, and memory runs along the depth: 8 × 4 lanes are 8 words of 4
            // lines, in different banks and in whole sectors of 32 bytes.
            (Along::Depth, Lines::Depths) => (threads / 8, 8),
            (Along::Depth, _) => {
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
        let depths = (0..depth.div_ceil(steps.1 * deep))
            .map(|pass| body.sum((pass * deep * steps.1) as i64, &[(down, steps.1 as i64)]))
            .collect();
        let place = body.sum(0, &[(across, steps.0 as i64)]);
        let apart = steps.0 * wide;
        let line = self.line(side, apart);
        let groups: Vec<Vec<usize>> = (0..side.tile)
            .step_by(line.max(apart))
            .map(|begin| {
                (begin..side.tile.min(begin + line.max(apart)))
                    .step_by(apart)
                    .collect()
            })
            .collect();
        let few = groups.len() <= FEW && self.nest.reads[side.read].divided.is_empty();
        let name = argument_name(self.nest.reads[side.read].argument);
        let groups = groups
            .into_iter()
            .map(|members| {
                let number = body.sum(members[0] as i64, &[(first, 1), (place, 1)]);
                let mut first = self.coordinate(body, side, &side.loops, side.extent, number, Some(loops));
                // An element that does not exist fails its first check, whatever the depth.
                if let Some(check) = first.checks.first_mut() {
                    *check = beyond(body, first.exists, *check);
                }
                let address = few.then(|| body.global_address(&name, "f32", first.offset));
                Group {
                    first,
                    address,
                    members,
                }
            })
            .collect();
        Fetch {
            side,
            place,
            groups,
            depths,
        }
    }

    /// How many neighbours of the tile are sure to differ in the last loop alone, which no check or division asks for;
    /// `apart` is what a thread's neighbours are apart.
    fn line(&self, side: &Side, apart: usize) -> usize {
        let access = &self.nest.reads[side.read];
        let Some(&last) = side.loops.last() else {
            return 1;
        };
        let asked = access
            .checks
            .iter()
            .map(Check::map)
            .chain(access.divided.iter().map(|d| &d.0));
        let line = common_divisor(self.nest.extent(last), side.tile);
        match line.is_multiple_of(apart) && asked.into_iter().all(|map| map.coefficient(last) == 0) {
            true => line,
            false => 1,
        }
    }

    /// Starts fetching one step into the stage of shared memory at `stage` (in words), whose depths are counted from
    /// `from` up to `end`.
    pub(super) fn start(&self, body: &mut Body, fetch: &Fetch, stage: Value, from: Value, end: Value) {
        let side = fetch.side;
        let access = &self.nest.reads[side.read];
        let name = argument_name(access.argument);
        let bytes = 4 * side.vector;
        let step = side.loops.last().and_then(|&l| access.step(l)).unwrap_or(0);
        for &place in &fetch.depths {
            let number = body.sum(0, &[(from, 1), (place, 1)]);
            let mut depth = self.coordinate(body, side, &self.depth, self.terms(), number, None);
            depth.exists = body.op(format_args!("arith.cmpi ult, {number}, {end} : index"));
            if let Some(first) = depth.checks.first_mut() {
                *first = beyond(body, depth.exists, *first);
            }
            for Group {
                first,
                address,
                members,
            } in &fetch.groups
            {
                let mut inside = match access.checks.is_empty() {
                    true => Some(both(body, first.exists, depth.exists)),
                    false => None,
                };
                for (i, check) in access.checks.iter().enumerate() {
                    let sum = body.sum(0, &[(first.checks[i], 1), (depth.checks[i], 1)]);
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
                        let mut offset = body.sum(0, &[(first.offset, 1), (depth.offset, 1)]);
                        for (i, (_, divisor, stride)) in access.divided.iter().enumerate() {
                            let sum = body.sum(0, &[(first.divided[i], 1), (depth.divided[i], 1)]);
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
                for &member in members {
                    let far = (member - members[0]) as i64 * step;
                    let from = body.op(format_args!(
                        "llvm.getelementptr {from}[{far}] : (!llvm.ptr<1>) -> !llvm.ptr<1>, f32"
                    ));
                    let to = self.place_in_shared(body, fetch, stage, place, member);
                    let cache = if bytes == 16 { "cg" } else { "ca" };
                    body.line(format_args!(
                        "llvm.call_intrinsic \"llvm.nvvm.cp.async.{cache}.shared.global.{bytes}.s\"({to}, {from}, {size}) : \
                         (!llvm.ptr<3>, !llvm.ptr<1>, i32) -> ()"
                    ));
                }
            }
        }
    }

    /// The address of a thread's element in the stage at `stage`: `member` places after its first, at a depth.
    fn place_in_shared(
        &self,
        body: &mut Body,
        fetch: &Fetch,
        stage: Value,
        depth: Value,
        member: usize,
    ) -> Value {
        let side = fetch.side;
        let stride = side.stride as i64;
        let (word, after) = match side.lines {
            Lines::Depths => {
                let terms = [(stage, 1), (depth, stride), (fetch.place, 1)];
                (body.sum(0, &terms), member)
            }
            Lines::Elements => {
                let terms = [(stage, 1), (fetch.place, stride), (depth, 1)];
                (body.sum(0, &terms), member * side.stride)
            }
            Lines::Swizzled => {
                let place = body.sum(member as i64, &[(fetch.place, 1)]);
                let turn = body.index_op("andi", place, 7);
                let turn = body.index_op("shli", turn, 2);
                let turned = body.op(format_args!("arith.xori {depth}, {turn} : index"));
                let terms = [(stage, 1), (fetch.place, stride), (turned, 1)];
                (body.sum(0, &terms), member * side.stride)
            }
        };
        let address = shared_address(body, word);
        body.op(format_args!(
            "llvm.getelementptr inbounds {address}[{after}] : (!llvm.ptr<3>) -> !llvm.ptr<3>, f32"
        ))
    }

    /// The part that some loops, counted as one number, have in where a side's elements lie. `fixed` gives the values
    /// of all other loops and asks for the constants too.
    fn coordinate(
        &self,
        body: &mut Body,
        side: &Side,
        counted: &[Loop],
        extent: usize,
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
            exists: body.op(format_args!("arith.cmpi ult, {number}, {end} : index")),
            offset,
            divided,
            checks,
        }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
