//! What a kernel asks of a device, counted from its nest and the layouts of its operands.
//!
//! Contractions are counted as multiply-adds. Of every other nest the instructions of its inner loop are counted, one
//! for a vector (or warp) of points, each in the time of a multiply-add: that is what bounds windows and maps whose
//! operands lie in cache.

use super::loops::Loops;
use super::{Candidate, Stored};
use ir::nest::{Affine, Binary, Combine, Expr, Loop, Nest, Unary};
use ir::profile::Profile;
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
    /// A sum with a table of constants: the transforms of fast convolutions.
    Transform,
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
    /// Bytes of operands and results, each once, storage padding included.
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
/// Multiply-adds of an element of a tensor that a table of constants transforms, one dimension after the other, by which
/// zeros and ones are left out.
const TRANSFORM: f64 = 4.0;
/// A maximum that keeps the winner's place and lets NaN win.
const WINNER: f64 = 5.0;

impl Work {
    /// Counts a kernel.
    pub fn of(candidate: &Candidate, profile: &Profile) -> Work {
        let nest = candidate.nest;
        let bytes = candidate
            .operands
            .iter()
            .chain(&candidate.results)
            .map(Stored::bytes)
            .sum();
        let lanes = profile.lanes as usize;
        let mut loops = Loops::of(candidate);
        // GPUs compute any of them as an implicit product of tiles in shared memory, where padding costs nothing.
        let contraction = nest.contraction().and_then(|(a, b)| match profile.gpu {
            Some(_) => Some((1.0, usize::MAX)),
            None => loops.contraction(a, b, lanes),
        });
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
        if let Some(elements) = transformed(candidate) {
            return Work {
                kind: Kind::Transform,
                operations: 2.0 * TRANSFORM * elements,
                slots: 2.0 * TRANSFORM * elements,
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
        let instructions = (inner.count * all + outer.count * points) / fill;
        Work {
            kind: kind(nest),
            operations: inner.operations * all + outer.operations * points,
            slots: 2.0 * instructions,
            bytes,
            tasks: (points / lanes as f64).ceil(),
        }
    }

    /// The zeros around a value.
    pub fn of_padding(stored: &Stored) -> Work {
        let inside: usize = stored.extents.iter().product();
        let bytes = stored.bytes() - (inside * stored.dtype.bytes()) as f64;
        Work {
            kind: Kind::Map,
            operations: 0.0,
            slots: 0.0,
            bytes,
            tasks: f64::INFINITY,
        }
    }
}

/// Elements of the larger side of a sum with a table of constants; `None` if this is none.
fn transformed(candidate: &Candidate) -> Option<f64> {
    let mut has_table = false;
    candidate
        .nest
        .body
        .walk(&mut |e| has_table |= matches!(e, Expr::Table { .. }));
    let elements = |stored: &Stored| stored.extents.iter().product::<usize>();
    let read = candidate.operands.iter().map(elements).max().unwrap_or(0);
    has_table.then(|| (read as f64).max(candidate.nest.parallel_points() as f64))
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
        output.value.walk(&mut |e| asks |= matches!(e, Expr::ArgMax));
    }
    match nest.combine {
        Combine::None => 0.0,
        Combine::Sum => 1.0,
        Combine::Max if asks => WINNER,
        Combine::Max => 3.0,
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
                Expr::Constant(_) | Expr::Reduced | Expr::ArgMax => (0.0, 0.0),
                Expr::Index(_) => (1.0, 0.0),
                Expr::Table { .. } => (0.0, 0.0),
                &Expr::Read(read) | &Expr::InBounds(read) => match self.loaded.insert(read) {
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
