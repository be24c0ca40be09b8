//! The logarithm of the sum of exponentials of each row.

use super::Softmax;
use super::build::{loops, read, reduce};
use crate::graph::NodeId;
use crate::nest::{Combine, Expr, Nest};
use crate::op::{
    Attribute, Attributes, GradientContext, OpError, Operation, expect_operand, expect_operands,
};
use crate::types::{DType, Type};

/// `l = log_sum_exp(x)`: x `[N, K]`, l `[N]`, computed without overflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogSumExp;

/// The nest of the row-wise logarithm of the sum of exponentials of operand `x`.
pub(super) fn rows(x: &Type, operand: usize) -> Nest {
    let result = Type::new(DType::F32, [x.shape[0]]);
    reduce(
        &result,
        vec![x.extents()[1]],
        vec![read(operand, loops(0, 2))],
        Combine::LogSumExp,
        Expr::Read(0),
    )
}

impl Operation for LogSumExp {
    const MNEMONIC: &'static str = "log_sum_exp";
    const EXAMPLE: &'static str = "x = input() shape=[N, 10]\nl = log_sum_exp(x)\noutput l = l";

    fn parse(_: &mut Attributes) -> Result<LogSumExp, OpError> {
        Ok(LogSumExp)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        Ok(Type::new(DType::F32, [operands[0].shape[0]]))
    }

    fn meaning(&self, operands: &[&Type], _: &Type) -> Vec<Nest> {
        vec![rows(operands[0], 0)]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (x, upstream, shape) = (
            context.operands[0],
            context.upstream,
            context.operand_type(0).shape.clone(),
        );
        let probability = context.add("softmax", Softmax, &[x]);
        let spread = context.add("spread", super::Broadcast { shape, axes: vec![1] }, &[upstream]);
        vec![Some(context.add("grad", super::Multiply, &[spread, probability]))]
    }
}
