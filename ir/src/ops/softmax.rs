//! Probabilities of each row.

use super::build::{loops, map, read, row};
use super::{SoftmaxGrad, log_sum_exp};
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = softmax(x)`: x and y `[N, K]`, rows of y sum to 1: `exp(x − max) / Σ exp(x − max)`.
///
/// An element of −∞ has probability 0. A row with NaN or +∞, or of −∞ alone, is NaN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Softmax;

impl Operation for Softmax {
    const MNEMONIC: &'static str = "softmax";
    const EXAMPLE: &'static str = "x = input() shape=[N, 10]\ny = softmax(x)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<Softmax, OpError> {
        Ok(Softmax)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        Ok(operands[0].clone())
    }

    /// Intermediates: the maximum of each row, and the sum of exponentials relative to it.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let shifted = Expr::Read(0) - Expr::Read(1);
        let [maximum, sum] = log_sum_exp::shifted_rows(operands[0], 0, shifted.clone());
        let reads = vec![read(0, loops(0, 2)), row(0), row(1)];
        let value = map(result, reads, shifted.unary(Unary::Exp) / Expr::Read(2));
        vec![maximum, sum, value]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (upstream, result) = (context.upstream, context.result);
        vec![Some(context.add("grad", SoftmaxGrad, &[upstream, result]))]
    }
}
