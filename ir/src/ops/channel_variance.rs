//! The variance of each channel over batch and image: a statistic of batch normalisation.

use super::batch_norm::{check, other_axes};
use super::build::read;
use super::{Bias, ChannelMeanGrad, Multiply, ReduceSum, Scale, channel_mean};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Real, Type};

/// `v = channel_variance(x, mean)`: the mean of `(x − mean)²` of each channel, without Bessel's correction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelVariance;

impl Operation for ChannelVariance {
    const MNEMONIC: &'static str = "channel_variance";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 3, 4, 4]
m = channel_mean(x)
v = channel_variance(x, m)
output v = v";

    fn parse(_: &mut Attributes) -> Result<ChannelVariance, OpError> {
        Ok(ChannelVariance)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        check(operands, &["x", "mean"])?;
        Ok(Type::new(DType::F32, [operands[0].shape[1]]))
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let difference = || Expr::Read(0) - Expr::Read(1);
        let reads = vec![read(1, [Affine::of(Loop(0))])];
        vec![channel_mean::mean(
            operands[0],
            result,
            reads,
            difference() * difference(),
        )]
    }

    /// `dx = 2·(x − mean)·dv/count`, `dmean = −Σ dx`.
    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (x, mean, upstream) = (context.operands[0], context.operands[1], context.upstream);
        let axes = other_axes(context.operand_type(0));
        let shape = context.operand_type(0).shape.clone();
        let negative = context.add("negative_mean", Scale { factor: Real(-1.0) }, &[mean]);
        let centred = context.add("centred", Bias, &[x, negative]);
        let share = context.add("share", ChannelMeanGrad { shape }, &[upstream]);
        let half = context.add("half", Multiply, &[centred, share]);
        let dx = context.add("grad", Scale { factor: Real(2.0) }, &[half]);
        let for_mean = context.wanted[1].then(|| {
            let total = context.add("total", ReduceSum { axes }, &[dx]);
            context.add("grad_mean", Scale { factor: Real(-1.0) }, &[total])
        });
        vec![Some(dx), for_mean]
    }
}
