//! The meaning of an operation, as loops over scalars.
//!
//! A [`Nest`] says: for every point of the *parallel* loops, combine a scalar *body* over the *reduction*
//! loops, then *finish* the result and store it. Operands are read through affine index maps; a read that
//! falls outside its tensor, or that a predicate forbids, yields a stated value instead. That is enough for
//! convolution and its gradients, pooling, normalisation, softmax and the update, so the interpreter, the
//! code generator and the fuser are each written once, for nests, and never name an operation.
//!
//! Kernels are nests too: fusing two operations is composing their nests (`compose`).

mod affine;

use crate::types::DType;

pub use affine::Affine;

/// A loop of a nest: parallel loops come first, reduction loops after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loop(pub usize);

/// The index into one dimension of an operand: `map / divisor`, outside where that does not divide evenly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// The affine numerator.
    pub map: Affine,
    /// At least 1. Gradients of strided operations read only where the stride divides.
    pub divisor: i64,
}

impl Index {
    /// An index with divisor 1.
    pub fn new(map: Affine) -> Index {
        Index { map, divisor: 1 }
    }

    /// The value of one loop.
    pub fn of(l: Loop) -> Index {
        Index::new(Affine::of(l))
    }
}

/// A condition on a read: it is inside only where `low <= map < high`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Predicate {
    /// The tested map.
    pub map: Affine,
    /// Smallest value allowed.
    pub low: i64,
    /// First value above those allowed.
    pub high: i64,
}

/// Where a read takes its elements from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Operand `i` of the operation or kernel.
    Operand(usize),
    /// Output 0 of an earlier nest of the same operation ([`crate::Operation::semantics`] returns a chain).
    Intermediate(usize),
}

impl Source {
    /// The operand of a kernel's read. Kernels of a program read operands only: `Program::verify` rejects others.
    pub fn operand(self) -> usize {
        match self {
            Source::Operand(i) => i,
            Source::Intermediate(_) => {
                unreachable!("Program::verify rejects kernels that read intermediates")
            }
        }
    }
}

/// A read of one element of an operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The tensor read.
    pub source: Source,
    /// One index a dimension of that tensor. A read outside the tensor yields `padding_value`.
    pub index: Vec<Index>,
    /// Further conditions; where one fails the read is outside.
    pub predicates: Vec<Predicate>,
    /// The value of a read outside.
    pub padding_value: f64,
}

/// A scalar expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant.
    Constant(f64),
    /// The value of `reads[i]`.
    Read(usize),
    /// 1 where `reads[i]` is inside its tensor and predicates, else 0.
    InBounds(usize),
    /// The value of an affine map of the loops.
    Index(Affine),
    /// A constant by place: `values[index]`. The index is inside at every point.
    Table {
        /// The constants.
        values: Vec<f64>,
        /// Which of them.
        index: Affine,
    },
    /// The combined value of the body; only in outputs.
    Reduced,
    /// For [`Combine::Max`]: the place of the winner in the reduction, counted row-major; only in outputs.
    ArgMax,
    /// One operand.
    Unary(Unary, Box<Expr>),
    /// Two operands.
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `if condition != 0 { then } else { otherwise }`.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A uniform number in [0, 1) from the counter-based generator of [`crate::nest::uniform`].
    Uniform {
        /// The read of the seed (an i64).
        seed: usize,
        /// The read of the training step (an i64).
        step: usize,
        /// Which random operation of the graph this is.
        stream: u32,
        /// The element's number.
        element: Affine,
    },
}

/// A function of one scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Negate,
    Exp,
    Log,
    Tanh,
    Sqrt,
    Reciprocal,
}

/// A function of two scalars. Comparisons yield 1 or 0; a comparison with NaN yields 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// NaN if either is NaN.
    Max,
    /// NaN if either is NaN.
    Min,
    /// `left` to the power of the constant `right`; `left` is positive.
    Power,
    Greater,
    Equal,
}

/// How the body is combined over the reduction loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// No reduction loops; the body is not evaluated and outputs read operands directly.
    None,
    /// The sum, starting at 0.
    Sum,
    /// The maximum over reads that are inside, starting at −∞. NaN wins; the first of equals wins.
    Max,
}

/// A value that a nest stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Element type stored.
    pub dtype: DType,
    /// Extents of the stored tensor.
    pub extents: Vec<usize>,
    /// Where the point's value goes, over parallel loops; injective, and covers the tensor. A point whose index lies
    /// beyond the tensor's end stores nothing: so tiles need not divide a tensor.
    pub index: Vec<Affine>,
    /// The value, over reads that depend on parallel loops only, [`Expr::Reduced`] and [`Expr::ArgMax`].
    pub value: Expr,
}

impl Output {
    /// The element, counted row-major, that a point of the parallel loops stores; none beyond the tensor's end.
    pub fn place(&self, point: &[i64]) -> Option<usize> {
        let places = self.index.iter().zip(&self.extents);
        places.into_iter().try_fold(0, |sum, (map, &extent)| {
            let at = map.at(point);
            (0..extent as i64)
                .contains(&at)
                .then(|| sum * extent + at as usize)
        })
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Extents of the parallel loops, `Loop(0)..`.
    pub parallel: Vec<usize>,
    /// Extents of the reduction loops, numbered after the parallel ones.
    pub reduction: Vec<usize>,
    /// The reads that expressions refer to.
    pub reads: Vec<Read>,
    /// How `body` is combined.
    pub combine: Combine,
    /// The scalar evaluated at every point of parallel and reduction loops.
    pub body: Expr,
    /// What is stored at every point of the parallel loops.
    pub outputs: Vec<Output>,
}

impl Nest {
    /// Extents of all loops, parallel first.
    pub fn extents(&self) -> Vec<usize> {
        [&self.parallel[..], &self.reduction[..]].concat()
    }

