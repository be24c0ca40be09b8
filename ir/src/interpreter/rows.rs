//! Scalar expressions evaluated a row at a time.
//!
//! A row is a run of neighbouring points along one parallel loop. Whether a read is inside, and where, is then
//! settled once a row, and the cost of interpreting an expression is shared by all its points.

use super::Tensor;
use crate::nest::{Affine, Binary, Expr, Loop, Predicate, Read, Unary, uniform};

/// Points of a row at most: many enough to share the cost, few enough to stay in cache.
pub(super) const ROW: usize = 128;

/// A row: the point where it starts, and the loop along which it runs.
pub(super) struct Row<'a> {
    /// All loops at the first point of the row.
    pub point: &'a [i64],
    /// How many points it has.
    pub len: usize,
    /// The combined values, for outputs.
    pub reduced: &'a [f64],
    /// The winners, for outputs.
    pub winner: &'a [f64],
}

/// One dimension of a read tensor.
struct Dimension {
    map: Affine,
    /// The change of the map from point to point of the row.
    each: i64,
    divisor: i64,
    extent: i64,
    stride: i64,
}

/// A read with its tensor, ready to fill rows.
pub(super) struct RowRead<'a> {
    data: &'a [f64],
    dimensions: Vec<Dimension>,
    predicates: Vec<(Predicate, i64)>,
    padding_value: f64,
}

/// The points `i` of a row for which `low <= first + i·each < high`, as a half-open range.
fn span(first: i64, each: i64, low: i64, high: i64) -> (i64, i64) {
    let up = |a: i64| -(-a).div_euclid(each.abs());
    match each {
        0 if first >= low && first < high => (0, i64::MAX),
        0 => (0, 0),
        1.. => (up(low - first), up(high - first)),
        // first − i·|each| >= low: i <= (first − low) / |each|; and likewise for high.
        _ => (up(first - high + 1), up(first - low + 1)),
    }
}

impl<'a> RowRead<'a> {
    /// `along`: the loop of the rows.
    pub(super) fn new(read: &Read, tensor: &'a Tensor, along: Option<Loop>) -> RowRead<'a> {
        let each = |map: &Affine| along.map_or(0, |l| map.coefficient(l));
        let mut stride = 1;
        let mut dimensions: Vec<Dimension> = read
            .index
            .iter()
            .zip(&tensor.extents)
            .rev()
            .map(|(index, &extent)| {
                stride *= extent as i64;
                Dimension {
                    each: each(&index.map),
                    map: index.map.clone(),
                    divisor: index.divisor,
                    extent: extent as i64,
                    stride: stride / extent as i64,
                }
            })
            .collect();
        dimensions.reverse();
        RowRead {
            data: &tensor.data,
            dimensions,
            predicates: read
                .predicates
                .iter()
                .map(|predicate| (predicate.clone(), each(&predicate.map)))
                .collect(),
            padding_value: read.padding_value,
        }
    }

    /// Fills a row with the values read, and tells which of them are inside.
    fn load(&self, point: &[i64], values: &mut [f64], inside: &mut [bool]) {
        let (mut low, mut high) = (0, values.len() as i64);
        let mut narrow = |(from, to): (i64, i64)| (low, high) = (low.max(from), high.min(to));
        for (predicate, each) in &self.predicates {
            narrow(span(
                predicate.map.at(point),
                *each,
                predicate.low,
                predicate.high,
            ));
        }
        let (mut base, mut step, mut regular) = (0, 0, true);
        for d in &self.dimensions {
            let first = d.map.at(point);
            narrow(span(first, d.each, 0, d.extent * d.divisor));
            match d.divisor {
                1 => (base, step) = (base + first * d.stride, step + d.each * d.stride),
                _ => regular = false,
            }
        }
        let low = low.min(values.len() as i64).max(0) as usize;
        let high = high.max(low as i64) as usize;
        values[..low].fill(self.padding_value);
        values[high..].fill(self.padding_value);
        inside[..low].fill(false);
        inside[high..].fill(false);
        if !regular {
            return self.load_divided(point, low, &mut values[low..high], &mut inside[low..high]);
        }
        inside[low..high].fill(true);
        let first = base + low as i64 * step;
        let values = &mut values[low..high];
        match step {
            _ if values.is_empty() => {}
            0 => values.fill(self.data[first as usize]),
            1 => values.copy_from_slice(&self.data[first as usize..first as usize + values.len()]),
            _ => {
                let mut at = first;
                for value in values {
                    *value = self.data[at as usize];
                    at += step;
                }
            }
        }
    }

    /// The part of a row from its point `low` on, where indices are in range if they divide evenly.
    fn load_divided(&self, point: &[i64], low: usize, values: &mut [f64], inside: &mut [bool]) {
        let firsts: Vec<i64> = self.dimensions.iter().map(|d| d.map.at(point)).collect();
        for (i, (value, inside)) in values.iter_mut().zip(inside).enumerate() {
            let mut place = Some(0);
            for (d, first) in self.dimensions.iter().zip(&firsts) {
                let numerator = first + (low + i) as i64 * d.each;
                place = place
                    .filter(|_| numerator % d.divisor == 0)
                    .map(|p| p + numerator / d.divisor * d.stride);
            }
            *inside = place.is_some();
            *value = place.map_or(self.padding_value, |p| self.data[p as usize]);
        }
    }
}

/// One step of a program; it writes the register of its own number and reads those before it.
enum Step {
    Constant(f64),
    Read(usize),
    /// The register of the read.
    Inside(usize),
    Index(Affine, i64),
    /// The constants, and their index with its change along the row.
    Table(Vec<f64>, Affine, i64),
    Reduced,
    Winner,
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
    Select(usize, usize, usize),
    /// Registers of seed and step, the stream, and the element with its change along the row.
    Uniform(usize, usize, u32, Affine, i64),
}

/// An expression as steps over registers of a row each.
pub(super) struct Program {
    steps: Vec<Step>,
    registers: Vec<f64>,
    inside: Vec<bool>,
}

impl Program {
    /// `along`: the loop of the rows.
    pub(super) fn new(expr: &Expr, along: Option<Loop>) -> Program {
        let mut steps = vec![];
        push(expr, along, &mut steps);
        let size = steps.len() * ROW;
        Program {
            steps,
            registers: vec![0.0; size],
            inside: vec![false; size],
        }
    }

