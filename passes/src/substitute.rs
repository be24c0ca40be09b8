//! Rewriting nests from one set of loops to another: the arithmetic beneath `compose`.
//!
//! Two kernels can become one when the loops of the first can be written in the loops of the second. What is
//! solved here is `maps(loops) = targets`, where the maps are a *mixed radix*: each dimension of a tensor is
//! a loop, or several loops as digits (`36·c + 6·y + x`), and every element is met exactly once. That covers
//! permuted dimensions, a convolution's channel `o + O·g`, and reshapes.

use ir::nest::{Affine, Expr, Index, Loop, Nest, Predicate, Read};

/// What each loop of a nest is, in the loops of another nest.
#[derive(Clone, Debug, PartialEq)]
pub struct Substitution {
    loops: Vec<Index>,
}

/// The same map without loops that have a single point.
pub fn simplify(map: &Affine, extents: &[usize]) -> Affine {
    let terms = map
        .terms
        .iter()
        .filter(|(l, _)| extents[l.0] != 1)
        .copied()
        .collect();
    Affine {
        terms,
        constant: map.constant,
    }
}

/// Whether a predicate holds at every point.
pub fn always_holds(predicate: &Predicate, extents: &[usize]) -> bool {
    let (low, high) = predicate.map.range(extents);
    low >= predicate.low && high < predicate.high
}

/// Whether an index lies in a dimension of this extent at every point.
pub fn always_inside(index: &Index, extent: usize, extents: &[usize]) -> bool {
    let (low, high) = index.map.range(extents);
    index.divisor == 1 && low >= 0 && high < extent as i64
}

impl Substitution {
    /// Every loop stays itself.
    pub fn identity(extents: &[usize]) -> Substitution {
        Substitution {
            loops: (0..extents.len()).map(|l| Index::of(Loop(l))).collect(),
        }
    }

    /// Solves `maps(loops) = targets`, dimension by dimension of a tensor of extents `tensor`, where the maps
    /// are over loops of extents `from` and the targets over loops of extents `into`.
    ///
    /// `None` if the maps are not a mixed radix that meets every element once, or a target cannot be split
    /// into its digits.
    pub fn solve(
        maps: &[Affine],
        from: &[usize],
        tensor: &[usize],
        targets: &[Index],
        into: &[usize],
    ) -> Option<Substitution> {
        if maps.len() != tensor.len() || targets.len() != tensor.len() {
            return None;
        }
        let mut loops: Vec<Option<Index>> = from
            .iter()
            .map(|&n| (n == 1).then(|| Index::new(Affine::default())))
            .collect();
        for ((map, &extent), target) in maps.iter().zip(tensor).zip(targets) {
            let mut digits = digits(&simplify(map, from), from, extent)?;
            let last = digits.pop();
            let mut rest = Index {
                map: simplify(&target.map, into),
                divisor: target.divisor,
            };
            for (l, weight) in digits {
                let (quotient, remainder) = split(&rest, weight, into)?;
                if loops[l.0].replace(quotient).is_some() {
                    return None;
                }
                rest = remainder;
            }
            match last {
                Some((l, _)) if loops[l.0].replace(rest).is_some() => return None,
                _ => {}
            }
        }
        Some(Substitution {
            loops: loops.into_iter().collect::<Option<_>>()?,
        })
    }

    /// A map over the new loops, if no loop it uses has a divisor.
    pub fn affine(&self, map: &Affine) -> Option<Affine> {
        map.terms
            .iter()
            .try_fold(Affine::constant(map.constant), |sum, &(l, factor)| {
                let index = &self.loops[l.0];
                (index.divisor == 1).then(|| sum.plus(&index.map, factor))
            })
    }

    /// A map over the new loops as `numerator / divisor`. At most one loop may have a divisor, and must count
    /// once, so that the quotient is whole exactly where that loop is.
    fn quotient(&self, map: &Affine) -> Option<Index> {
        let mut divided = map.terms.iter().filter(|(l, _)| self.loops[l.0].divisor != 1);
        let Some(&(with_divisor, factor)) = divided.next() else {
            return self.affine(map).map(Index::new);
        };
        if divided.next().is_some() || factor.abs() != 1 {
            return None;
        }
        let Index {
            map: numerator,
            divisor,
        } = &self.loops[with_divisor.0];
        let others = self.affine(&map.clone().plus_loop(with_divisor, -factor))?;
        let numerator = Affine::default().plus(numerator, factor).plus(&others, *divisor);
        Some(Index {
            map: numerator,
            divisor: *divisor,
        })
    }

    /// A read over the new loops.
    pub fn read(&self, read: &Read) -> Option<Read> {
        let index = |index: &Index| {
            let inner = self.quotient(&index.map)?;
            Some(Index {
                map: inner.map,
                divisor: inner.divisor * index.divisor,
            })
        };
        let predicate = |predicate: &Predicate| {
            let Index { map, divisor } = self.quotient(&predicate.map)?;
            Some(Predicate {
                map,
                low: predicate.low * divisor,
                high: predicate.high * divisor,
            })
        };
        Some(Read {
            source: read.source,
            index: read.index.iter().map(index).collect::<Option<_>>()?,
            predicates: read.predicates.iter().map(predicate).collect::<Option<_>>()?,
            padding_value: read.padding_value,
        })
    }

