//! The mean of each channel over batch and image: a statistic of batch normalisation.

use super::ChannelMeanGrad;
use super::batch_norm::{check, other_axes};
use super::build::{output, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Loop, Nest, Read};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `m = channel_mean(x)`: x `[N, C, ...]`, m `[C]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelMean;

/// A mean over all dimensions of x but its channels: loop 0 is the channel, the others follow. `body` is over
/// a read of x and then the given reads.
pub(super) fn mean(x: &Type, result: &Type, reads: Vec<Read>, body: Expr) -> Nest {
    let (extents, axes) = (x.extents(), other_axes(x));
    let place = |d: usize| match axes.iter().position(|&axis| axis == d) {
        Some(i) => Affine::of(Loop(1 + i)),
        None => Affine::of(Loop(0)),
    };
    let reduction: Vec<usize> = axes.iter().map(|&axis| extents[axis]).collect();
    let count = reduction.iter().product::<usize>() as f64;
    let value = Expr::Reduced * Expr::Constant(1.0 / count);
    Nest {
        parallel: vec![extents[1]],
        reduction,
        reads: [vec![read(0, (0..x.rank()).map(place))], reads].concat(),
        combine: Combine::Sum,
        body,
        outputs: vec![output(result, [Affine::of(Loop(0))], value)],
    }
}

impl Operation for ChannelMean {
    const MNEMONIC: &'static str = "channel_mean";
    const EXAMPLE: &'static str = "x = input() shape=[N, 3, 4, 4]\nm = channel_mean(x)\noutput m = m";

    fn parse(_: &mut Attributes) -> Result<ChannelMean, OpError> {
        Ok(ChannelMean)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        check(operands, &["x"])?;
        Ok(Type::new(DType::F32, [operands[0].shape[1]]))
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        vec![mean(operands[0], result, vec![], Expr::Read(0))]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (shape, upstream) = (context.operand_type(0).shape.clone(), context.upstream);
        vec![Some(context.add("grad", ChannelMeanGrad { shape }, &[upstream]))]
    }
}
