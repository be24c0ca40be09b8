//! What a kernel asks of a device, counted from its nest and the layouts of its operands.
//!
//! Contractions are counted as multiply-adds. Of every other nest the instructions of its inner loop are counted, one
//! for a vector (or warp) of points, each in the time of a multiply-add: that is what bounds windows and maps whose
//! operands lie in cache.

use super::Candidate;
use ir::nest::{Affine, Binary, Combine, Expr, Loop, Nest, Output, Read, Source, Unary};
use ir::profile::Profile;
use ir::program::Value;
use std::collections::BTreeSet;

/// The shapes of nests that differ in what they reach of a device's peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A sum of products of two reads: convolutions, matrix products, their gradients.
    Contraction,
    /// One of so many terms that its sums go through memory: gradients of the weights of convolutions.
    Accumulation,
    /// A reduction whose reads slide with the point: pooling, normalisation.
    Window,
    /// Any other reduction: sums over a batch, softmax.
    Row,
    /// No reduction.
    Map,
}

/// What a kernel asks of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The shape of its nest.
    pub kind: Kind,
    /// Operations: a multiply-add of a contraction is two, any other operation on scalars one.
    pub operations: f64,
    /// Floating-point operations that the multipliers could do in the time of its instructions, idle lanes included.
    pub slots: f64,
    /// Bytes of operands and results, each once, halos included.
    pub bytes: f64,
    /// Parts that can run at once.
    pub tasks: f64,
}

/// Terms of a sum from which on it is an accumulation.
const LONG_SUM: usize = 16 * 1024;
/// Processors: where the innermost loop of a contraction has fewer steps than this, entering and leaving it costs half
/// as much again.
const SHORT_LOOP: usize = 8;
const SHORT_LOOP_COST: f64 = 1.5;
/// Instructions of the costlier operations, each in the time of a multiply-add on a vector: counted from the
/// expansions in `codegen/src/scalar.rs`. Division and root have units of their own, beside which others go on.
const DIVIDE: f64 = 5.0;
const ROOT: f64 = 5.0;
const EXP: f64 = 28.0;
const LOG: f64 = 36.0;
const TANH: f64 = 55.0;
const UNIFORM: f64 = 60.0;
/// A maximum that keeps the winner's place and lets NaN win.
const WINNER: f64 = 5.0;
/// A read or store of which each lane has an address of its own, for each lane.
const APART: f64 = 2.0;
/// A condition on a read that differs from lane to lane.
const CHECK: f64 = 2.0;

impl Work {
    /// Counts a kernel.
    pub fn of(candidate: &Candidate, profile: &Profile) -> Work {
        let nest = candidate.nest;
        let values = || candidate.operands.iter().chain(&candidate.results);
        let bytes = values().map(|value| bytes(value)).sum();
        let lanes = profile.lanes as usize;
        let mut loops = Loops::of(candidate);
        let contraction = nest
            .contraction()
            .and_then(|(a, b)| loops.contraction(a, b, lanes));
        if let Some((fill, innermost)) = contraction {
            let products = 2.0 * nest.points() as f64;
            let short = profile.gpu.is_none() && innermost < SHORT_LOOP;
            let long = nest.reduction.iter().product::<usize>() >= LONG_SUM;
            return Work {
                kind: if long {
                    Kind::Accumulation
                } else {
                    Kind::Contraction
                },
                operations: products,
                slots: products / fill * if short { SHORT_LOOP_COST } else { 1.0 },
                bytes,
                tasks: f64::INFINITY,
            };
        }
        loops.merge();
        let vector = loops.vector(lanes);
        let extent = vector.map_or(1, |l| loops.extents[l.0]);
        let fill = extent as f64 / extent.next_multiple_of(lanes) as f64;
        let (points, all) = (nest.parallel_points() as f64, nest.points() as f64);
        let (mut inner, mut outer) = (Instructions::default(), Instructions::default());
        if nest.combine != Combine::None {
            inner.expression(&loops, &nest.body, vector, lanes);
            inner.count += combine(nest);
            inner.operations += 1.0;
        }
        for (output, at) in nest.outputs.iter().zip(&loops.outputs) {
            outer.expression(&loops, &output.value, vector, lanes);
            outer.count += at.instructions(vector, lanes);
        }
        // The logarithm of a sum of exponentials takes two rounds: for the largest and for the sum.
        let rounds = if nest.combine == Combine::LogSumExp {
            2.0
        } else {
            1.0
        };
        let instructions = (rounds * inner.count * all + outer.count * points) / fill;
        Work {
            kind: kind(nest),
            operations: inner.operations * all + outer.operations * points,
            slots: 2.0 * instructions,
            bytes,
            tasks: (points / lanes as f64).ceil(),
        }
    }

