//! Kernels of transforms: sums of a read times small tables of constants, such as those of Winograd's convolution.
//!
//! The loops of a table's index are unrolled. At each point of the other loops, for a vector of points along one of
//! them, all that the sums need is loaded once and multiplied by one table after the other in straight-line code:
//! terms with the factor 0 are left out, those with ±1 take no multiplication, and rows that differ in signs only share
//! their halves. Loops that decide whether a read or a store is inside are cut where the answer changes, so that the code
//! of each stretch knows it: edges cost a copy of the code instead of branches.

mod tables;

use crate::access::{Access, FlatPredicate, Operand};
use crate::emit::{Point, Scope};
use crate::kernel::{FlatNest, KernelText, delinearize, emit_function};
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::{Affine, Loop, Nest};
use tables::{Matrix, Ranges, decide, each_point, matrices, multiply};

/// Tasks are made until there are this many, so that uneven cores balance.
const TASKS: usize = 32;
/// The most products of table entries that straight-line code is written for.
const POINTS: usize = 144;
/// The most copies of the code for edges; beyond it conditions are tested at each point.
const COPIES: usize = 9;

/// Lowers a transform, or returns `None` for any other nest.
pub fn lower(nest: &Nest, operands: &[Operand], results: &[Operand], width: usize) -> Option<KernelText> {
    let mut resolved = FlatNest::new(nest, operands, results);
    resolved.collapse();
    let schedule = Schedule::new(resolved, width)?;
    let arguments = [operands, results].concat();
    Some(emit_function(&arguments, schedule.task_count(), |body, task| {
        schedule.write(body, task)
    }))
}

struct Schedule {
    nest: FlatNest,
    matrices: Vec<Matrix>,
    read: usize,
    vector: Option<Loop>,
    /// Iterations of the vector loop that a task does.
    chunk: usize,
    width: usize,
    tasks: Vec<Loop>,
    /// Loops within a task, with the stretches that they are cut into.
    nested: Vec<(Loop, Vec<(i64, i64)>)>,
}

impl Schedule {
    fn new(nest: FlatNest, width: usize) -> Option<Schedule> {
        let (matrices, read) = matrices(&nest)?;
        let points = |side: fn(&Matrix) -> usize| matrices.iter().map(side).product::<usize>();
        let (rows, columns) = (points(|m| m.entries.len()), points(|m| m.entries[0].len()));
        let unrolled = |l: Loop| matrices.iter().any(|m| m.row == l || m.column == l);
        let whole = |l: &Loop| nest.extent(*l) == 1 || unrolled(*l);
        if rows > POINTS || columns > POINTS || !nest.reduction_loops().iter().all(whole) {
            return None;
        }
        let accesses = || {
            [&nest.reads[read]]
                .into_iter()
                .chain(nest.outputs.iter().map(|o| &o.0))
        };
        let checked = |l: Loop| accesses().any(|a| a.checks.iter().any(|c| c.map().coefficient(l) != 0));
        let mut loops: Vec<Loop> = nest
            .parallel_loops()
            .into_iter()
            .filter(|&l| !unrolled(l))
            .collect();

        // Loads and stores of lanes that lie apart cost one a lane.
        let apart = |l: Loop| {
            let of = |access: &Access, points: usize| match access.step(l) {
                Some(0 | 1) => 0,
                _ => points,
            };
            let stores: usize = nest.outputs.iter().map(|o| of(&o.0, rows)).sum();
            of(&nest.reads[read], columns) + stores
        };
        let candidates = loops
            .iter()
            .copied()
            .filter(|&l| !checked(l) && nest.extent(l) > 1);
        let vector = candidates.min_by_key(|&l| (apart(l), std::cmp::Reverse(nest.extent(l))));
        loops.retain(|&l| Some(l) != vector);
        loops.sort_by_key(|&l| std::cmp::Reverse(nest.outputs[0].0.step(l)));

        let (mut tasks, mut count, mut inner) = (vec![], 1, vec![]);
        for l in loops {
            if count < TASKS && !checked(l) {
                count *= nest.extent(l);
                tasks.push(l);
            } else {
                inner.push(l);
            }
        }
        let extent = vector.map_or(1, |v| nest.extent(v));
        let chunks = TASKS.div_ceil(count).min(extent.div_ceil(width));
        let chunk = extent.div_ceil(chunks).next_multiple_of(width);
        let mut schedule = Schedule {
            nest,
            matrices,
            read,
            vector,
            chunk,
            width,
            tasks,
            nested: vec![],
        };
        schedule.nested = inner.iter().map(|&l| (l, schedule.stretches(l))).collect();
        while schedule.nested.iter().map(|(_, s)| s.len()).product::<usize>() > COPIES {
            let most = schedule.nested.iter_mut().max_by_key(|(_, s)| s.len());
            let (l, stretches) = most.expect("no loops make one copy");
            *stretches = vec![(0, schedule.nest.extents[l.0] as i64 - 1)];
        }
        Some(schedule)
    }

