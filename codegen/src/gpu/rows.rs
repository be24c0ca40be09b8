//! Long sums of few points: gradients of biases, statistics over a batch, softmax over classes.
//!
//! A block is `across` threads side by side on adjacent points, and `along` rows of them that share each point's
//! reduction; shared memory brings the rows together. Where a reduction's neighbours in memory are its own terms,
//! `across` is 1 and neighbouring threads take neighbouring terms. Where blocks would be few, several share a point.

use super::thread::{Grid, barrier, below, both, emit_function, lanes_type, load_shared, store_shared};
use super::vector::{VECTOR, is_vector};
use super::{KernelArguments, Partial, SM_COUNT, k_slices, lower_points};
use crate::access::Access;
use crate::emit::{Point, Scope};
use crate::kernel::{FlatNest, KernelText, delinearize};
use crate::loops::asks_winner;
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::{Combine, Expr, Loop};

const THREADS: usize = 256;
/// Nests of more points than this have a thread for each and need no sharing.
const MAX_POINTS: usize = SM_COUNT * 512;
/// Shorter reductions are done by one thread.
const MIN_TERMS: usize = 32;
/// Terms that a thread sums at least before a reduction is shared by more blocks.
const TERMS: usize = 16;

struct Schedule<'a> {
    nest: &'a FlatNest,
    /// Parallel loops counted by blocks, the last fastest.
    outer: Vec<Loop>,
    /// The loop whose points are side by side.
    side: Option<Loop>,
    width: usize,
    across: usize,
    along: usize,
    reduction: Vec<Loop>,
    k_slices: usize,
}

/// Lowers a nest, or returns `None` where threads had better not share points.
pub fn lower(nest: &FlatNest, call: &KernelArguments) -> Option<Vec<KernelText>> {
    let loops = nest.parallel_loops();
    let count: usize = loops.iter().map(|&l| nest.extent(l)).product();
    let mut reduction: Vec<Loop> = nest.reduction_loops();
    reduction.retain(|&l| nest.extent(l) > 1);
    let terms: usize = reduction.iter().map(|&l| nest.extent(l)).product();
    let shares = match nest.combine {
        Combine::Sum => true,
        // Where the maximum is found is not shared, nor which terms are inside.
        Combine::Max => !asks_winner(nest) && nest.reads.iter().all(Access::is_affine),
        Combine::None => false,
    };
    if !shares || terms < MIN_TERMS || count > MAX_POINTS {
        return None;
    }
    let schedule = Schedule::new(nest, loops, reduction, terms);
    let blocks = schedule.blocks();
    let shared_bytes = (schedule.across * schedule.along * schedule.width * 4) as u32;
    let grid = Grid {
        blocks: (blocks * schedule.k_slices) as u64,
        threads: (schedule.across * schedule.along) as u32,
        shared_bytes,
        shared_align: 16,
        registers: 0,
    };
    let partial = (schedule.k_slices > 1).then(|| {
        let order: Vec<Loop> = schedule.outer.iter().copied().chain(schedule.side).collect();
        Partial::new(nest, call, schedule.k_slices, &order)
    });
    let mut arguments = call.arguments.clone();
    arguments.extend(partial.as_ref().map(|partial| partial.scratch.clone()));
    let text = emit_function(&arguments, call.in_place, grid, |body, block, thread| {
        schedule.write(body, block, thread, partial.as_ref());
    });
    let Some(partial) = partial else {
        return Some(vec![text]);
    };
    let first = KernelText {
        scratch: Some(partial.scratch.clone()),
        ..text
    };
    Some(vec![first, lower_points(&partial.finish, call, Some(&partial))])
}

