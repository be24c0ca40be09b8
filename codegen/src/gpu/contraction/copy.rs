//! Fetches the elements of a step from global to shared memory, without waiting for them.

use super::interleave::line_of;
use super::warpgroup::swizzled;
use super::{Lines, MajorDim, MatrixOperand, Schedule};
use crate::access::FlatPredicate;
use crate::emit::argument_name;
use crate::gpu::thread::{both, shared_address, zeros};
use crate::kernel::delinearize;
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
struct AddressGroup {
    first: Coordinate,
    /// Its address where the depth adds nothing: if there are few, since addresses take two registers.
    address: Option<Value>,
    /// Places in the tile, counted from the thread's first.
    members: Vec<usize>,
}

/// Lanes side by side that make whole sectors, of single words, or lines of memory, of vectors.
const EIGHT: usize = 8;
/// Groups of a thread whose addresses are kept.
const FEW: usize = 8;

/// Added to a check's value so that it fails: indices of arrays are below.
const BEYOND: i64 = 1 << 30;

/// A check's value, or one that fails where the element (or the depth) does not exist.
fn beyond(body: &mut Body, exists: Value, value: Value) -> Value {
    let far = body.index(BEYOND);
    body.op(format_args!("arith.select {exists}, {value}, {far} : index"))
}

/// An element of a side that a thread fetches, or as many neighbours as the side's vectors have.
pub(super) struct Element {
    /// Whether it is there; else it stands for zero.
    pub inside: Value,
    /// Its address; where it is not inside that has no meaning, or for what comes by registers is that of zeros: to put a
    /// zero in place of what was loaded would be to wait for it.
    pub from: Value,
    /// The place of its depth in the step.
    pub depth: Value,
    /// Its place in the tile, counted from the thread's first.
    pub member: usize,
}

/// Where a group's elements are, as far as it is known.
enum From {
    Address(Value),
    /// Of which an address is made as late as can be: it takes two registers.
    Offset(Value),
}

/// What a thread fetches of a side in every step, as far as it does not depend on the step.
pub(super) struct Fetch<'s> {
    pub side: &'s MatrixOperand,
    /// The place of its first element in the tile, and its line in shared memory, where lines are elements.
    place: Value,
    line: Value,
    groups: Vec<AddressGroup>,
    /// Places of its depths in a step; those that share a word follow each other.
    pub depths: Vec<Value>,
}

impl Fetch<'_> {
    /// Places of its elements in the tile, counted from the thread's first, in the order of [`Schedule::each`].
    pub fn members(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flat_map(|group| group.members.iter().copied())
    }
}