    /// The zeros around a value.
    pub fn of_halo(value: &Value) -> Work {
        let inside: usize = value.extents.iter().product();
        let bytes = bytes(value) - (inside * value.dtype.bytes()) as f64;
        Work {
            kind: Kind::Map,
            operations: 0.0,
            slots: 0.0,
            bytes,
            tasks: f64::INFINITY,
        }
    }
}

/// Bytes of a value as it is stored.
pub(super) fn bytes(value: &Value) -> f64 {
    value.layout.strides(&value.extents).elements as f64 * value.dtype.bytes() as f64
}

fn kind(nest: &Nest) -> Kind {
    let slides = |map: &Affine| {
        let reduces = |(l, _): &&(Loop, i64)| l.0 >= nest.parallel.len();
        map.terms.iter().any(|term| reduces(&term)) && map.terms.iter().any(|term| !reduces(&term))
    };
    if nest.combine == Combine::None {
        Kind::Map
    } else if nest
        .reads
        .iter()
        .flat_map(|read| &read.index)
        .any(|i| slides(&i.map))
    {
        Kind::Window
    } else {
        Kind::Row
    }
}

fn combine(nest: &Nest) -> f64 {
    let mut asks = false;
    for output in &nest.outputs {
        output.value.walk(&mut |e| asks |= matches!(e, Expr::Winner));
    }
    match nest.combine {
        Combine::None => 0.0,
        Combine::Sum => 1.0,
        Combine::Max if asks => WINNER,
        Combine::Max => 3.0,
        Combine::LogSumExp => 1.0 + EXP / 2.0,
    }
}

/// Instructions and operations of expressions; a read is loaded once however often it is used.
#[derive(Default)]
struct Instructions {
    count: f64,
    operations: f64,
    loaded: BTreeSet<usize>,
}

impl Instructions {
    fn expression(&mut self, loops: &Loops, expr: &Expr, vector: Option<Loop>, lanes: usize) {
        expr.walk(&mut |part| {
            let (count, operations) = match part {
                Expr::Constant(_) | Expr::Reduced | Expr::Winner => (0.0, 0.0),
                Expr::Index(_) => (1.0, 0.0),
                &Expr::Read(read) | &Expr::Inside(read) => match self.loaded.insert(read) {
                    true => (loops.reads[read].instructions(vector, lanes), 0.0),
                    false => (0.0, 0.0),
                },
                Expr::Unary(op, _) => (unary(*op), 1.0),
                Expr::Binary(op, _, right) => (binary(*op, right), 1.0),
                Expr::Select(..) => (1.0, 1.0),
                Expr::Uniform { .. } => (UNIFORM, 1.0),
            };
            self.count += count;
            self.operations += operations;
        });
    }
}

fn unary(op: Unary) -> f64 {
    match op {
        Unary::Negate => 1.0,
        Unary::Exp => EXP,
        Unary::Log => LOG,
        Unary::Tanh => TANH,
        Unary::Sqrt => ROOT,
        Unary::Reciprocal => DIVIDE,
    }
}

fn binary(op: Binary, right: &Expr) -> f64 {
    match (op, right) {
        (Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Greater | Binary::Equal, _) => 1.0,
        // NaN passes.
        (Binary::Max | Binary::Min, _) => 3.0,
        (Binary::Divide, _) => DIVIDE,
        (Binary::Power, Expr::Constant(power)) if (power * 4.0).fract() == 0.0 && power.abs() <= 4.0 => {
            let quarters = (power.abs() * 4.0) as u32;
            let roots = if quarters % 2 == 1 {
                2.0
            } else {
                f64::from(u8::from(quarters % 4 == 2))
            };
            let inverse = if *power < 0.0 { DIVIDE } else { 0.0 };
            roots * ROOT + inverse + f64::from(quarters / 4) + 1.0
        }
        (Binary::Power, _) => EXP + LOG,
    }
}

/// Where a read or an output finds its elements, and under which conditions.
#[derive(Clone, Debug, Default)]
struct Place {
    offset: Affine,
    divided: Vec<Affine>,
    checks: Vec<Affine>,
}