    /// Evaluates the expression along a row.
    pub(super) fn run(&mut self, reads: &[RowRead], row: &Row) {
        let len = row.len;
        for (number, step) in self.steps.iter().enumerate() {
            let (before, rest) = self.registers.split_at_mut(number * ROW);
            let (inside_before, inside_rest) = self.inside.split_at_mut(number * ROW);
            let out = &mut rest[..len];
            let register = |i: usize| &before[i * ROW..i * ROW + len];
            match step {
                Step::Constant(value) => out.fill(*value),
                Step::Read(read) => reads[*read].load(row.point, out, &mut inside_rest[..len]),
                Step::Inside(read) => {
                    for (out, inside) in out.iter_mut().zip(&inside_before[read * ROW..]) {
                        *out = f64::from(u8::from(*inside));
                    }
                }
                Step::Index(map, each) => {
                    let first = map.at(row.point);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = (first + i as i64 * each) as f64;
                    }
                }
                Step::Table(values, map, each) => {
                    let first = map.at(row.point);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = values[(first + i as i64 * each) as usize];
                    }
                }
                Step::Reduced => out.copy_from_slice(&row.reduced[..len]),
                Step::Winner => out.copy_from_slice(&row.winner[..len]),
                Step::Unary(op, a) => unary(*op, register(*a), out),
                Step::Binary(op, a, b) => binary(*op, register(*a), register(*b), out),
                Step::Select(condition, then, otherwise) => {
                    let branches = register(*then).iter().zip(register(*otherwise));
                    for ((out, condition), (then, otherwise)) in
                        out.iter_mut().zip(register(*condition)).zip(branches)
                    {
                        *out = if *condition != 0.0 { *then } else { *otherwise };
                    }
                }
                Step::Uniform(seed, step, stream, element, each) => {
                    let first = element.at(row.point);
                    let state = register(*seed).iter().zip(register(*step));
                    for ((i, out), (seed, step)) in out.iter_mut().enumerate().zip(state) {
                        let element = first + i as i64 * each;
                        *out = uniform(*seed as i64, *step as i64, *stream, element as u32);
                    }
                }
            }
        }
    }

    /// The values of the last row run, of which there are `len`.
    pub(super) fn result(&self, len: usize) -> &[f64] {
        // A step that is not a read is pushed after its parts, and a lone read is the only step.
        let last = self.steps.len() - 1;
        &self.registers[last * ROW..last * ROW + len]
    }

    /// Whether, in the last row run, all reads of the expression were inside at point `i`.
    pub(super) fn all_inside(&self, i: usize) -> bool {
        let reads = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| matches!(step, Step::Read(_)));
        reads.into_iter().all(|(number, _)| self.inside[number * ROW + i])
    }
}

