//! The loops of a nest, resolved against where its tensors lie: along which of them lanes go, and what reads and stores
//! then take. It mirrors how `codegen` chooses, which this crate does not know.

use super::{Candidate, Stored};
use ir::nest::{Affine, Combine, Expr, Loop, Nest, Output, Read};

/// A read or store of which each lane has an address of its own, for each lane.
const APART: f64 = 2.0;
/// A condition on a read that differs from lane to lane.
const CHECK: f64 = 2.0;

/// A nest resolved against layouts.
pub(super) struct Loops {
    pub extents: Vec<usize>,
    parallel: usize,
    pub reads: Vec<AccessModel>,
    pub outputs: Vec<AccessModel>,
    /// Maps in expressions.
    indices: Vec<Affine>,
}

impl Loops {
    pub fn of(candidate: &Candidate) -> Loops {
        let nest = candidate.nest;
        let mut asks_inside = false;
        let mut indices = vec![];
        for expr in std::iter::once(&nest.body).chain(nest.outputs.iter().map(|o| &o.value)) {
            expr.walk(&mut |part| match part {
                Expr::InBounds(_) => asks_inside = true,
                Expr::Index(map) | Expr::Uniform { element: map, .. } => indices.push(map.clone()),
                _ => {}
            });
        }
        let use_padding = nest.combine != Combine::Max && !asks_inside;
        let stored = |read: &Read| &candidate.operands[read.source.operand()];
        let reads = nest.reads.iter();
        let outputs = nest.outputs.iter().zip(&candidate.results);
        Loops {
            extents: nest.extents(),
            parallel: nest.parallel.len(),
            reads: reads
                .map(|read| AccessModel::of_read(nest, read, stored(read), use_padding))
                .collect(),
            outputs: outputs
                .map(|(output, stored)| AccessModel::of_output(output, stored))
                .collect(),
            indices,
        }
    }

    /// Merges parallel loops that walk memory as one, as `codegen` does: of an image batch without storage padding a single one is
    /// left, and it fills vectors however few the channels.
    pub fn merge(&mut self) {
        let loops: Vec<usize> = (0..self.parallel).collect();
        let pairs = loops
            .iter()
            .flat_map(|&outer| loops.iter().map(move |&inner| (outer, inner)));
        let pairs: Vec<(usize, usize)> = pairs.filter(|(outer, inner)| outer != inner).collect();
        let merges = |loops: &Loops, outer: usize, inner: usize| {
            let step = |map: &Affine, l| map.coefficient(Loop(l));
            let extent = loops.extents[inner] as i64;
            loops.extents[outer] > 1
                && extent > 1
                && loops
                    .maps()
                    .all(|map| step(map, outer) == step(map, inner) * extent)
        };
        while let Some(&(outer, inner)) = pairs.iter().find(|&&(outer, inner)| merges(self, outer, inner)) {
            self.extents[inner] *= self.extents[outer];
            self.extents[outer] = 1;
            self.drop_loop(Loop(outer));
        }
    }

    fn maps(&self) -> impl Iterator<Item = &Affine> {
        let places = self.reads.iter().chain(&self.outputs);
        places.flat_map(AccessModel::maps).chain(&self.indices)
    }

    /// Forgets a loop of one iteration.
    fn drop_loop(&mut self, l: Loop) {
        let places = self.reads.iter_mut().chain(&mut self.outputs);
        places.for_each(|place| place.drop_loop(l));
        self.indices
            .iter_mut()
            .for_each(|map| map.terms.retain(|term| term.0 != l));
    }

    fn parallel_loops(&self) -> impl Iterator<Item = Loop> {
        (0..self.parallel).filter(|&l| self.extents[l] > 1).map(Loop)
    }

    /// The share of lanes that the vector loop of a contraction fills, with the steps of its innermost reduction loop;
    /// `None` if it has no vector loop.
    pub fn contraction(&self, a: usize, b: usize, lanes: usize) -> Option<(f64, usize)> {
        let affine = |read: usize| self.reads[read].divided.is_empty() && self.reads[read].checks.is_empty();
        if !affine(a) || !affine(b) {
            return None;
        }
        let ways = [(a, b), (b, a)].into_iter().flat_map(|(panel, scalar)| {
            let walks = move |l: &Loop| {
                self.reads[panel].step(*l) == Some(1) && self.reads[scalar].step(*l) == Some(0)
            };
            self.parallel_loops().filter(walks).map(move |l| (l, scalar))
        });
        let fill = |l: Loop| self.extents[l.0] as f64 / self.extents[l.0].next_multiple_of(lanes) as f64;
        let filled = ways.map(|(l, scalar)| (fill(l), scalar));
        let (fill, scalar) = filled.max_by(|one, other| one.0.total_cmp(&other.0))?;
        // The reduction runs in the order in which the broadcast operand lies in memory.
        let reduction = (self.parallel..self.extents.len())
            .map(Loop)
            .filter(|l| self.extents[l.0] > 1);
        let innermost = reduction.min_by_key(|&l| self.reads[scalar].step(l).map(i64::abs));
        Some((fill, innermost.map_or(usize::MAX, |l| self.extents[l.0])))
    }

