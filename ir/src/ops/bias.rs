//! Adds a number a channel.

use super::ReduceSum;
use super::build::{loops, map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = bias(x, b)`: b `[C]` is added along axis 1 of x, which has two or more dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bias;

impl Operation for Bias {
    const MNEMONIC: &'static str = "bias";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 3, 2, 2]
b = parameter() shape=[3] value=1.0
y = bias(x, b)
output y = y";

    fn parse(_: &mut Attributes) -> Result<Bias, OpError> {
        Ok(Bias)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x", "bias"])?;
        let x = operands[0];
        expect_operand(operands, 0, DType::F32, x.rank().max(2))?;
        expect_operand(operands, 1, DType::F32, 1)?;
        if operands[1].shape[0] != x.shape[1] {
            let found = format!("a bias of {} for {x}", operands[1]);
            let expected = format!("f32[{}], one number a channel", x.shape[1]);
            return Err(OpError::new(found, expected, "Change the bias's shape.").operand(1));
        }
        Ok(x.clone())
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let reads = vec![read(0, loops(0, result.rank())), read(1, [Affine::of(Loop(1))])];
        vec![map(result, reads, Expr::Read(0) + Expr::Read(1))]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let axes = (0..context.operand_type(0).rank())
            .filter(|&axis| axis != 1)
            .collect();
        let upstream = context.upstream;
        let for_bias = context.wanted[1].then(|| context.add("grad_bias", ReduceSum { axes }, &[upstream]));
        vec![Some(upstream), for_bias]
    }
}
