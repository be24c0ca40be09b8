//! Local response normalisation across neighbouring channels.

use super::build::output;
use super::{LrnGrad, LrnScale};
use crate::node_id::NodeId;
use crate::nest::{Affine, Binary, Combine, Expr, Predicate, Index, Loop, Nest, Read, Source};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Real, Type};

/// `y = lrn(x) size=5 alpha=0.0001 beta=0.75 k=2.0`: `y = x / (k + α'·Σ x²)^β` over a window of `size` channels.
///
/// α' is α divided by the window's size, as Caffe, ONNX and PyTorch have it, or α itself with `divide=false`.
/// With `groups` windows stay inside a group of channels, as in the original on two GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lrn {
    /// Channels in a window: `size/2` before the normalised one, itself, and `(size − 1)/2` after it.
    pub size: usize,
    /// α.
    pub alpha: Real,
    /// β.
    pub beta: Real,
    /// k; positive.
    pub k: Real,
    /// Whether α is divided by the size.
    pub divide: bool,
    /// Groups of channels that windows do not cross.
    pub groups: usize,
}

impl Lrn {
    /// The attributes of the text; scale and gradient have the same ones.
    pub(super) fn parse_window(attributes: &mut Attributes) -> Result<Lrn, OpError> {
        let lrn = Lrn {
            size: attributes.int("size", Some(5), 1)?,
            alpha: attributes.real("alpha", Some(1e-4))?,
            beta: attributes.real("beta", Some(0.75))?,
            k: attributes.real("k", Some(1.0))?,
            divide: attributes.bool("divide", true)?,
            groups: attributes.int("groups", Some(1), 1)?,
        };
        for (name, value, fits) in [
            ("k", lrn.k, lrn.k.0 > 0.0),
            ("alpha", lrn.alpha, lrn.alpha.0 >= 0.0),
        ] {
            if !fits {
                let error = OpError::new(
                    format!("{name}={value}"),
                    "k > 0 and alpha >= 0",
                    "Use a larger value.",
                );
                return Err(error.attribute(name));
            }
        }
        Ok(lrn)
    }

    /// The attributes, without those that have their default value.
    pub(super) fn print_window(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![
            ("size", Attribute::Int(self.size as i64)),
            ("alpha", Attribute::Real(self.alpha.0)),
            ("beta", Attribute::Real(self.beta.0)),
            ("k", Attribute::Real(self.k.0)),
        ];
        if !self.divide {
            attributes.push(("divide", Attribute::Bool(false)));
        }
        if self.groups != 1 {
            attributes.push(("groups", Attribute::Int(self.groups as i64)));
        }
        attributes
    }

    /// α, divided by the size if so wanted.
    pub(super) fn effective_alpha(&self) -> f64 {
        if self.divide {
            self.alpha.0 / self.size as f64
        } else {
            self.alpha.0
        }
    }

    /// Checks that operands are equal f32 images whose channels the groups divide.
    pub(super) fn check(&self, operands: &[&Type], names: &[&str]) -> Result<Type, OpError> {
        expect_operands(operands, names)?;
        for (i, operand) in operands.iter().enumerate() {
            expect_operand(operands, i, DType::F32, 4)?;
            let channels = operand.shape[1].fixed().unwrap_or(0);
            if operand.shape != operands[0].shape || channels % self.groups != 0 {
                let found = format!("operand of type {operand} with groups={}", self.groups);
                let expected = "equal images whose channels the groups divide";
                return Err(OpError::new(found, expected, "Change groups or the operands.").operand(i));
            }
        }
        Ok(operands[0].clone())
    }

    /// A read at the point itself: loops n, g, c (within the group), y, x.
    pub(super) fn here(&self, operand: usize, channels: usize) -> Read {
        let channel = self.channel(channels);
        let index = [
            Affine::of(Loop(0)),
            channel,
            Affine::of(Loop(3)),
            Affine::of(Loop(4)),
        ];
        super::build::read(operand, index)
    }

    fn channel(&self, channels: usize) -> Affine {
        Affine::of(Loop(2)).plus_loop(Loop(1), (channels / self.groups) as i64)
    }

    /// A read at the window's element j (loop 5), which lies `before` channels back; 0 beyond the group.
    pub(super) fn neighbour(&self, operand: usize, channels: usize, before: usize) -> Read {
        let shift = |map: Affine| map.plus_loop(Loop(5), 1).plus_constant(-(before as i64));
        let index = [
            Affine::of(Loop(0)),
            shift(self.channel(channels)),
            Affine::of(Loop(3)),
            Affine::of(Loop(4)),
        ];
        let high = (channels / self.groups) as i64;
        Read {
            source: Source::Operand(operand),
            index: index.into_iter().map(Index::new).collect(),
            predicates: vec![Predicate {
                map: shift(Affine::of(Loop(2))),
                low: 0,
                high,
            }],
            padding_value: 0.0,
        }
    }

    /// A sum over the window, finished by `value`.
    pub(super) fn nest(&self, result: &Type, reads: Vec<Read>, body: Expr, value: Expr) -> Vec<Nest> {
        let extents = result.extents();
        let channels = extents[1];
        let index = [
            Affine::of(Loop(0)),
            self.channel(channels),
            Affine::of(Loop(3)),
            Affine::of(Loop(4)),
        ];
        vec![Nest {
            parallel: vec![
                extents[0],
                self.groups,
                channels / self.groups,
                extents[2],
                extents[3],
            ],
            reduction: vec![self.size],
            reads,
            combine: Combine::Sum,
            body,
            outputs: vec![output(result, index, value)],
        }]
    }

    /// `k + α'·Σ x²`, of the reduced sum.
    pub(super) fn scale(&self) -> Expr {
        Expr::Constant(self.k.0) + Expr::Constant(self.effective_alpha()) * Expr::Reduced
    }
}

impl Operation for Lrn {
    const MNEMONIC: &'static str = "lrn";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 8, 3, 3]
y = lrn(x) size=5 alpha=0.0001 beta=0.75 k=2.0 groups=2
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<Lrn, OpError> {
        Lrn::parse_window(attributes)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.print_window()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.check(operands, &["x"])
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let channels = operands[0].extents()[1];
        let reads = vec![self.neighbour(0, channels, self.size / 2), self.here(0, channels)];
        let power = self.scale().binary(Binary::Power, Expr::Constant(-self.beta.0));
        self.nest(
            result,
            reads,
            Expr::Read(0) * Expr::Read(0),
            Expr::Read(1) * power,
        )
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (x, upstream) = (context.operands[0], context.upstream);
        let scale = context.add("scale", LrnScale { window: self.clone() }, &[x]);
        vec![Some(context.add(
            "grad",
            LrnGrad { window: self.clone() },
            &[upstream, x, scale],
        ))]
    }
}