    /// An expression over the new loops, its read `i` replaced by `reads(i)` and the test whether that is
    /// inside by `inside(i)`.
    pub fn expression(
        &self,
        expression: &Expr,
        reads: &impl Fn(usize) -> Expr,
        inside: &impl Fn(usize) -> Expr,
    ) -> Option<Expr> {
        // Maps first: what stands for reads is over the new loops already.
        let mapped = expression.try_map_affine(&mut |map| self.affine(map))?;
        replace_reads(&mapped, reads, inside)
    }
}

/// An expression with read `i` replaced by `reads(i)` and the test whether that is inside by `inside(i)`; `None` if a
/// counter of random numbers, which is read, would become more than a read.
fn replace_reads(
    expression: &Expr,
    reads: &impl Fn(usize) -> Expr,
    inside: &impl Fn(usize) -> Expr,
) -> Option<Expr> {
    let mut failed = false;
    let replaced = expression.map_leaves(&mut |leaf| match leaf {
        Expr::Read(i) => reads(*i),
        Expr::InBounds(i) => inside(*i),
        Expr::Uniform {
            seed,
            step,
            stream,
            element,
        } => match (reads(*seed), reads(*step)) {
            (Expr::Read(seed), Expr::Read(step)) => Expr::Uniform {
                seed,
                step,
                stream: *stream,
                element: element.clone(),
            },
            _ => {
                failed = true;
                leaf.clone()
            }
        },
        // All kinds are listed, so that a new one says whether it reads.
        Expr::Constant(_)
        | Expr::Index(_)
        | Expr::Table { .. }
        | Expr::Reduced
        | Expr::ArgMax
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Select(..) => leaf.clone(),
    });
    (!failed).then_some(replaced)
}

/// The loops of a map as digits with their weights, the weightiest first, if they count through `extent`.
fn digits(map: &Affine, extents: &[usize], extent: usize) -> Option<Vec<(Loop, i64)>> {
    let mut digits = map.terms.clone();
    digits.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
    let counted = digits.iter().rev().try_fold(1i64, |expected, &(l, weight)| {
        (weight == expected).then(|| weight * extents[l.0] as i64)
    })?;
    (map.constant == 0 && counted == extent as i64).then_some(digits)
}

/// `index = weight · quotient + remainder` with `0 ≤ remainder < weight` at every point.
fn split(index: &Index, weight: i64, extents: &[usize]) -> Option<(Index, Index)> {
    if index.divisor != 1 {
        return None;
    }
    let mut quotient = Affine::constant(index.map.constant.div_euclid(weight));
    let mut remainder = Affine::constant(index.map.constant.rem_euclid(weight));
    for &(l, factor) in &index.map.terms {
        if factor % weight == 0 {
            quotient = quotient.plus_loop(l, factor / weight);
        } else {
            remainder = remainder.plus_loop(l, factor);
        }
    }
    let (low, high) = remainder.range(extents);
    (low >= 0 && high < weight).then(|| (Index::new(quotient), Index::new(remainder)))
}

/// The nest with equal reads joined, unused reads and vacuous predicates removed.
pub fn normalize(mut nest: Nest) -> Nest {
    let extents = nest.extents();
    let mut used = vec![false; nest.reads.len()];
    let mut mark = |e: &Expr| match e {
        Expr::Read(i) | Expr::InBounds(i) => used[*i] = true,
        Expr::Uniform { seed, step, .. } => {
            used[*seed] = true;
            used[*step] = true;
        }
        _ => {}
    };
    nest.body.walk(&mut mark);
    nest.outputs.iter().for_each(|o| o.value.walk(&mut mark));

    let mut kept: Vec<Read> = vec![];
    let mut position = vec![0; nest.reads.len()];
    for (i, mut read) in std::mem::take(&mut nest.reads).into_iter().enumerate() {
        if used[i] {
            read.predicates.retain(|g| !always_holds(g, &extents));
            position[i] = kept.iter().position(|k| *k == read).unwrap_or_else(|| {
                kept.push(read);
                kept.len() - 1
            });
        }
    }
    nest.reads = kept;
    renumber(&mut nest.body, &position);
    nest.outputs
        .iter_mut()
        .for_each(|o| renumber(&mut o.value, &position));
    nest
}

/// Replaces the number of every read.
pub fn renumber(expression: &mut Expr, position: &[usize]) {
    let read = |i: usize| Expr::Read(position[i]);
    let renumbered = replace_reads(expression, &read, &|i| Expr::InBounds(position[i]));
    *expression = renumbered.expect("every read becomes a read");
}
