//! A nest at single points, over operands that are functions of the index: so kernels on large tensors are checked at
//! samples of their results without computing the rest.

use crate::nest::{Affine, Binary, Combine, Expr, Nest, Read, Source, Unary, uniform};

/// An operand's element at an index, or `None` beyond its extents.
pub type Element<'e> = &'e dyn Fn(usize, &[usize]) -> Option<f64>;

/// The outputs of a nest at one point of its parallel loops. A nest that reads stages is no kernel's, and gives NaN.
pub fn evaluate_point(nest: &Nest, parallel: &[usize], element: Element) -> Vec<f64> {
    let mut at = Point {
        nest,
        point: parallel.iter().map(|&l| l as i64).collect(),
        element,
        reduced: f64::NAN,
        winner: f64::NAN,
    };
    at.point.resize(nest.extents().len(), 0);
    at.reduce();
    let outputs = nest.outputs.iter();
    outputs.map(|output| at.value(&output.value)).collect()
}

struct Point<'n> {
    nest: &'n Nest,
    point: Vec<i64>,
    element: Element<'n>,
    reduced: f64,
    winner: f64,
}

impl Point<'_> {
    /// Combines the body over the reduction loops, and leaves them at 0.
    fn reduce(&mut self) {
        let nest = self.nest;
        let (parallel, extents) = (nest.parallel.len(), nest.extents());
        let padded = self.reads_of_body();
        let (mut top, mut sum, mut place, mut found) = (f64::NEG_INFINITY, 0.0, 0.0, false);
        let points: u64 = nest.reduction.iter().map(|&n| n as u64).product();
        if nest.combine == Combine::None {
            return;
        }
        for number in 0..points {
            let value = self.value(&nest.body);
            match nest.combine {
                Combine::None => {}
                Combine::Sum => sum += value,
                Combine::Max => {
                    let inside = padded.iter().all(|&read| self.read(read).is_some());
                    let wins = !found || value > top || (value.is_nan() && !top.is_nan());
                    if inside && wins {
                        (top, place, found) = (value, number as f64, true);
                    }
                }
            }
            for l in (parallel..extents.len()).rev() {
                self.point[l] += 1;
                if self.point[l] < extents[l] as i64 {
                    break;
                }
                self.point[l] = 0;
            }
        }
        (self.reduced, self.winner) = match nest.combine {
            Combine::Max => (top, place),
            Combine::None | Combine::Sum => (sum, place),
        };
    }

    fn reads_of_body(&self) -> Vec<usize> {
        let mut reads = vec![];
        self.nest.body.walk(&mut |expr| {
            if let Expr::Read(read) = expr {
                reads.push(*read);
            }
        });
        reads
    }

    /// The element that a read takes, or `None` where it is outside.
    fn index(&self, read: &Read) -> Option<Vec<i64>> {
        let allowed = |map: &Affine, low: i64, high: i64| (low..high).contains(&map.at(&self.point));
        if !read
            .predicates
            .iter()
            .all(|predicate| allowed(&predicate.map, predicate.low, predicate.high))
        {
            return None;
        }
        let index = read.index.iter().map(|index| {
            let value = index.map.at(&self.point);
            (value >= 0 && value % index.divisor == 0).then_some(value / index.divisor)
        });
        index.collect()
    }

    fn read(&self, read: usize) -> Option<f64> {
        let read = &self.nest.reads[read];
        let Source::Operand(operand) = read.source else {
            return Some(f64::NAN);
        };
        let index: Vec<usize> = self.index(read)?.into_iter().map(|i| i as usize).collect();
        (self.element)(operand, &index)
    }

    fn value(&self, expr: &Expr) -> f64 {
        let truth = |holds: bool| f64::from(u8::from(holds));
        match expr {
            Expr::Constant(value) => *value,
            Expr::Read(read) => self.read(*read).unwrap_or(self.nest.reads[*read].padding_value),
            Expr::InBounds(read) => truth(self.read(*read).is_some()),
            Expr::Index(map) => map.at(&self.point) as f64,
            Expr::Table { values, index } => {
                let place = usize::try_from(index.at(&self.point)).ok();
                place.and_then(|i| values.get(i)).copied().unwrap_or(f64::NAN)
            }
            Expr::Reduced => self.reduced,
            Expr::ArgMax => self.winner,
            Expr::Unary(op, a) => {
                let a = self.value(a);
                match op {
                    Unary::Negate => -a,
                    Unary::Exp => a.exp(),
                    Unary::Log => a.ln(),
                    Unary::Tanh => a.tanh(),
                    Unary::Sqrt => a.sqrt(),
                    Unary::Reciprocal => 1.0 / a,
                }
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.value(a), self.value(b));
                let nan = a.is_nan() || b.is_nan();
                match op {
                    Binary::Add => a + b,
                    Binary::Subtract => a - b,
                    Binary::Multiply => a * b,
                    Binary::Divide => a / b,
                    Binary::Max | Binary::Min if nan => f64::NAN,
                    Binary::Max => a.max(b),
                    Binary::Min => a.min(b),
                    Binary::Power => a.powf(b),
                    Binary::Greater => truth(a > b),
                    Binary::Equal => truth(a == b),
                }
            }
            Expr::Select(condition, then, otherwise) => match self.value(condition) != 0.0 {
                true => self.value(then),
                false => self.value(otherwise),
            },
            Expr::Uniform {
                seed,
                step,
                stream,
                element,
            } => {
                let word = |read: usize| self.read(read).unwrap_or(0.0) as i64;
                uniform(word(*seed), word(*step), *stream, element.at(&self.point) as u32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpreter::{Tensor, evaluate_nest};
    use crate::nest::{Affine, Index, Loop, Output, Predicate};
    use crate::types::DType;

    /// A window of 3 along one axis that hangs over both ends, with a predicate and a fused output.
    fn nest(combine: Combine) -> Nest {
        let (x, k) = (Loop(0), Loop(1));
        let read = Read {
            source: Source::Operand(0),
            index: vec![Index {
                map: Affine::of(x).plus_loop(k, 1).plus_constant(-1),
                divisor: 1,
            }],
            predicates: vec![Predicate {
                map: Affine::of(x).plus_loop(k, 1),
                low: 0,
                high: 5,
            }],
            padding_value: -0.5,
        };
        let own = Read {
            index: vec![Index::of(x)],
            predicates: vec![],
            ..read.clone()
        };
        Nest {
            parallel: vec![6],
            reduction: vec![3],
            reads: vec![read, own],
            combine,
            body: Expr::Read(0),
            outputs: vec![Output {
                dtype: DType::F32,
                extents: vec![6],
                index: vec![Affine::of(x)],
                value: Expr::Reduced * Expr::Read(1) + Expr::InBounds(1),
            }],
        }
    }

    #[test]
    fn a_point_is_what_the_whole_nest_has_there() {
        let data = vec![0.5, -2.0, 3.0, 1.5, -0.25, 4.0];
        let element = |_: usize, index: &[usize]| data.get(index[0]).copied();
        for combine in [Combine::Sum, Combine::Max] {
            let nest = nest(combine);
            let whole = evaluate_nest(&nest, &[&Tensor::f32(&[6], data.clone())]).unwrap();
            for x in 0..6 {
                let found = evaluate_point(&nest, &[x], &element)[0];
                let expected = whole[0].data[x];
                assert!(
                    found == expected || (found - expected).abs() < 1e-12,
                    "{combine:?} {x}: {found} {expected}"
                );
            }
        }
    }
}