    fn chunks(&self) -> usize {
        self.vector
            .map_or(1, |v| self.nest.extent(v).div_ceil(self.chunk))
    }

    fn task_extents(&self) -> Vec<usize> {
        let loops = self.tasks.iter().map(|&l| self.nest.extent(l));
        loops.chain([self.chunks()]).collect()
    }

    fn task_count(&self) -> u64 {
        self.task_extents().iter().map(|&n| n as u64).product()
    }

    /// All iterations of every loop.
    fn everywhere(&self) -> Ranges {
        self.nest.extents.iter().map(|&n| (0, n as i64 - 1)).collect()
    }

    fn checks(&self) -> impl Iterator<Item = &FlatPredicate> {
        let outputs = self.nest.outputs.iter().flat_map(|o| &o.0.checks);
        self.nest.reads[self.read].checks.iter().chain(outputs)
    }

    /// Cuts a loop where the answer of a check changes at some point of the unrolled loops.
    fn stretches(&self, l: Loop) -> Vec<(i64, i64)> {
        let checks: Vec<&FlatPredicate> = self.checks().filter(|c| c.map().coefficient(l) != 0).collect();
        let unrolled: Vec<Loop> = self.matrices.iter().flat_map(|m| [m.row, m.column]).collect();
        let mut stretches: Vec<(i64, i64)> = vec![];
        let mut before = None;
        for at in 0..self.nest.extent(l) as i64 {
            let mut answers = vec![];
            for check in &checks {
                let own: Vec<Loop> = unrolled
                    .iter()
                    .copied()
                    .filter(|&u| check.map().coefficient(u) != 0)
                    .collect();
                let mut ranges = self.everywhere();
                ranges[l.0] = (at, at);
                each_point(&self.nest.extents, &own, &mut |point| {
                    for (&u, &i) in own.iter().zip(point) {
                        ranges[u.0] = (i as i64, i as i64);
                    }
                    answers.push(decide(check, &ranges));
                });
            }
            match stretches.last_mut() {
                Some(last) if before.as_ref() == Some(&answers) => last.1 = at,
                _ => stretches.push((at, at)),
            }
            before = Some(answers);
        }
        stretches
    }

    fn write(&self, body: &mut Body, task: Value) {
        let iterations = delinearize(body, task, &self.task_extents());
        let zero = body.index(0);
        let mut loops = vec![zero; self.nest.extents.len()];
        for (l, &value) in self.tasks.iter().zip(&iterations) {
            loops[l.0] = value;
        }
        let chunk = *iterations.last().expect("the chunk is decoded last");
        self.nest(body, &mut loops, &mut self.everywhere(), &self.nested, chunk);
    }

    fn nest(
        &self,
        body: &mut Body,
        loops: &mut Vec<Value>,
        ranges: &mut Ranges,
        rest: &[(Loop, Vec<(i64, i64)>)],
        chunk: Value,
    ) {
        let Some(((l, stretches), rest)) = rest.split_first() else {
            return self.vector_loop(body, loops, ranges, chunk);
        };
        for &(first, last) in stretches {
            ranges[l.0] = (first, last);
            let (low, high) = (body.index(first), body.index(last + 1));
            if first == last {
                loops[l.0] = low;
                self.nest(body, loops, ranges, rest, chunk);
                continue;
            }
            body.for_each(low, high, 1, |body, i| {
                loops[l.0] = i;
                self.nest(body, loops, ranges, rest, chunk);
            });
        }
    }