    /// The `i`th reduction loop.
    pub fn reduction_loop(&self, i: usize) -> Loop {
        Loop(self.parallel.len() + i)
    }

    /// Points of the parallel loops.
    pub fn parallel_points(&self) -> u64 {
        self.parallel.iter().map(|&n| n as u64).product()
    }

    /// Points of all loops.
    pub fn points(&self) -> u64 {
        self.parallel_points() * self.reduction.iter().map(|&n| n as u64).product::<u64>()
    }

    /// A copy of a tensor, element by element.
    pub fn copy(dtype: DType, extents: &[usize]) -> Nest {
        let loops = || (0..extents.len()).map(Loop);
        let index = loops().map(Index::of).collect();
        Nest {
            parallel: extents.to_vec(),
            reduction: vec![],
            reads: vec![Read {
                source: Source::Operand(0),
                index,
                predicates: vec![],
                padding_value: 0.0,
            }],
            combine: Combine::None,
            body: Expr::Constant(0.0),
            outputs: vec![Output {
                dtype,
                extents: extents.to_vec(),
                index: loops().map(Affine::of).collect(),
                value: Expr::Read(0),
            }],
        }
    }

    /// The two reads multiplied, if this is a sum of products of two different reads: a contraction. A sum of
    /// squares, as local response normalisation takes, is none.
    pub fn contraction(&self) -> Option<(usize, usize)> {
        match (&self.combine, &self.body) {
            (Combine::Sum, Expr::Binary(Binary::Multiply, a, b)) => match (&**a, &**b) {
                (&Expr::Read(a), &Expr::Read(b)) if a != b => Some((a, b)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Expr {
    /// `op(self)`.
    pub fn unary(self, op: Unary) -> Expr {
        Expr::Unary(op, Box::new(self))
    }

    /// `op(self, other)`.
    pub fn binary(self, op: Binary, other: Expr) -> Expr {
        Expr::Binary(op, Box::new(self), Box::new(other))
    }

    /// `if self != 0 { then } else { otherwise }`.
    pub fn select(self, then: Expr, otherwise: Expr) -> Expr {
        Expr::Select(Box::new(self), Box::new(then), Box::new(otherwise))
    }

    /// Calls `visit` on this expression and every part of it.
    pub fn walk(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Unary(_, a) => a.walk(visit),
            Expr::Binary(_, a, b) => [a, b].into_iter().for_each(|e| e.walk(visit)),
            Expr::Select(a, b, c) => [a, b, c].into_iter().for_each(|e| e.walk(visit)),
            _ => {}
        }
    }

    /// This expression with every leaf (an expression without parts) replaced by `replace(leaf)`.
    pub fn map_leaves(&self, replace: &mut impl FnMut(&Expr) -> Expr) -> Expr {
        match self {
            Expr::Unary(op, a) => a.map_leaves(replace).unary(*op),
            Expr::Binary(op, a, b) => {
                let a = a.map_leaves(replace);
                a.binary(*op, b.map_leaves(replace))
            }
            Expr::Select(a, b, c) => {
                let (a, b) = (a.map_leaves(replace), b.map_leaves(replace));
                a.select(b, c.map_leaves(replace))
            }
            leaf => replace(leaf),
        }
    }
}

impl std::ops::Add for Expr {
    type Output = Expr;
    fn add(self, other: Expr) -> Expr {
        self.binary(Binary::Add, other)
    }
}
impl std::ops::Sub for Expr {
    type Output = Expr;
    fn sub(self, other: Expr) -> Expr {
        self.binary(Binary::Subtract, other)
    }
}
impl std::ops::Mul for Expr {
    type Output = Expr;
    fn mul(self, other: Expr) -> Expr {
        self.binary(Binary::Multiply, other)
    }
}
impl std::ops::Div for Expr {
    type Output = Expr;
    fn div(self, other: Expr) -> Expr {
        self.binary(Binary::Divide, other)
    }
}

/// A uniform number in [0, 1), a pure function of its counters: the same on every device.
///
/// Two rounds of a 32-bit integer finaliser over the four words, all in wrapping 32-bit arithmetic so that
/// vector units and GPUs compute it alike; the top 24 bits become the fraction, exactly representable in f32.
pub fn uniform(seed: i64, step: i64, stream: u32, element: u32) -> f64 {
    let key = mix(mix(seed as u32 ^ mix((seed >> 32) as u32)) ^ mix(step as u32 ^ mix(stream ^ 0x9e37_79b9)));
    f64::from(mix(mix(element ^ key).wrapping_add(key)) >> 8) / f64::from(1u32 << 24)
}

/// A bijective 32-bit finaliser: xor-shift and multiply with the constants of Wellons' `lowbias32` search.
pub fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
