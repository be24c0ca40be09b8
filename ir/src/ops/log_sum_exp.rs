//! The logarithm of the sum of exponentials of each row.

use super::Softmax;
use super::build::{loops, map, read, reduce, row};
use crate::node_id::NodeId;
use crate::nest::{Binary, Combine, Expr, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `l = log_sum_exp(x)`: x `[N, K]`, l `[N]`, computed without overflow: `max + log Σ exp(x − max)`.
///
/// An infinite maximum is the result; a NaN in a row makes its result NaN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogSumExp;

/// One number a row of `x`.
pub(super) fn row_type(x: &Type) -> Type {
    Type::new(DType::F32, [x.shape[0]])
}

/// The first two intermediates of a function of exponentials of the rows of operand `x`: the maximum of each row, and the
/// sum of `exp(shifted)`. `shifted` is read 0 (an element) relative to read 1 (its row's maximum).
///
/// Exponentials are of differences to the maximum, and a function of them is computed from the two numbers. Their sum, as
/// `max + log Σ`, would lose the logarithm: of 1e5 + 0.69 an f32 keeps 1e5.
pub(super) fn shifted_rows(x: &Type, operand: usize, shifted: Expr) -> [Nest; 2] {
    let columns = || vec![x.extents()[1]];
    let element = || read(operand, loops(0, 2));
    let maximum = reduce(&row_type(x), columns(), vec![element()], Combine::Max, Expr::Read(0));
    let sum = reduce(
        &row_type(x),
        columns(),
        vec![element(), row(0)],
        Combine::Sum,
        shifted.unary(Unary::Exp),
    );
    [maximum, sum]
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

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        Ok(Type::new(DType::F32, [operands[0].shape[0]]))
    }

    /// Intermediates: the maximum of each row, and the sum of exponentials relative to it.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        // Of an infinite maximum the difference to itself is not a number, but zero is meant.
        let is_maximum = Expr::Read(0).binary(Binary::Equal, Expr::Read(1));
        let shifted = is_maximum.select(Expr::Constant(0.0), Expr::Read(0) - Expr::Read(1));
        let [maximum, sum] = shifted_rows(operands[0], 0, shifted);
        let value = Expr::Read(0) + Expr::Read(1).unary(Unary::Log);
        vec![maximum, sum, map(result, vec![row(0), row(1)], value)]
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