impl Schedule<'_> {
    /// Prepares a thread's share of a side; `first` is the number of the tile's first element.
    pub(super) fn fetch<'s>(
        &self,
        body: &mut Body,
        side: &'s MatrixOperand,
        loops: &[Value],
        first: Value,
        thread: Value,
    ) -> Fetch<'s> {
        let (threads, depth) = (self.tile.threads, self.tile.depth);
        let packed = side.deep;
        let steps = match side.along {
            MajorDim::Mn => (side.vector, packed),
            MajorDim::K => (1, side.vector * packed),
        };
        // Extents of the places that threads take at once, along the side and along the depth.
        let (wide, deep) = match (side.along, side.lines) {
            (MajorDim::Mn, Lines::Swizzled) if side.is_transposed() => {
                (threads * packed / depth, depth / packed)
            }
            (MajorDim::Mn, Lines::Swizzled) => {
                let deep = (depth / packed).min(threads / EIGHT);
                (threads / deep, deep)
            }
            // Eight lanes of 16 bytes are a line of memory; as few different depths a thread as can be, since where each of
            // those lies is worked out anew in every step.
            (MajorDim::Mn, _) if side.vector > 1 => {
                let wide = (threads / depth).max(EIGHT);
                (wide, threads / wide)
            }
            (MajorDim::Mn, _) => (32, threads / 32),
            // Lines of shared memory are depths, and memory runs along the depth: 8 × 4 lanes are 8 words of 4
            // lines, in different banks and in whole sectors of 32 bytes.
            (MajorDim::K, Lines::Depths) => (threads / EIGHT, EIGHT),
            (MajorDim::K, _) => {
                let deep = depth / steps.1;
                (threads / deep, deep)
            }
        };
        let mut part = |op: &str, value: Value, by: usize| body.index_op(op, value, by as i64);
        let (across, down) = match (side.along, side.lines) {
            // Lanes that are 8 × 4 are whole sectors of 4 depths, and hit different banks: see `warpgroup`. (Of vectors,
            // whole lines of memory: see `convert`.)
            (MajorDim::Mn, Lines::Swizzled) => {
                let (lane, rest) = (part("remui", thread, EIGHT), part("divui", thread, EIGHT));
                let (down, far) = (part("remui", rest, deep), part("divui", rest, deep));
                (body.sum(0, &[(far, EIGHT as i64), (lane, 1)]), down)
            }
            (MajorDim::Mn, _) => (part("remui", thread, wide), part("divui", thread, wide)),
            (MajorDim::K, _) => (part("divui", thread, deep), part("remui", thread, deep)),
        };
        let passes = depth.div_ceil(steps.1 * deep);
        let depths = (0..passes * packed)
            .map(|i| {
                let first = i / packed * deep * steps.1 + i % packed;
                body.sum(first as i64, &[(down, steps.1 as i64)])
            })
            .collect();
        let place = body.sum(0, &[(across, steps.0 as i64)]);
        let line_of_first = match side.is_transposed() {
            true => line_of(body, across),
            false => place,
        };
        let apart = steps.0 * wide;
        assert!(
            side.tile.is_multiple_of(apart),
            "threads fetch a tile, and no more"
        );
        let line = self.line(side, apart);
        let groups: Vec<Vec<usize>> = (0..side.tile)
            .step_by(line.max(apart))
            .map(|begin| {
                (begin..side.tile.min(begin + line.max(apart)))
                    .step_by(apart)
                    .collect()
            })
            .collect();
        let few = groups.len() <= FEW && self.nest.reads[side.read].divided.is_empty() && !side.by_registers;
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
                AddressGroup {
                    first,
                    address,
                    members,
                }
            })
            .collect();
        Fetch {
            side,
            place,
            line: line_of_first,
            groups,
            depths,
        }
    }

    /// How many neighbours of the tile are sure to differ in the last loop alone, which no check or division asks for;
    /// `apart` is what a thread's neighbours are apart.
    fn line(&self, side: &MatrixOperand, apart: usize) -> usize {
        let access = &self.nest.reads[side.read];
        let Some(&last) = side.loops.last() else {
            return 1;
        };
        let asked = access
            .checks
            .iter()
            .map(FlatPredicate::map)
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
        let bytes = 4 * fetch.side.vector;
        let cache = if bytes == 16 { "cg" } else { "ca" };
        self.each(body, fetch, (from, end), &mut |body, element| {
            let Element { inside, from, depth, member } = element;
            // Nothing is fetched from outside: no bytes, from wherever that would be.
            let (all, none) = (
                body.op(format_args!("arith.constant {bytes} : i32")),
                body.op("arith.constant 0 : i32"),
            );
            let size = body.op(format_args!("arith.select {inside}, {all}, {none} : i32"));
            let to = self.place_in_shared(body, fetch, stage, depth, member);
            body.line(format_args!(
                "llvm.call_intrinsic \"llvm.nvvm.cp.async.{cache}.shared.global.{bytes}.s\"({to}, {from}, {size}) : \
                 (!llvm.ptr<3>, !llvm.ptr<1>, i32) -> ()"
            ));
        });
    }

    /// Visits a thread's elements of one step, whose depths are counted from one number up to another.
    pub(super) fn each(
        &self,
        body: &mut Body,
        fetch: &Fetch,
        (from, end): (Value, Value),
        visit: &mut dyn FnMut(&mut Body, Element),
    ) {
        let side = fetch.side;
        let access = &self.nest.reads[side.read];
        let name = argument_name(access.argument);
        let step = side.loops.last().and_then(|&l| access.step(l)).unwrap_or(0);
        for &place in &fetch.depths {
            let number = body.sum(0, &[(from, 1), (place, 1)]);
            let mut depth = self.coordinate(body, side, &self.depth, self.terms(), number, None);
            depth.exists = body.op(format_args!("arith.cmpi ult, {number}, {end} : index"));
            if let Some(first) = depth.checks.first_mut() {
                *first = beyond(body, depth.exists, *first);
            }
            for AddressGroup {
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
                        FlatPredicate::Range(_, low, high) => {
                            let (shifted, size) = (body.sum(-low, &[(sum, 1)]), body.index(high - low));
                            body.op(format_args!("arith.cmpi ult, {shifted}, {size} : index"))
                        }
                        FlatPredicate::Divides(_, divisor) => {
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
                let from = match address {
                    Some(address) => {
                        let offset =
                            body.op(format_args!("arith.index_cast {} : index to i64", depth.offset));
                        From::Address(body.op(format_args!(
                            "llvm.getelementptr {address}[{offset}] : (!llvm.ptr<1>, i64) -> !llvm.ptr<1>, f32"
                        )))
                    }
                    None => {
                        let mut offset = body.sum(0, &[(first.offset, 1), (depth.offset, 1)]);
                        for (i, (_, divisor, stride)) in access.divided.iter().enumerate() {
                            let sum = body.sum(0, &[(first.divided[i], 1), (depth.divided[i], 1)]);
                            let quotient = body.index_op("divsi", sum, *divisor);
                            offset = body.sum(0, &[(offset, 1), (quotient, *stride)]);
                        }
                        match side.by_registers {
                            true => From::Offset(offset),
                            false => From::Address(body.global_address(&name, "f32", offset)),
                        }
                    }
                };
                for &member in members {
                    let far = (member - members[0]) as i64 * step;
                    let from = match from {
                        From::Address(from) => body.op(format_args!(
                            "llvm.getelementptr {from}[{far}] : (!llvm.ptr<1>) -> !llvm.ptr<1>, f32"
                        )),
                        From::Offset(offset) => {
                            let offset = body.sum(far, &[(offset, 1)]);
                            let (from, zeros) = (body.global_address(&name, "f32", offset), zeros(body));
                            body.op(format_args!(
                                "llvm.select {inside}, {from}, {zeros} : i1, !llvm.ptr<1>"
                            ))
                        }
                    };
                    let depth = place;
                    visit(
                        body,
                        Element {
                            inside,
                            from,
                            depth,
                            member,
                        },
                    );
                }
            }
        }
    }

    /// The address of a thread's element in the stage at `stage`: `member` places (or lines, where lines are elements) after
    /// its first, at a depth, or at the depths from there on that share a word.
    pub(super) fn place_in_shared(
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
                let terms = [(stage, 1), (fetch.line, stride), (depth, 1)];
                (body.sum(0, &terms), member * side.stride)
            }
            Lines::Swizzled => {
                let line = body.sum(member as i64, &[(fetch.line, 1)]);
                let word = body.index_op("divui", depth, self.packed() as i64);
                let transposed = swizzled(body, side.stride, line, word);
                let terms = [(stage, 1), (fetch.line, stride), (transposed, 1)];
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
        side: &MatrixOperand,
        counted: &[Loop],
        extent: usize,
        number: Value,
        fixed: Option<&[Value]>,
    ) -> Coordinate {
        let nest = self.nest;
        let extents: Vec<usize> = counted.iter().map(|&l| nest.extent(l)).collect();
        let values = delinearize(body, number, &extents);
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
