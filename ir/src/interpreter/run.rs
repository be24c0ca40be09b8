//! Runs a nest: rows of parallel points over the cores, each row through all reduction points in order.

use super::check::check_nest;
use super::rows::{Program, ROW, Row, RowRead};
use super::{EvalError, Tensor};
use crate::nest::{Combine, Loop, Nest, Source};
use crate::types::DType;
use std::ops::Range;

/// Points from which on threads are worth their start.
const PARALLEL: u64 = 1 << 16;

/// Computes the outputs of one nest, fused or not, over the operands that it reads.
pub fn evaluate_nest(nest: &Nest, operands: &[&Tensor]) -> Result<Vec<Tensor>, EvalError> {
    run(nest, operands, &[])
}

/// The same, with the stages before it.
pub(super) fn run(nest: &Nest, operands: &[&Tensor], stages: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    check_nest(nest, operands, stages)?;
    let rows = Rows::new(nest);
    let reads: Vec<RowRead> = nest
        .reads
        .iter()
        .map(|read| {
            let tensor = match read.source {
                Source::Operand(i) => operands[i],
                Source::Intermediate(i) => &stages[i],
            };
            RowRead::new(read, tensor, rows.along)
        })
        .collect();
    let workers = match nest.points() {
        PARALLEL.. => std::thread::available_parallelism().map_or(1, |n| n.get()),
        _ => 1,
    };
    let share = rows.count.div_ceil(workers).max(1);
    let parts: Vec<Range<usize>> = (0..rows.count)
        .step_by(share)
        .map(|first| first..(first + share).min(rows.count))
        .collect();
    let computed: Vec<Vec<Vec<f64>>> = match &parts[..] {
        [all] => vec![compute(nest, &rows, &reads, all.clone())],
        parts => std::thread::scope(|scope| {
            let start = |part: &Range<usize>| {
                let (part, rows, reads) = (part.clone(), &rows, &reads);
                scope.spawn(move || compute(nest, rows, reads, part))
            };
            let workers: Vec<_> = parts.iter().map(start).collect();
            let join = |worker: std::thread::ScopedJoinHandle<_>| {
                worker.join().expect("a checked nest runs to its end")
            };
            workers.into_iter().map(join).collect()
        }),
    };
    Ok(store(nest, &rows, &parts, &computed))
}

/// The parallel points in rows along the longest loop.
struct Rows {
    along: Option<Loop>,
    /// Rows that one line along the loop is cut into.
    pieces: usize,
    count: usize,
}

impl Rows {
    fn new(nest: &Nest) -> Rows {
        let along = (0..nest.parallel.len()).max_by_key(|&l| nest.parallel[l]);
        let extent = along.map_or(1, |l| nest.parallel[l]);
        let pieces = extent.div_ceil(ROW);
        Rows {
            along: along.map(Loop),
            pieces,
            count: nest.parallel_points() as usize / extent * pieces,
        }
    }

    /// Sets the parallel loops to the first point of a row, and returns the row's length.
    fn start(&self, nest: &Nest, number: usize, point: &mut [i64]) -> usize {
        let (piece, mut rest) = (number % self.pieces, number / self.pieces);
        for (l, &extent) in nest.parallel.iter().enumerate().rev() {
            if self.along != Some(Loop(l)) {
                point[l] = (rest % extent) as i64;
                rest /= extent;
            }
        }
        let Some(along) = self.along else {
            return 1;
        };
        point[along.0] = (piece * ROW) as i64;
        (nest.parallel[along.0] - piece * ROW).min(ROW)
    }
}