    fn vector_loop(&self, body: &mut Body, loops: &[Value], ranges: &Ranges, chunk: Value) {
        let Some(vector) = self.vector else {
            let point = Point {
                loops: loops.to_vec(),
                vector: None,
            };
            let lanes = Lanes::scalar();
            return self.write_point(&mut Math { body, lanes }, point, ranges);
        };
        let (extent, width) = (self.nest.extent(vector), self.width);
        let whole = extent / width * width;
        let point = |start: Value| {
            let mut loops = loops.to_vec();
            loops[vector.0] = start;
            Point {
                loops,
                vector: Some(vector),
            }
        };
        if whole > 0 {
            let low = body.sum(0, &[(chunk, self.chunk as i64)]);
            let (next, end) = (body.sum(self.chunk as i64, &[(low, 1)]), body.index(whole as i64));
            let high = body.op(format_args!("arith.minui {next}, {end} : index"));
            body.for_each(low, high, width as i64, |body, start| {
                let lanes = Lanes { width, mask: None };
                self.write_point(&mut Math { body, lanes }, point(start), ranges);
            });
        }
        if whole < extent {
            let last = body.index(self.chunks() as i64 - 1);
            let is_last = body.op(format_args!("arith.cmpi eq, {chunk}, {last} : index"));
            body.if_true(is_last, |body| {
                let start = body.index(whole as i64);
                let count = body.index((extent - whole) as i64);
                let mask = body.op(format_args!("vector.create_mask {count} : vector<{width}xi1>"));
                let lanes = Lanes {
                    width,
                    mask: Some(mask),
                };
                self.write_point(&mut Math { body, lanes }, point(start), ranges);
            });
        }
    }

    /// Straight-line code for one point (or vector of points) of the loops that are not unrolled.
    fn write_point(&self, math: &mut Math, mut point: Point, ranges: &Ranges) {
        // The part of each address that all unrolled points share, as one more loop.
        let reads: Vec<Access> = self
            .nest
            .reads
            .iter()
            .map(|a| self.shared(math, &mut point, a))
            .collect();
        let outputs: Vec<Access> = self
            .nest
            .outputs
            .iter()
            .map(|o| self.shared(math, &mut point, &o.0))
            .collect();
        let (first, others) = self.matrices.split_first().expect("a transform has a table");
        let (last, between) = match others.split_last() {
            Some((last, between)) => (Some(last), between),
            None => (None, others),
        };
        let columns: Vec<Loop> = self.matrices.iter().map(|m| m.column).collect();
        let extents = &self.nest.extents;

        // `[column.., row]` of the first table, in the order in which elements are loaded.
        let mut values: Vec<Option<Value>> = vec![];
        each_point(extents, &columns[1..], &mut |at| {
            let column: Vec<Option<Value>> = (0..extents[first.column.0])
                .map(|i| {
                    let fixed: Vec<(Loop, usize)> =
                        columns.iter().copied().zip([&[i], at].concat()).collect();
                    self.load(math, &point, &reads[self.read], &fixed, ranges)
                })
                .collect();
            values.extend(multiply(math, first, &column));
        });
        // Every further table takes the first dimension away and puts its own last.
        let rotate = |math: &mut Math, values: &[Option<Value>], matrix: &Matrix, row: usize| {
            let stride = values.len() / extents[matrix.column.0];
            let column: Vec<Option<Value>> = values.iter().skip(row).step_by(stride).copied().collect();
            multiply(math, matrix, &column)
        };
        for matrix in between {
            let rows = values.len() / extents[matrix.column.0];
            values = (0..rows)
                .flat_map(|row| rotate(math, &values, matrix, row))
                .collect();
        }
        let rows: Vec<Loop> = self.matrices.iter().map(|m| m.row).collect();
        let Some(last) = last else {
            for (i, value) in values.into_iter().enumerate() {
                self.finish(math, &point, (&reads, &outputs), &[(rows[0], i)], ranges, value);
            }
            return;
        };
        let mut row = 0;
        each_point(extents, &rows[..rows.len() - 1], &mut |at| {
            for (i, value) in rotate(math, &values, last, row).into_iter().enumerate() {
                let fixed: Vec<(Loop, usize)> = rows.iter().copied().zip([at, &[i]].concat()).collect();
                self.finish(math, &point, (&reads, &outputs), &fixed, ranges, value);
            }
            row += 1;
        });
    }

