//! Affine maps of loops, and how those of a nest are replaced by others.
//!
//! What renumbers, splits or shifts the loops of a whole nest does so by [`Nest::map_affine`]: no map is passed over.

use super::{Expr, Index, Loop, Nest, Output, Predicate, Read};

/// `Σ coefficient · loop + constant`. Terms are sorted by loop, without zero coefficients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Affine {
    /// Loops with their coefficients.
    pub terms: Vec<(Loop, i64)>,
    /// The constant term.
    pub constant: i64,
}

impl Affine {
    /// A constant.
    pub fn constant(value: i64) -> Affine {
        Affine {
            terms: vec![],
            constant: value,
        }
    }

    /// The value of one loop.
    pub fn of(l: Loop) -> Affine {
        Affine {
            terms: vec![(l, 1)],
            constant: 0,
        }
    }

    /// This plus `factor · other`.
    pub fn plus(mut self, other: &Affine, factor: i64) -> Affine {
        self.constant += factor * other.constant;
        for &(l, c) in &other.terms {
            match self.terms.binary_search_by_key(&l, |t| t.0) {
                Ok(i) => self.terms[i].1 += factor * c,
                Err(i) => self.terms.insert(i, (l, factor * c)),
            }
        }
        self.terms.retain(|t| t.1 != 0);
        self
    }

    /// This plus `factor` times a loop.
    pub fn plus_loop(self, l: Loop, factor: i64) -> Affine {
        self.plus(&Affine::of(l), factor)
    }

    /// This plus a constant.
    pub fn plus_constant(mut self, value: i64) -> Affine {
        self.constant += value;
        self
    }

    /// The coefficient of a loop, zero if it does not occur.
    pub fn coefficient(&self, l: Loop) -> i64 {
        self.terms.iter().find(|t| t.0 == l).map_or(0, |t| t.1)
    }

    /// The value at a point.
    pub fn at(&self, point: &[i64]) -> i64 {
        self.constant + self.terms.iter().map(|&(l, c)| c * point[l.0]).sum::<i64>()
    }

    /// The smallest and largest value over loops of the given extents.
    pub fn range(&self, extents: &[usize]) -> (i64, i64) {
        let mut range = (self.constant, self.constant);
        for &(l, c) in &self.terms {
            let last = c * (extents[l.0] as i64 - 1);
            range = (range.0 + last.min(0), range.1 + last.max(0));
        }
        range
    }

    /// The loop this map is exactly equal to, if it is one.
    pub fn as_loop(&self) -> Option<Loop> {
        match self.terms[..] {
            [(l, 1)] if self.constant == 0 => Some(l),
            _ => None,
        }
    }
}

impl Nest {
    /// The same nest with parallel loop `l` split in two: `l` counts blocks of `inner` iterations (a divisor of
    /// its extent), and a new last parallel loop, which is returned, counts within a block.
    pub fn split_parallel(&self, l: Loop, inner: usize) -> (Nest, Loop) {
        let new = Loop(self.parallel.len());
        let map = |map: &Affine| {
            map.terms
                .iter()
                .fold(Affine::constant(map.constant), |sum, &(old, factor)| match old {
                    _ if old == l => sum.plus_loop(l, factor * inner as i64).plus_loop(new, factor),
                    _ if old.0 >= new.0 => sum.plus_loop(Loop(old.0 + 1), factor),
                    _ => sum.plus_loop(old, factor),
                })
        };
        let mut nest = self.map_affine(&mut |old| map(old));
        nest.parallel[l.0] /= inner;
        nest.parallel.push(inner);
        (nest, new)
    }

    /// The same nest with every affine map replaced: of reads, predicates, expressions and outputs. The loops stay, so
    /// extents are the caller's to change.
    pub fn map_affine(&self, map: &mut impl FnMut(&Affine) -> Affine) -> Nest {
        let Nest {
            parallel,
            reduction,
            reads,
            combine,
            body,
            outputs,
        } = self;
        let reads = reads.iter().map(|read| read.map_affine(map)).collect();
        let outputs = outputs.iter().map(|output| Output {
            dtype: output.dtype,
            extents: output.extents.clone(),
            index: output.index.iter().map(&mut *map).collect(),
            value: output.value.map_affine(map),
        });
        Nest {
            parallel: parallel.clone(),
            reduction: reduction.clone(),
            reads,
            combine: *combine,
            outputs: outputs.collect(),
            body: body.map_affine(map),
        }
    }
}

impl Read {
    /// The same read with every affine map replaced.
    pub fn map_affine(&self, map: &mut impl FnMut(&Affine) -> Affine) -> Read {
        let index = self.index.iter().map(|index| Index {
            map: map(&index.map),
            divisor: index.divisor,
        });
        let index = index.collect();
        let predicates = self.predicates.iter().map(|predicate| Predicate {
            map: map(&predicate.map),
            low: predicate.low,
            high: predicate.high,
        });
        Read {
            source: self.source,
            index,
            predicates: predicates.collect(),
            padding_value: self.padding_value,
        }
    }
}

impl Expr {
    /// This expression with every affine map replaced.
    pub fn map_affine(&self, map: &mut impl FnMut(&Affine) -> Affine) -> Expr {
        let mapped = self.try_map_affine(&mut |old| Some(map(old)));
        mapped.expect("maps that are always given leave no expression out")
    }

    /// This expression with every affine map replaced; `None` if one of them is `None`. Every kind of expression is
    /// listed, so that a new one says whether it has maps.
    pub fn try_map_affine(&self, map: &mut impl FnMut(&Affine) -> Option<Affine>) -> Option<Expr> {
        Some(match self {
            Expr::Constant(_) | Expr::Read(_) | Expr::InBounds(_) | Expr::Reduced | Expr::ArgMax => {
                self.clone()
            }
            Expr::Index(index) => Expr::Index(map(index)?),
            Expr::Table { values, index } => Expr::Table {
                values: values.clone(),
                index: map(index)?,
            },
            Expr::Uniform {
                seed,
                step,
                stream,
                element,
            } => Expr::Uniform {
                seed: *seed,
                step: *step,
                stream: *stream,
                element: map(element)?,
            },
            Expr::Unary(op, a) => a.try_map_affine(map)?.unary(*op),
            Expr::Binary(op, a, b) => {
                let a = a.try_map_affine(map)?;
                a.binary(*op, b.try_map_affine(map)?)
            }
            Expr::Select(a, b, c) => {
                let (a, b) = (a.try_map_affine(map)?, b.try_map_affine(map)?);
                a.select(b, c.try_map_affine(map)?)
            }
        })
    }
}