/// Appends the steps of an expression and returns the register of its value. A read is made once.
fn push(expr: &Expr, along: Option<Loop>, steps: &mut Vec<Step>) -> usize {
    let each = |map: &Affine| along.map_or(0, |l| map.coefficient(l));
    let read = |i: usize, steps: &mut Vec<Step>| {
        let made = steps
            .iter()
            .position(|step| matches!(step, Step::Read(j) if *j == i));
        made.unwrap_or_else(|| {
            steps.push(Step::Read(i));
            steps.len() - 1
        })
    };
    let step = match expr {
        Expr::Read(i) => return read(*i, steps),
        Expr::InBounds(i) => Step::Inside(read(*i, steps)),
        Expr::Constant(value) => Step::Constant(*value),
        Expr::Index(map) => Step::Index(map.clone(), each(map)),
        Expr::Table { values, index } => Step::Table(values.clone(), index.clone(), each(index)),
        Expr::Reduced => Step::Reduced,
        Expr::ArgMax => Step::Winner,
        Expr::Unary(op, a) => Step::Unary(*op, push(a, along, steps)),
        Expr::Binary(op, a, b) => Step::Binary(*op, push(a, along, steps), push(b, along, steps)),
        Expr::Select(a, b, c) => {
            let [a, b, c] = [a, b, c].map(|part| push(part, along, steps));
            Step::Select(a, b, c)
        }
        Expr::Uniform {
            seed,
            step,
            stream,
            element,
        } => {
            let (seed, step) = (read(*seed, steps), read(*step, steps));
            Step::Uniform(seed, step, *stream, element.clone(), each(element))
        }
    };
    steps.push(step);
    steps.len() - 1
}

fn unary(op: Unary, a: &[f64], out: &mut [f64]) {
    let mut each = |f: fn(f64) -> f64| out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a));
    match op {
        Unary::Negate => each(|a| -a),
        Unary::Exp => each(f64::exp),
        Unary::Log => each(f64::ln),
        Unary::Tanh => each(f64::tanh),
        Unary::Sqrt => each(f64::sqrt),
        Unary::Reciprocal => each(f64::recip),
    }
}

fn binary(op: Binary, a: &[f64], b: &[f64], out: &mut [f64]) {
    fn each(a: &[f64], b: &[f64], out: &mut [f64], f: impl Fn(f64, f64) -> f64) {
        for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
            *out = f(*a, *b);
        }
    }
    let truth = |holds: bool| f64::from(u8::from(holds));
    let extreme = |a: f64, b: f64, first: bool| match a.is_nan() || b.is_nan() {
        true => f64::NAN,
        false if first => a,
        false => b,
    };
    match op {
        Binary::Add => each(a, b, out, |a, b| a + b),
        Binary::Subtract => each(a, b, out, |a, b| a - b),
        Binary::Multiply => each(a, b, out, |a, b| a * b),
        Binary::Divide => each(a, b, out, |a, b| a / b),
        Binary::Max => each(a, b, out, |a, b| extreme(a, b, a > b)),
        Binary::Min => each(a, b, out, |a, b| extreme(a, b, a < b)),
        Binary::Power => each(a, b, out, f64::powf),
        Binary::Greater => each(a, b, out, |a, b| truth(a > b)),
        Binary::Equal => each(a, b, out, |a, b| truth(a == b)),
    }
}