impl Place {
    fn of_read(nest: &Nest, read: &Read, value: &Value, use_halo: bool) -> Place {
        let strides = value.layout.strides(&value.extents);
        let extents = nest.extents();
        let mut place = Place::default();
        for (d, index) in read.index.iter().enumerate() {
            let (low, high) = index.map.range(&extents);
            let (before, after) = match use_halo && read.outside == 0.0 && index.divisor == 1 {
                true => value.layout.halo[d],
                false => (0, 0),
            };
            let last = (value.extents[d] + after) as i64 * index.divisor;
            if low < -(before as i64) || high >= last || index.divisor != 1 {
                place.checks.push(index.map.clone());
            }
            match index.divisor {
                1 => place.offset = place.offset.plus(&index.map, strides.dims[d] as i64),
                _ => place.divided.push(index.map.clone()),
            }
        }
        place
            .checks
            .extend(read.guards.iter().map(|guard| guard.map.clone()));
        place
    }

    fn of_output(output: &Output, value: &Value) -> Place {
        let strides = value.layout.strides(&value.extents);
        let maps = output.index.iter().zip(&strides.dims);
        Place {
            offset: maps.fold(Affine::default(), |sum, (map, &stride)| {
                sum.plus(map, stride as i64)
            }),
            ..Place::default()
        }
    }

    fn step(&self, l: Loop) -> Option<i64> {
        let regular = self.divided.iter().all(|map| map.coefficient(l) == 0);
        regular.then(|| self.offset.coefficient(l))
    }

    /// Instructions of a load or store for one vector of points.
    fn instructions(&self, vector: Option<Loop>, lanes: usize) -> f64 {
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
}

/// A nest resolved against layouts.
struct Loops {
    extents: Vec<usize>,
    parallel: usize,
    reads: Vec<Place>,
    outputs: Vec<Place>,
    /// Maps in expressions.
    indices: Vec<Affine>,
}

impl Loops {
    fn of(candidate: &Candidate) -> Loops {
        let nest = candidate.nest;
        let mut asks_inside = false;
        let mut indices = vec![];
        for expr in std::iter::once(&nest.body).chain(nest.outputs.iter().map(|o| &o.value)) {
            expr.walk(&mut |part| match part {
                Expr::Inside(_) => asks_inside = true,
                Expr::Index(map) | Expr::Uniform { element: map, .. } => indices.push(map.clone()),
                _ => {}
            });
        }
        let use_halo = nest.combine != Combine::Max && !asks_inside;
        let value = |read: &Read| match read.source {
            Source::Operand(i) => candidate.operands[i],
            Source::Stage(_) => unreachable!("Program::verify rejects kernels that read stages"),
        };
        let reads = nest.reads.iter();
        let outputs = nest.outputs.iter().zip(&candidate.results);
        Loops {
            extents: nest.extents(),
            parallel: nest.parallel.len(),
            reads: reads
                .map(|read| Place::of_read(nest, read, value(read), use_halo))
                .collect(),
            outputs: outputs
                .map(|(output, value)| Place::of_output(output, value))
                .collect(),
            indices,
        }
    }

    /// Merges parallel loops that walk memory as one, as `codegen` does: of an image batch without halo a single one is
    /// left, and it fills vectors however few the channels.
    fn merge(&mut self) {
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
        places.flat_map(Place::maps).chain(&self.indices)
    }

    /// Forgets a loop of one iteration.
    fn drop_loop(&mut self, l: Loop) {
        let places = self.reads.iter_mut().chain(&mut self.outputs);
        let maps = places.flat_map(|place| {
            std::iter::once(&mut place.offset)
                .chain(&mut place.divided)
                .chain(&mut place.checks)
        });
        maps.chain(&mut self.indices)
            .for_each(|map| map.terms.retain(|term| term.0 != l));
    }

    fn parallel_loops(&self) -> impl Iterator<Item = Loop> {
        (0..self.parallel).filter(|&l| self.extents[l] > 1).map(Loop)
    }

    /// The share of lanes that the vector loop of a contraction fills, with the steps of its innermost reduction loop;
    /// `None` if it has no vector loop.
    fn contraction(&self, a: usize, b: usize, lanes: usize) -> Option<(f64, usize)> {
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
    fn vector(&self, lanes: usize) -> Option<Loop> {
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
