//! The gradient of the channels' means: an even share for each element.
//!
//! An operation of its own because the share depends on the batch, which is symbolic when gradients are made.

use super::ChannelMean;
use super::build::{map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Shape, Type};

/// `dx = channel_mean_grad(dm) shape=[N, 3, 4, 4]`: dm `[C]` divided by the elements of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelMeanGrad {
    /// The shape of the result.
    pub shape: Shape,
}

impl Operation for ChannelMeanGrad {
    const MNEMONIC: &'static str = "channel_mean_grad";
    const EXAMPLE: &'static str =
        "dm = input() shape=[3]\ndx = channel_mean_grad(dm) shape=[N, 3, 4, 4]\noutput dx = dx";

    fn parse(attributes: &mut Attributes) -> Result<ChannelMeanGrad, OpError> {
        Ok(ChannelMeanGrad {
            shape: attributes.dims("shape")?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("shape", Attribute::Dims(self.shape.clone()))]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dm"])?;
        let result = Type::new(DType::F32, self.shape.clone());
        let forward = ChannelMean.infer_type(&[&result])?;
        if *operands[0] != forward {
            let found = format!("an upstream gradient of type {}", operands[0]);
            let expected = format!("{forward}, one number a channel of {result}");
            return Err(OpError::new(found, expected, "Change shape or the operand.").operand(0));
        }
        Ok(result)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let extents = result.extents();
        let count = (result.elements() / extents[1]) as f64;
        let share = Expr::Read(0) * Expr::Constant(1.0 / count);
        vec![map(result, vec![read(0, [Affine::of(Loop(1))])], share)]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        vec![Some(context.add("grad", ChannelMean, &[upstream]))]
    }
}