impl<'a> Schedule<'a> {
    fn new(nest: &'a FlatNest, loops: Vec<Loop>, mut reduction: Vec<Loop>, terms: usize) -> Schedule<'a> {
        // The largest operand of the body decides what is adjacent.
        let mut read = None;
        nest.body.walk(&mut |e| {
            if let Expr::Read(r) = e
                && read.is_none_or(|other: usize| nest.reads[*r].elements > nest.reads[other].elements)
            {
                read = Some(*r);
            }
        });
        let step = |l: Loop| read.and_then(|r| nest.reads[r].step(l)).map(i64::abs);
        reduction.sort_by_key(|&l| std::cmp::Reverse(step(l)));
        let adjacent = reduction.last().is_some_and(|&l| step(l) == Some(1));
        let side = (!adjacent)
            .then(|| loops.iter().copied().find(|&l| step(l) == Some(1)))
            .flatten();
        let width = if side.is_some_and(|l| is_vector(nest, l)) {
            VECTOR
        } else {
            1
        };
        let across = side.map_or(1, |l| {
            let lanes = nest.extent(l).div_ceil(width);
            let idle = |across: &usize| lanes.div_ceil(*across) * across - lanes;
            [32, 16, 8]
                .into_iter()
                .min_by_key(idle)
                .expect("there are three widths")
        });
        let along = THREADS / across;
        let mut outer = loops;
        outer.retain(|&l| Some(l) != side);
        let mut schedule = Schedule {
            nest,
            outer,
            side,
            width,
            across,
            along,
            reduction,
            k_slices: 1,
        };
        if nest.combine == Combine::Sum {
            let wanted = (2 * SM_COUNT).div_ceil(schedule.blocks());
            schedule.k_slices = k_slices(terms, along * TERMS, wanted);
        }
        schedule
    }

    /// Blocks of columns of the loop whose points are side by side.
    fn columns(&self) -> usize {
        self.side
            .map_or(1, |l| self.nest.extent(l).div_ceil(self.across * self.width))
    }

    fn blocks(&self) -> usize {
        let outer: usize = self.outer.iter().map(|&l| self.nest.extent(l)).product();
        outer * self.columns()
    }

    fn lanes(&self) -> Lanes {
        Lanes {
            width: self.width,
            mask: None,
        }
    }

    fn write(&self, body: &mut Body, block: Value, thread: Value, partial: Option<&Partial>) {
        let nest = self.nest;
        let mut extents = vec![self.k_slices];
        extents.extend(self.outer.iter().map(|&l| nest.extent(l)));
        extents.push(self.columns());
        let numbers = delinearize(body, block, &extents);
        let zero = body.index(0);
        let mut loops = vec![zero; nest.extents.len() + 1];
        for (&l, &number) in self.outer.iter().zip(&numbers[1..]) {
            loops[l.0] = number;
        }
        let across = body.index_op("remui", thread, self.across as i64);
        let along = body.index_op("divui", thread, self.across as i64);
        let mut inside = None;
        if let Some(side) = self.side {
            let column = numbers[numbers.len() - 1];
            let points = (self.across * self.width) as i64;
            loops[side.0] = body.sum(0, &[(column, points), (across, self.width as i64)]);
            if !nest.extent(side).is_multiple_of(points as usize) {
                inside = Some(below(body, loops[side.0], nest.extent(side)));
            }
        }
        let point = Point {
            loops,
            vector: self.side.filter(|_| self.width > 1),
        };
        let place = ThreadPosition {
            part: numbers[0],
            thread,
            along,
            inside,
            point,
        };
        let (initial, combine) = match nest.combine {
            Combine::Max => (f64::NEG_INFINITY, "maximumf"),
            _ => (0.0, "addf"),
        };
        let result = self.reduce(body, &place, initial, combine);
        let first = below(body, along, 1);
        let writes = inside.map_or(first, |inside| both(body, first, inside));
        body.if_true(writes, |body| {
            let mut math = Math {
                body,
                lanes: self.lanes(),
            };
            if let Some(partial) = partial {
                let mut point = place.point.clone();
                point.loops[nest.parallel] = place.part;
                return point.store(&mut math, &partial.access, result);
            }
            let mut scope = Scope::of_reads(&nest.reads);
            scope.reduced = Some(result);
            for (access, value) in &nest.outputs {
                let value = scope.value(&mut math, &place.point, value);
                place.point.store(&mut math, access, value);
            }
        });
    }

    /// Combines the terms of the block's part of the reduction; every thread gets the result.
    fn reduce(&self, body: &mut Body, place: &ThreadPosition, initial: f64, combine: &str) -> Value {
        let nest = self.nest;
        let extents: Vec<usize> = self.reduction.iter().map(|&l| nest.extent(l)).collect();
        let terms: usize = extents.iter().product();
        let share = terms.div_ceil(self.k_slices);
        let low = body.sum(0, &[(place.part, share as i64), (place.along, 1)]);
        let end = body.sum(share as i64, &[(place.part, share as i64)]);
        let all = body.index(terms as i64);
        let mut high = body.op(format_args!("arith.minui {end}, {all} : index"));
        if let Some(inside) = place.inside {
            let none = body.index(0);
            high = body.op(format_args!("arith.select {inside}, {high}, {none} : index"));
        }
        let lanes = self.lanes();
        let initial = Math { body, lanes }.constant(initial);
        let types = [lanes_type(self.width)];
        let sum = body.for_carry(
            low,
            high,
            self.along as i64,
            &[initial],
            &types,
            |body, r, carried| {
                let mut point = place.point.clone();
                for (&l, number) in self.reduction.iter().zip(delinearize(body, r, &extents)) {
                    point.loops[l.0] = number;
                }
                let mut math = Math { body, lanes };
                let value = Scope::of_reads(&nest.reads).value(&mut math, &point, &nest.body);
                vec![math.f(combine, carried[0], value)]
            },
        );
        let (width, mut rows) = (self.width as i64, self.along);
        let word = body.sum(0, &[(place.thread, width)]);
        store_shared(body, word, sum[0], self.width);
        barrier(body);
        while rows > 1 {
            rows /= 2;
            let takes = below(body, place.along, rows);
            body.if_true(takes, |body| {
                let other = body.sum((rows * self.across * self.width) as i64, &[(word, 1)]);
                let (a, b) = (
                    load_shared(body, word, self.width),
                    load_shared(body, other, self.width),
                );
                let both = Math { body, lanes }.f(combine, a, b);
                store_shared(body, word, both, self.width);
            });
            barrier(body);
        }
        let across = body.index_op("remui", place.thread, self.across as i64);
        let first = body.sum(0, &[(across, width)]);
        load_shared(body, first, self.width)
    }
}

/// Where a thread is.
struct ThreadPosition {
    /// Which part of the reduction its block has.
    part: Value,
    thread: Value,
    /// Its row among those that share points.
    along: Value,
    /// Whether its points exist.
    inside: Option<Value>,
    point: Point,
}
