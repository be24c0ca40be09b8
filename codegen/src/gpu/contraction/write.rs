//! The kernel: its loop over the depth, and the outputs of finished sums.

use super::interleave::{INTERLEAVED, interleaved};
use super::multiply::{FRAGMENT, Position};
use super::{Partial, Schedule, Unit, warpgroup};
use crate::access::Access;
use crate::emit::{Point, Scope};
use crate::gpu::thread::{barrier, below, lanes_type, read_again};
use crate::kernel::delinearize;
use crate::mlir::{Body, Value};
use crate::scalar::{Lanes, Math};
use ir::nest::Loop;

/// Columns of a row whose operands a thread loads before it stores the first: whoever waits for each has little under way.
const AT_ONCE: usize = 8;

/// Adjacent columns of a row, finished.
struct Finished {
    lanes: Lanes,
    point: Point,
    /// One an output, or the sum as it is where it is a part.
    values: Vec<Value>,
}

impl Schedule<'_> {
    pub(super) fn write(&self, body: &mut Body, block: Value, thread: Value, partial: Option<&Partial>) {
        let (loops, first, part) = self.tile(body, block);
        let sums = self.sum(body, &loops, first, part, thread);
        // Read again, so that no register keeps through the loop what only the outputs need.
        let (block, thread) = (read_again(body, "ctaid.x"), read_again(body, "tid.x"));
        let (mut loops, first, part) = self.tile(body, block);
        // The number of the part takes the place of the first loop of the depth, which is over.
        if partial.is_some() {
            loops[self.nest.parallel] = part;
        }
        let at = self.position(body, thread);
        self.finish(body, loops, first, &at, &sums, partial);
    }

    /// A block's loops as far as they are the same in all of it, its first row and column, and its part of the depth.
    fn tile(&self, body: &mut Body, block: Value) -> (Vec<Value>, (Value, Value), Value) {
        let numbers = delinearize(body, block, &self.block_extents());
        let zero = body.index(0);
        let mut loops = vec![zero; self.nest.extents.len() + 1];
        for (&l, &number) in self.batch.iter().zip(&numbers[1..]) {
            loops[l.0] = number;
        }
        let (row_tile, column_tile) = (numbers[numbers.len() - 2], numbers[numbers.len() - 1]);
        let first_row = body.sum(0, &[(row_tile, self.tile.rows as i64)]);
        let first_column = body.sum(0, &[(column_tile, self.tile.columns as i64)]);
        (loops, (first_row, first_column), numbers[0])
    }

    /// A thread's sums over its part of the depth: stages of shared memory in turn, each filled while those before it
    /// are used.
    fn sum(
        &self,
        body: &mut Body,
        loops: &[Value],
        first: (Value, Value),
        part: Value,
        thread: Value,
    ) -> Vec<Value> {
        let (depth, stages) = (self.tile.depth as i64, self.tile.stages);
        let (words, steps) = (self.stage_words() as i64, self.steps() as i64);
        let fetches = [
            self.fetch(body, &self.rows, loops, first.0, thread),
            self.fetch(body, &self.columns, loops, first.1, thread),
        ];
        let at = self.position(body, thread);
        let group = body.index_op("divui", thread, 128);
        let from = body.sum(0, &[(part, steps * depth)]);
        let end = {
            let all = body.index(self.terms() as i64);
            let next = body.sum(steps * depth, &[(from, 1)]);
            body.op(format_args!("arith.minui {next}, {all} : index"))
        };
        let copies = fetches.iter().any(|fetch| !fetch.side.by_registers);
        let start = |body: &mut Body, stage: Value, from: Value| {
            let after = body.sum(self.rows.words as i64, &[(stage, 1)]);
            for (fetch, stage) in fetches.iter().zip([stage, after]) {
                if !fetch.side.by_registers {
                    self.start(body, fetch, stage, from, end);
                }
            }
            if copies {
                body.line("nvvm.cp.async.commit.group");
            }
        };
        for stage in 0..stages as i64 - 1 {
            let (place, from) = (body.index(stage * words), body.sum(stage * depth, &[(from, 1)]));
            start(body, place, from);
            let loaded = self.load(body, &fetches, from, end);
            self.put(body, &fetches, place, &loaded);
        }
        // What comes by registers is there a step before it is put into shared memory.
        let loaded = {
            let from = body.sum((stages as i64 - 1) * depth, &[(from, 1)]);
            self.load(body, &fetches, from, end)
        };
        let zero = Math {
            body,
            lanes: Lanes::scalar(),
        }
        .constant(0.0);
        let mut carried = vec![zero; self.sums()];
        let mut types = vec!["f32".to_string(); carried.len()];
        // Which stage is used in a step, and which is filled.
        carried.extend([body.index(0), body.index((stages as i64 - 1) * words)]);
        types.extend(["index".to_string(), "index".to_string()]);
        carried.extend(&loaded);
        types.extend(self.loaded_types(&fetches));
        let (low, high) = (body.index(0), body.index(steps));
        let mut sums = body.for_carry(low, high, 1, &carried, &types, |body, step, carried| {
            let (sums, rest) = carried.split_at(self.sums());
            let (places, loaded) = rest.split_at(2);
            if copies {
                body.line(format_args!("nvvm.cp.async.wait.group {}", stages - 2));
            }
            if self.tile.unit == Unit::Warpgroup {
                warpgroup::show_copies(body);
            }
            barrier(body);
            let ahead = body.sum((stages as i64 - 1) * depth, &[(from, 1), (step, depth)]);
            let mut next = vec![];
            let mut sums = if self.tile.unit == Unit::Warpgroup {
                // The products are made while the threads copy.
                let sums = self.begin_products(body, group, places[0], sums);
                start(body, places[1], ahead);
                self.put(body, &fetches, places[1], loaded);
                let ahead = body.sum(depth, &[(ahead, 1)]);
                next = self.load(body, &fetches, ahead, end);
                warpgroup::wait(body, &sums)
            } else {
                start(body, places[1], ahead);
                self.multiply(body, &at, places[0], sums)
            };
            for &place in places {
                let (after, around) = (body.sum(words, &[(place, 1)]), body.index(0));
                let last = body.index((stages as i64 - 1) * words);
                let wraps = body.op(format_args!("arith.cmpi eq, {place}, {last} : index"));
                sums.push(body.op(format_args!("arith.select {wraps}, {around}, {after} : index")));
            }
            sums.extend(next);
            sums
        });
        if copies {
            body.line("nvvm.cp.async.wait.group 0");
        }
        sums.truncate(self.sums());
        sums
    }

    /// Outputs of finished sums, or parts of them for another kernel to add.
    fn finish(
        &self,
        body: &mut Body,
        mut loops: Vec<Value>,
        first: (Value, Value),
        at: &Position,
        sums: &[Value],
        partial: Option<&Partial>,
    ) {
        // What a thread holds: rows, columns in groups that are adjacent, and which sum is where.
        let (height, width) = self.tile.part;
        let transposed = (self.rows.is_transposed(), self.columns.is_transposed());
        let (rows, columns, adjacent): (Vec<usize>, Vec<usize>, usize) = match self.on_tensor_cores() {
            true if transposed.1 => (
                (0..height).step_by(8).collect(),
                (0..width / INTERLEAVED)
                    .flat_map(|i| [INTERLEAVED * i, INTERLEAVED * i + 4])
                    .collect(),
                4,
            ),
            true => (
                (0..height).step_by(8).collect(),
                (0..width).step_by(FRAGMENT.1).collect(),
                2,
            ),
            false => {
                let (down, across) = (self.tile.rows / height, self.tile.columns / width);
                (
                    (0..height).map(|i| i / 4 * 4 * down + i % 4).collect(),
                    (0..width / 4).map(|j| 4 * across * j).collect(),
                    4,
                )
            }
        };
        let sum = |row: usize, column: usize, i: usize| {
            // Of a fragment's columns a thread has two, side by side but where columns are interleaved.
            let (fragment, i) = match transposed.1 {
                true => (column / 2 * 4 + i, column % 2),
                false => (column, i),
            };
            match self.on_tensor_cores() {
                true => sums[(row / 2 * (width / FRAGMENT.1) + fragment) * 4 + row % 2 * 2 + i],
                false => sums[row * columns.len() * 4 + column * 4 + i],
            }
        };
        let lanes = match self.columns.loops.last() {
            Some(&l) if self.stores_vectors(l, adjacent, partial) => adjacent,
            _ => 1,
        };
        let (row, column) = match self.on_tensor_cores() {
            true => (
                body.sum(0, &[(at.row, 1), (at.group, 1)]),
                body.sum(
                    0,
                    &[
                        (first.1, 1),
                        (at.column, 1),
                        (at.member, if transposed.1 { 8 } else { 2 }),
                    ],
                ),
            ),
            false => (at.row, body.sum(0, &[(first.1, 1), (at.column, 1)])),
        };
        for (i, &down) in rows.iter().enumerate() {
            let mut number = body.sum(down as i64, &[(row, 1)]);
            if transposed.0 {
                number = interleaved(body, number);
            }
            let number = body.sum(0, &[(first.0, 1), (number, 1)]);
            let pieces: Vec<(usize, Vec<Value>)> = columns
                .iter()
                .enumerate()
                .flat_map(|(j, &across)| {
                    (0..adjacent).step_by(lanes).map(move |lane| {
                        (
                            across + lane,
                            (lane..lane + lanes).map(|lane| sum(i, j, lane)).collect(),
                        )
                    })
                })
                .collect();
            let whole_rows = self.rows.extent.is_multiple_of(self.tile.rows);
            where_it_is(body, whole_rows, (number, self.rows.extent), &mut |body| {
                self.set(body, &mut loops, &self.rows.loops, number);
                let whole = self.columns.extent.is_multiple_of(self.tile.columns);
                for pieces in pieces.chunks(if whole { AT_ONCE / lanes } else { 1 }) {
                    let numbers: Vec<Value> = pieces
                        .iter()
                        .map(|(across, _)| body.sum(*across as i64, &[(column, 1)]))
                        .collect();
                    where_it_is(body, whole, (numbers[0], self.columns.extent), &mut |body| {
                        let finished: Vec<Finished> = pieces
                            .iter()
                            .zip(&numbers)
                            .map(|((_, values), &number)| {
                                self.set(body, &mut loops, &self.columns.loops, number);
                                self.finished(body, &loops, values, partial)
                            })
                            .collect();
                        for finished in finished {
                            self.store(body, finished, partial);
                        }
                    });
                }
            });
        }
    }

    /// Whether all outputs take `lanes` adjacent columns as one vector.
    fn stores_vectors(&self, l: Loop, lanes: usize, partial: Option<&Partial>) -> bool {
        let whole = |access: &Access| access.is_aligned(l, lanes);
        self.nest.extent(l).is_multiple_of(lanes)
            && match partial {
                Some(partial) => whole(&partial.access),
                None => self.nest.outputs.iter().all(|output| whole(&output.0)),
            }
    }

    /// Whether neighbouring columns are neighbours in all outputs. Where they are not, as in gradients of weights that
    /// were read channels last, sums go to scratch memory as they come, and another kernel rearranges them.
    pub(super) fn writes_along_columns(&self) -> bool {
        let mut outputs = self.nest.outputs.iter();
        let last = self.columns.loops.last();
        last.is_none_or(|&l| outputs.all(|output| output.0.step(l) == Some(1)))
    }

    /// Sets the loops that a number counts.
    fn set(&self, body: &mut Body, loops: &mut [Value], counted: &[Loop], number: Value) {
        let extents: Vec<usize> = counted.iter().map(|&l| self.nest.extent(l)).collect();
        for (&l, value) in counted.iter().zip(delinearize(body, number, &extents)) {
            loops[l.0] = value;
        }
    }

    /// Finishes adjacent columns of one row.
    fn finished(
        &self,
        body: &mut Body,
        loops: &[Value],
        values: &[Value],
        partial: Option<&Partial>,
    ) -> Finished {
        let lanes = Lanes {
            width: values.len(),
            mask: None,
        };
        let value = match values {
            [value] => *value,
            _ => {
                let names: Vec<String> = values.iter().map(Value::to_string).collect();
                let ty = lanes_type(values.len());
                body.op(format_args!("vector.from_elements {} : {ty}", names.join(", ")))
            }
        };
        let point = Point {
            loops: loops.to_vec(),
            vector: self.columns.loops.last().copied().filter(|_| values.len() > 1),
        };
        let values = match partial {
            Some(_) => vec![value],
            None => {
                let mut math = Math { body, lanes };
                let mut scope = Scope::of_reads(&self.nest.reads);
                scope.reduced = Some(value);
                let outputs = self.nest.outputs.iter();
                outputs
                    .map(|(_, value)| scope.value(&mut math, &point, value))
                    .collect()
            }
        };
        Finished { lanes, point, values }
    }

    /// Stores what is finished, or a part of it.
    fn store(&self, body: &mut Body, finished: Finished, partial: Option<&Partial>) {
        let Finished { lanes, point, values } = finished;
        let mut math = Math { body, lanes };
        match partial {
            Some(partial) => point.store(&mut math, &partial.access, values[0]),
            None => {
                for ((access, _), value) in self.nest.outputs.iter().zip(values) {
                    point.store(&mut math, access, value);
                }
            }
        }
    }
}

/// Does something for a row or column that is there: if that is not sure, it is asked whether its number is below the
/// extent.
fn where_it_is(
    body: &mut Body,
    sure: bool,
    (number, extent): (Value, usize),
    does: &mut dyn FnMut(&mut Body),
) {
    if sure {
        return does(body);
    }
    let exists = below(body, number, extent);
    body.if_true(exists, |body| does(body));
}
