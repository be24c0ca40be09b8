//! What goes through shared memory, and how a thread leaves it there and takes it.

use super::banks::Banks;
use super::order::{Order, SECTOR};
use crate::access::Access;
use crate::emit::Point;
use crate::gpu::thread::{lanes_type, load_shared, store_shared};
use crate::gpu::vector::{VECTOR, is_same_or_vector};
use crate::kernel::FlatNest;
use crate::loops::asks_winner;
use crate::mlir::{Body, Value};
use crate::scalar::Math;
use ir::nest::{Combine, Expr, Loop};

/// What goes through shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The combined body, and the winner's place where one asks for it.
    Reduction,
    /// One of the nest's reads.
    Read(usize),
    /// One of its outputs.
    Output(usize),
}

/// A value of every point of the tile in shared memory.
#[derive(Debug)]
pub struct SharedTile {
    pub source: Source,
    /// That of its own memory.
    pub order: Order,
    pub banks: Banks,
    /// Its first word.
    pub start: usize,
}

/// A point of a tile that a thread has.
pub struct TilePoint {
    pub point: Point,
    /// Within the tile, of each loop of the nest.
    pub within: Vec<Value>,
    /// Whether there is such a point.
    pub exists: Option<Value>,
}

impl SharedTile {
    pub fn words(&self, nest: &FlatNest) -> usize {
        match self.source {
            Source::Reduction if asks_winner(nest) => 2 * self.banks.words,
            _ => self.banks.words,
        }
    }

    /// The `i`th value of a point, or of a vector of points, that a thread takes in an order.
    pub fn load(&self, math: &mut Math, order: &Order, place: &TilePoint, i: usize) -> Value {
        let body = &mut *math.body;
        if order.lanes == 1 || self.banks.has_vectors(order) {
            let word = self.word(body, place, 0, i);
            return load_shared(body, word, order.lanes);
        }
        let lanes = (0..order.lanes).map(|lane| {
            let word = self.word(body, place, lane, i);
            load_shared(body, word, 1).to_string()
        });
        let (lanes, ty) = (lanes.collect::<Vec<_>>().join(", "), lanes_type(order.lanes));
        body.op(format_args!("vector.from_elements {lanes} : {ty}"))
    }

    /// Puts it there.
    pub fn store(&self, math: &mut Math, order: &Order, place: &TilePoint, i: usize, value: Value) {
        let body = &mut *math.body;
        if order.lanes == 1 || self.banks.has_vectors(order) {
            let word = self.word(body, place, 0, i);
            return store_shared(body, word, value, order.lanes);
        }
        let ty = lanes_type(order.lanes);
        for lane in 0..order.lanes {
            let word = self.word(body, place, lane, i);
            let one = body.op(format_args!("vector.extract {value}[{lane}] : f32 from {ty}"));
            store_shared(body, word, one, 1);
        }
    }

    /// The word of shared memory of a point's `i`th value, of a lane of a vector of points.
    fn word(&self, body: &mut Body, place: &TilePoint, lane: usize, i: usize) -> Value {
        let banks = &self.banks;
        let terms = banks.steps.iter().zip(&place.within);
        let terms: Vec<(Value, i64)> = terms.map(|(&step, &within)| (within, step as i64)).collect();
        let along = place.point.vector.map_or(0, |l| banks.steps[l.0]);
        let at = body.sum((lane * along) as i64, &terms);
        let turns = body.index_op("divui", at, banks.every as i64);
        let start = (self.start + i * banks.words) as i64;
        body.sum(start, &[(at, 1), (turns, banks.skew as i64)])
    }
}

/// What is in another order in memory than the first output, unless the first loops are the same and have whole sectors.
pub fn sources(nest: &FlatNest, order: &Order) -> Vec<Source> {
    let runs_elsewhere = |access: &Access| {
        let mut length = 1;
        for &l in &order.loops {
            let steps = (access.step(l), order.access.step(l));
            if steps != (Some(length), Some(length)) {
                break;
            }
            length *= nest.extent(l) as i64;
        }
        let goes_on = |l: Loop| access.step(l) == Some(length) && order.access.step(l) != Some(length);
        let is_same = access.step(order.loops[0]) == Some(0) || length >= SECTOR as i64;
        !is_same && nest.parallel_loops().into_iter().any(goes_on)
    };
    let mut sources = vec![];
    if nest.combine != Combine::None && runs_elsewhere(access(nest, Source::Reduction)) {
        sources.push(Source::Reduction);
    }
    let mut used = vec![false; nest.reads.len()];
    for (_, value) in &nest.outputs {
        value.walk(&mut |e| {
            if let Expr::Read(read) = e {
                used[*read] = true;
            }
        });
    }
    let reads = (0..nest.reads.len()).filter(|&read| used[read] && runs_elsewhere(&nest.reads[read]));
    sources.extend(reads.map(Source::Read));
    let outputs = (0..nest.outputs.len()).filter(|&output| runs_elsewhere(&nest.outputs[output].0));
    sources.extend(outputs.map(Source::Output));
    sources
}

/// The memory of what is staged; of a reduction, that of its largest operand.
pub fn access(nest: &FlatNest, source: Source) -> &Access {
    match source {
        Source::Read(read) => &nest.reads[read],
        Source::Output(output) => &nest.outputs[output].0,
        Source::Reduction => {
            let mut largest: Option<&Access> = None;
            nest.body.walk(&mut |e| {
                if let Expr::Read(read) = e
                    && largest.is_none_or(|largest| nest.reads[*read].elements > largest.elements)
                {
                    largest = Some(&nest.reads[*read]);
                }
            });
            largest.unwrap_or(&nest.outputs[0].0)
        }
    }
}

/// Whether all that is touched of a source outside shared memory is, along the first loop of its order, vectors.
pub fn has_vectors(nest: &FlatNest, source: Source, l: Loop) -> bool {
    nest.extent(l).is_multiple_of(VECTOR)
        && match source {
            Source::Read(read) => nest.reads[read].is_aligned(l, VECTOR),
            Source::Output(output) => nest.outputs[output].0.is_aligned(l, VECTOR),
            Source::Reduction => {
                let mut all = true;
                nest.body.walk(&mut |e| {
                    if let Expr::Read(read) | Expr::InBounds(read) = e {
                        all &= is_same_or_vector(&nest.reads[*read], l);
                    }
                });
                all
            }
        }
}

/// Whether all that the last walk touches outside shared memory is vectors along the first output's first loop.
pub fn finishes_vectors(nest: &FlatNest, sources: &[Source], l: Loop) -> bool {
    let outputs = nest.outputs.iter().enumerate();
    let mut stored = outputs.filter(|(i, _)| !sources.contains(&Source::Output(*i)));
    let reduces = nest.combine != Combine::None && !sources.contains(&Source::Reduction);
    let mut vectors = !reduces || has_vectors(nest, Source::Reduction, l);
    for (_, value) in &nest.outputs {
        value.walk(&mut |e| {
            let staged = matches!(e, Expr::Read(read) if sources.contains(&Source::Read(*read)));
            if let Expr::Read(read) | Expr::InBounds(read) = e {
                vectors &= staged || is_same_or_vector(&nest.reads[*read], l);
            }
        });
    }
    vectors
        && nest.extent(l).is_multiple_of(VECTOR)
        && stored.all(|(_, (access, _))| access.is_aligned(l, VECTOR))
}
