//! Tables as matrices: how they are found, what is known of checks, and products with columns in straight-line code.

use crate::access::FlatPredicate;
use crate::kernel::FlatNest;
use crate::mlir::Value;
use crate::scalar::Math;
use ir::nest::{Binary, Combine, Expr, Loop};

/// A table as a matrix: a row an iteration of a parallel loop, a column one of a reduction loop.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) row: Loop,
    pub(super) column: Loop,
    pub(super) entries: Vec<Vec<f64>>,
}

/// Iterations `first..=last` of each loop, as far as they are known where code is written.
pub(super) type Ranges = Vec<(i64, i64)>;

/// The tables of a sum of products of one read and tables, and the read.
pub(super) fn matrices(nest: &FlatNest) -> Option<(Vec<Matrix>, usize)> {
    fn factors<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
        match expr {
            Expr::Binary(Binary::Multiply, a, b) => [a, b].into_iter().for_each(|e| factors(e, found)),
            other => found.push(other),
        }
    }
    if nest.combine != Combine::Sum {
        return None;
    }
    let (mut parts, mut matrices, mut read) = (vec![], vec![], None);
    factors(&nest.body, &mut parts);
    for part in parts {
        match part {
            Expr::Read(i) if read.is_none() && nest.reads[*i].divided.is_empty() => read = Some(*i),
            Expr::Table { values, index } => {
                let [(row, rows), (column, columns)] = index.terms[..] else {
                    return None;
                };
                let is_matrix = row.0 < nest.parallel && column.0 >= nest.parallel;
                let known = |m: &Matrix| m.row == row || m.column == column;
                if !is_matrix || matrices.iter().any(known) {
                    return None;
                }
                let at = |i: usize, j: usize| index.constant + rows * i as i64 + columns * j as i64;
                let entry = |i: usize, j: usize| values[at(i, j) as usize];
                let line = |i: usize| (0..nest.extent(column)).map(|j| entry(i, j)).collect();
                let entries = (0..nest.extent(row)).map(line).collect();
                matrices.push(Matrix { row, column, entries });
            }
            _ => return None,
        }
    }
    let read = read?;
    let moved = |m: &Matrix| nest.reads[read].depends_on(m.row);
    let fits = !matrices.is_empty() && !matrices.iter().any(moved);
    fits.then_some((matrices, read))
}

/// Calls `visit` with the iterations of these loops, the last one fastest.
pub(super) fn each_point(extents: &[usize], loops: &[Loop], visit: &mut dyn FnMut(&[usize])) {
    let mut point = vec![0; loops.len()];
    loop {
        visit(&point);
        let mut at = loops.len();
        loop {
            if at == 0 {
                return;
            }
            at -= 1;
            point[at] += 1;
            if point[at] < extents[loops[at].0] {
                break;
            }
            point[at] = 0;
        }
    }
}

/// Whether a check holds at all points in these ranges, or at none.
pub(super) fn decide(check: &FlatPredicate, ranges: &Ranges) -> Option<bool> {
    let FlatPredicate::Range(map, low, high) = check else {
        return None;
    };
    let (mut least, mut most) = (map.constant, map.constant);
    for &(l, factor) in &map.terms {
        let (first, last) = ranges[l.0];
        least += (factor * first).min(factor * last);
        most += (factor * first).max(factor * last);
    }
    match (least >= *low && most < *high, most < *low || least >= *high) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A matrix times a column; `None` stands for 0. Columns that differ in signs only become their sum and difference, and
/// of rows that do so two halves are computed, whose sum and difference they are.
pub(super) fn multiply(math: &mut Math, matrix: &Matrix, column: &[Option<Value>]) -> Vec<Option<Value>> {
    let (mut entries, mut column) = (matrix.entries.clone(), column.to_vec());
    let mut paired = vec![false; column.len()];
    for j in 0..column.len() {
        let mirrored = |k: &usize| entries.iter().all(|row| row[j].abs() == row[*k].abs());
        let used = entries.iter().filter(|row| row[j] != 0.0).count();
        let partner = (j + 1..column.len()).find(|k| !paired[*k] && column[*k].is_some() && mirrored(k));
        let (Some(k), Some(a), false) = (partner, column[j], paired[j] || used <= 2) else {
            continue;
        };
        let b = column[k].expect("a partner has a value");
        (column[j], column[k]) = (Some(math.f("addf", a, b)), Some(math.f("subf", a, b)));
        (paired[j], paired[k]) = (true, true);
        for row in &mut entries {
            let same = row[j] == row[k];
            (row[j], row[k]) = if same { (row[j], 0.0) } else { (0.0, row[j]) };
        }
    }
    multiply_rows(math, &entries, &column)
}

fn multiply_rows(math: &mut Math, entries: &[Vec<f64>], column: &[Option<Value>]) -> Vec<Option<Value>> {
    let terms = |row: &[f64], wanted: &dyn Fn(usize) -> bool| -> Vec<(f64, Value)> {
        let pairs = row.iter().zip(column).enumerate();
        pairs
            .filter(|(i, (factor, _))| **factor != 0.0 && wanted(*i))
            .filter_map(|(_, (&factor, value))| Some((factor, (*value)?)))
            .collect()
    };
    let mut results: Vec<Option<Option<Value>>> = vec![None; entries.len()];
    for (i, row) in entries.iter().enumerate() {
        if results[i].is_some() {
            continue;
        }
        let mirrored = |other: &Vec<f64>| row.iter().zip(other).all(|(a, b)| a.abs() == b.abs());
        let partner = (i + 1..entries.len()).find(|&j| results[j].is_none() && mirrored(&entries[j]));
        if let Some(j) = partner {
            let same = |k: usize| row[k] == entries[j][k];
            let (even, odd) = (terms(row, &same), terms(row, &|k| !same(k)));
            if even.len() + odd.len() > 2 {
                let (even, odd) = (sum(math, &even), sum(math, &odd));
                let (plus, minus) = match (even, odd) {
                    (Some(even), Some(odd)) => {
                        (Some(math.f("addf", even, odd)), Some(math.f("subf", even, odd)))
                    }
                    (Some(even), None) => (Some(even), Some(even)),
                    (None, Some(odd)) => (Some(odd), Some(math.negate(odd))),
                    (None, None) => (None, None),
                };
                (results[i], results[j]) = (Some(plus), Some(minus));
                continue;
            }
        }
        results[i] = Some(sum(math, &terms(row, &|_| true)));
    }
    results.into_iter().flatten().collect()
}

/// `Σ factor·value`; none where there are no terms.
fn sum(math: &mut Math, terms: &[(f64, Value)]) -> Option<Value> {
    // A first term without a factor needs no operation of its own.
    let first = terms.iter().position(|t| t.0 == 1.0).unwrap_or(0);
    let &(factor, value) = terms.get(first)?;
    let mut total = match factor {
        1.0 => value,
        -1.0 => math.negate(value),
        _ => {
            let factor = math.constant(factor);
            math.f("mulf", factor, value)
        }
    };
    for (i, &(factor, value)) in terms.iter().enumerate() {
        total = match factor {
            _ if i == first => total,
            1.0 => math.f("addf", total, value),
            -1.0 => math.f("subf", total, value),
            _ => {
                let factor = math.constant(factor);
                math.fma(factor, value, total)
            }
        };
    }
    Some(total)
}