    /// The loop along the lanes of any other nest: as `codegen` chooses it, the one with the fewest reads and stores
    /// apart, of those along which the result is contiguous or that fill a vector.
    pub fn vector(&self, lanes: usize) -> Option<Loop> {
        let apart = |l: &Loop| {
            let places = self.reads.iter().chain(&self.outputs);
            places
                .filter(|place| !matches!(place.step(*l), Some(0 | 1)))
                .count()
        };
        let contiguous = self
            .parallel_loops()
            .filter(|&l| self.outputs[0].step(l) == Some(1));
        let long = self.parallel_loops().filter(|l| self.extents[l.0] >= lanes);
        contiguous.chain(long).min_by_key(apart)
    }
}

/// Where a read or an output finds its elements, and under which conditions.
#[derive(Clone, Debug, Default)]
pub(super) struct AccessModel {
    /// The offset in memory; of a tensor whose layout is not decided, as if it were row-major.
    offset: Affine,
    /// Where the layout is not decided: the index of each dimension.
    free: Option<Vec<Affine>>,
    divided: Vec<Affine>,
    checks: Vec<Affine>,
}

impl AccessModel {
    fn of_read(nest: &Nest, read: &Read, stored: &Stored, use_padding: bool) -> AccessModel {
        let extents = nest.extents();
        let mut place = AccessModel::at(read.index.iter().map(|i| (&i.map, i.divisor == 1)), stored);
        for (d, index) in read.index.iter().enumerate() {
            let (low, high) = index.map.range(&extents);
            let (before, after) = match (
                use_padding && read.padding_value == 0.0 && index.divisor == 1,
                stored.layout,
            ) {
                (true, Some(layout)) => layout.padding[d],
                // As much as the read wants.
                (true, None) => continue,
                (false, _) => (0, 0),
            };
            let last = (stored.extents[d] + after) as i64 * index.divisor;
            if low < -(before as i64) || high >= last || index.divisor != 1 {
                place.checks.push(index.map.clone());
            }
        }
        place
            .checks
            .extend(read.predicates.iter().map(|predicate| predicate.map.clone()));
        place
    }

    fn of_output(output: &Output, stored: &Stored) -> AccessModel {
        AccessModel::at(output.index.iter().map(|map| (map, true)), stored)
    }

    /// `maps` are the index of each dimension, and whether it is the map itself rather than a quotient of it.
    fn at<'m>(maps: impl Iterator<Item = (&'m Affine, bool)>, stored: &Stored) -> AccessModel {
        let mut place = AccessModel::default();
        let mut strides = match stored.layout {
            Some(layout) => layout.strides(stored.extents).dims,
            None => vec![1; stored.extents.len()],
        };
        if stored.layout.is_none() {
            for d in (1..strides.len()).rev() {
                strides[d - 1] = strides[d] * stored.extents[d];
            }
        }
        let mut free = vec![];
        for ((map, itself), &stride) in maps.zip(&strides) {
            match itself {
                true => place.offset = place.offset.plus(map, stride as i64),
                false => place.divided.push(map.clone()),
            }
            free.push(map.clone());
        }
        place.free = stored.layout.is_none().then_some(free);
        place
    }

    /// How far apart the elements of two neighbours along a loop lie; `None` where that differs.
    fn step(&self, l: Loop) -> Option<i64> {
        if self.divided.iter().any(|map| map.coefficient(l) != 0) {
            return None;
        }
        let Some(free) = &self.free else {
            return Some(self.offset.coefficient(l));
        };
        // A dimension that the loop walks can be the innermost, if it walks no other.
        let mut steps = free
            .iter()
            .map(|map| map.coefficient(l).abs())
            .filter(|&step| step != 0);
        match (steps.next(), steps.next()) {
            (None, _) => Some(0),
            (Some(step), None) => Some(step),
            (Some(_), Some(_)) => Some(i64::MAX),
        }
    }

    /// Instructions of a load or store for one vector of points.
    pub fn instructions(&self, vector: Option<Loop>, lanes: usize) -> f64 {
        let Some(l) = vector else {
            return lanes as f64;
        };
        let differing = self.checks.iter().filter(|map| map.coefficient(l) != 0).count();
        let checks = CHECK * differing as f64;
        match self.step(l) {
            Some(0 | 1) => 1.0 + checks,
            _ => APART * lanes as f64 + checks,
        }
    }

    fn maps(&self) -> impl Iterator<Item = &Affine> {
        std::iter::once(&self.offset)
            .chain(&self.divided)
            .chain(&self.checks)
    }

    /// Forgets a loop of one iteration.
    fn drop_loop(&mut self, l: Loop) {
        std::iter::once(&mut self.offset)
            .chain(self.free.iter_mut().flatten())
            .chain(&mut self.divided)
            .chain(&mut self.checks)
            .for_each(|map| map.terms.retain(|term| term.0 != l));
    }
}