/// Values of some rows for each output, row after row.
fn compute(nest: &Nest, rows: &Rows, reads: &[RowRead], part: Range<usize>) -> Vec<Vec<f64>> {
    let mut body = Program::new(&nest.body, rows.along);
    let mut values: Vec<Program> = nest
        .outputs
        .iter()
        .map(|output| Program::new(&output.value, rows.along))
        .collect();
    let mut results = vec![vec![]; nest.outputs.len()];
    let mut point = vec![0; nest.parallel.len() + nest.reduction.len()];
    for number in part {
        let len = rows.start(nest, number, &mut point);
        let mut sums = Combined::new(nest.combine);
        if nest.combine != Combine::None {
            reduce(nest, reads, &mut body, &mut point, len, &mut sums);
        }
        let row = Row {
            point: &point,
            len,
            reduced: &sums.value,
            winner: &sums.other,
        };
        for (program, result) in values.iter_mut().zip(&mut results) {
            program.run(reads, &row);
            result.extend_from_slice(program.result(len));
        }
    }
    results
}

/// Takes a row through all reduction points in row-major order, and leaves the reduction loops at 0.
fn reduce(
    nest: &Nest,
    reads: &[RowRead],
    body: &mut Program,
    point: &mut [i64],
    len: usize,
    sums: &mut Combined,
) {
    let first = nest.parallel.len();
    for number in 0.. {
        let row = Row {
            point,
            len,
            reduced: &[],
            winner: &[],
        };
        body.run(reads, &row);
        sums.add(body, len, number);
        let mut l = nest.reduction.len();
        loop {
            if l == 0 {
                return;
            }
            l -= 1;
            point[first + l] += 1;
            if point[first + l] < nest.reduction[l] as i64 {
                break;
            }
            point[first + l] = 0;
        }
    }
}

/// What a row has combined so far.
struct Combined {
    combine: Combine,
    /// The sum; the maximum; or the maximum whose exponentials are summed.
    value: [f64; ROW],
    /// The place of the maximum.
    other: [f64; ROW],
    /// Whether a maximum was found.
    found: [bool; ROW],
}

impl Combined {
    fn new(combine: Combine) -> Combined {
        let start = match combine {
            Combine::None | Combine::Sum => 0.0,
            Combine::Max => f64::NEG_INFINITY,
        };
        Combined {
            combine,
            value: [start; ROW],
            other: [0.0; ROW],
            found: [false; ROW],
        }
    }

    /// Adds the row that the body has just computed, of the reduction point with this number.
    fn add(&mut self, body: &Program, len: usize, number: u64) {
        let row = body.result(len);
        match self.combine {
            Combine::None => {}
            Combine::Sum => {
                for (sum, value) in self.value.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            Combine::Max => {
                for (i, &value) in row.iter().enumerate() {
                    let best = self.value[i];
                    let wins = !self.found[i] || value > best || (value.is_nan() && !best.is_nan());
                    if wins && body.all_inside(i) {
                        (self.value[i], self.other[i], self.found[i]) = (value, number as f64, true);
                    }
                }
            }
        }
    }
}

/// Puts computed rows where the outputs' index maps say. What is never written stays NaN.
fn store(nest: &Nest, rows: &Rows, parts: &[Range<usize>], computed: &[Vec<Vec<f64>>]) -> Vec<Tensor> {
    let mut point = vec![0; nest.parallel.len()];
    let mut outputs = vec![];
    for (number, output) in nest.outputs.iter().enumerate() {
        let mut data = vec![f64::NAN; output.extents.iter().product()];
        for (part, values) in parts.iter().zip(computed) {
            let mut values = values[number].iter();
            for row in part.clone() {
                let len = rows.start(nest, row, &mut point);
                for value in values.by_ref().take(len) {
                    if let Some(place) = output.place(&point) {
                        data[place] = match output.dtype {
                            DType::F32 => *value,
                            DType::I64 => *value as i64 as f64,
                            DType::U8 => f64::from(*value as u8),
                        };
                    }
                    if let Some(along) = rows.along {
                        point[along.0] += 1;
                    }
                }
            }
        }
        outputs.push(Tensor::new(output.dtype, &output.extents, data));
    }
    outputs
}
