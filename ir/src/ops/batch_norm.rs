//! Batch normalisation with given statistics.
//!
//! Inference passes the statistics of training; training passes [`super::ChannelMean`] and
//! [`super::ChannelVariance`] of the batch, and the gradient flows through those too.

use super::build::{loops, map, read};
use super::{Constant, Multiply, ReduceSum, Scale};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Real, Type};

/// `y = batch_norm(x, scale, shift, mean, variance) eps=0.00001`:
/// `y = scale·(x − mean)/√(variance + eps) + shift`; x is `[N, C, ...]`, the others are `[C]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchNorm {
    /// Added to the variance; positive.
    pub eps: Real,
}

/// The dimensions of an operand other than its channels.
pub(super) fn other_axes(x: &Type) -> Vec<usize> {
    (0..x.rank()).filter(|&axis| axis != 1).collect()
}

/// Checks that the first operand is f32 with channels, and each of the others one number a channel.
pub(super) fn check(operands: &[&Type], names: &[&str]) -> Result<(), OpError> {
    expect_operands(operands, names)?;
    let x = operands[0];
    expect_operand(operands, 0, DType::F32, x.rank().max(2))?;
    for (i, operand) in operands.iter().enumerate().skip(1) {
        let expected = Type::new(DType::F32, [x.shape[1]]);
        if **operand != expected {
            let found = format!("{} of type {operand} for {x}", names[i]);
            let expected = format!("{expected}, one number a channel");
            return Err(OpError::new(found, expected, "Change its shape.").operand(i));
        }
    }
    Ok(())
}

impl Operation for BatchNorm {
    const MNEMONIC: &'static str = "batch_norm";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 3, 4, 4]
scale = parameter() shape=[3] value=1
shift = parameter() shape=[3]
mean = channel_mean(x)
variance = channel_variance(x, mean)
y = batch_norm(x, scale, shift, mean, variance)
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<BatchNorm, OpError> {
        let eps = attributes.real("eps", Some(1e-5))?;
        if eps.0 <= 0.0 {
            let error = OpError::new(
                format!("eps={eps}"),
                "a positive number",
                "Use a small one, as 0.00001.",
            );
            return Err(error.attribute("eps"));
        }
        Ok(BatchNorm { eps })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        match self.eps {
            Real(1e-5) => vec![],
            Real(eps) => vec![("eps", Attribute::Real(eps))],
        }
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        check(operands, &["x", "scale", "shift", "mean", "variance"])?;
        Ok(operands[0].clone())
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let mut reads = vec![read(0, loops(0, result.rank()))];
        reads.extend((1..5).map(|i| read(i, [Affine::of(Loop(1))])));
        let deviation = (Expr::Read(4) + Expr::Constant(self.eps.0)).unary(Unary::Sqrt);
        let value = Expr::Read(1) / deviation * (Expr::Read(0) - Expr::Read(3)) + Expr::Read(2);
        vec![map(result, reads, value)]
    }

    /// With `r = 1/√(variance + eps)` and `x̂ = (x − mean)·r`: `dx = dy·scale·r`, `dscale = Σ dy·x̂`, `dshift = Σ dy`,
    /// `dmean = −Σ dx`, `dvariance = −½ Σ dx·x̂·r`. Each product with r is a normalisation with other operands.
    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let [x, scale, _, mean, variance] = context.operands[..] else {
            return vec![];
        };
        let (upstream, wanted) = (context.upstream, context.wanted.clone());
        let axes = other_axes(context.operand_type(0));
        let channels = context.operand_type(1).shape.clone();
        let number = |context: &mut GradientContext, suffix: &str, value: f64| {
            context.add(
                suffix,
                Constant {
                    shape: channels.clone(),
                    value: Real(value),
                },
                &[],
            )
        };
        let (zero, one) = (number(context, "zero", 0.0), number(context, "one", 1.0));
        let sum = |context: &mut GradientContext, suffix: &str, value| {
            context.add(suffix, ReduceSum { axes: axes.clone() }, &[value])
        };
        let negative = |context: &mut GradientContext, suffix: &str, factor, value| {
            context.add(suffix, Scale { factor: Real(factor) }, &[value])
        };
        let dx = context.add("grad", self.clone(), &[upstream, scale, zero, zero, variance]);
        let normal = context.add("normal", self.clone(), &[x, one, zero, mean, variance]);
        let for_scale = wanted[1].then(|| {
            let product = context.add("normal_dy", Multiply, &[upstream, normal]);
            sum(context, "grad_scale", product)
        });
        let for_shift = wanted[2].then(|| sum(context, "grad_shift", upstream));
        let for_mean = wanted[3].then(|| {
            let total = sum(context, "total", dx);
            negative(context, "grad_mean", -1.0, total)
        });
        let for_variance = wanted[4].then(|| {
            let again = context.add("normal_r", self.clone(), &[normal, one, zero, zero, variance]);
            let product = context.add("normal_dx", Multiply, &[dx, again]);
            let total = sum(context, "total", product);
            negative(context, "grad_variance", -0.5, total)
        });
        vec![Some(dx), for_scale, for_shift, for_mean, for_variance]
    }
}