    /// An access whose offset has one loop, which the point gets, for all loops but the unrolled ones and the vector's.
    fn shared(&self, math: &mut Math, point: &mut Point, access: &Access) -> Access {
        let mut own = Affine::constant(access.offset.constant);
        let mut base = Affine::default();
        for &(l, step) in &access.offset.terms {
            if Some(l) == self.vector || self.matrices.iter().any(|m| m.row == l || m.column == l) {
                own = own.plus_loop(l, step);
            } else {
                base = base.plus_loop(l, step);
            }
        }
        let value = point.affine(math.body, &base);
        point.loops.push(value);
        Access {
            offset: own.plus_loop(Loop(point.loops.len() - 1), 1),
            ..access.clone()
        }
    }

    /// The access where unrolled loops have these values, without the checks that hold there; `None` if one fails.
    fn fixed(&self, access: &Access, fixed: &[(Loop, usize)], ranges: &Ranges) -> Option<Access> {
        let mut ranges = ranges.clone();
        let mut access = access.clone();
        for &(l, at) in fixed {
            ranges[l.0] = (at as i64, at as i64);
            let step = access.offset.coefficient(l);
            access.offset = access.offset.plus_loop(l, -step).plus_constant(step * at as i64);
        }
        let answers: Vec<Option<bool>> = access.checks.iter().map(|c| decide(c, &ranges)).collect();
        if answers.contains(&Some(false)) {
            return None;
        }
        let mut answers = answers.into_iter();
        access.checks.retain(|_| answers.next() == Some(None));
        Some(access)
    }

    /// The point with these values of unrolled loops.
    fn at(&self, math: &mut Math, point: &Point, fixed: &[(Loop, usize)]) -> Point {
        let mut point = point.clone();
        for &(l, at) in fixed {
            point.loops[l.0] = math.body.index(at as i64);
        }
        point
    }

    /// An element that the sums need; none where it is known to be 0.
    fn load(
        &self,
        math: &mut Math,
        point: &Point,
        read: &Access,
        fixed: &[(Loop, usize)],
        ranges: &Ranges,
    ) -> Option<Value> {
        match self.fixed(read, fixed, ranges) {
            Some(access) => {
                let point = self.at(math, point, fixed);
                Some(point.read(math, &access))
            }
            None if read.padding_value == 0.0 => None,
            None => Some(math.constant(read.padding_value)),
        }
    }

    /// The outputs of a finished sum.
    fn finish(
        &self,
        math: &mut Math,
        point: &Point,
        (reads, outputs): (&[Access], &[Access]),
        fixed: &[(Loop, usize)],
        ranges: &Ranges,
        sum: Option<Value>,
    ) {
        let places: Vec<Option<Access>> = outputs.iter().map(|o| self.fixed(o, fixed, ranges)).collect();
        if places.iter().all(Option::is_none) {
            return;
        }
        let point = self.at(math, point, fixed);
        let reads: Vec<Access> = reads
            .iter()
            .map(|read| self.fixed(read, fixed, ranges).unwrap_or_else(|| read.clone()))
            .collect();
        let mut scope = Scope::of_reads(&reads);
        scope.reduced = Some(sum.unwrap_or_else(|| math.constant(0.0)));
        for (access, (_, value)) in places.iter().zip(&self.nest.outputs) {
            if let Some(access) = access {
                let value = scope.value(math, &point, value);
                point.store(math, access, value);
            }
        }
    }
}
