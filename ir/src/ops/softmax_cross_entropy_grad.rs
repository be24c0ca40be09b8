//! The gradient of the mean cross-entropy with respect to the logits.

use super::build::{loops, map, read, row};
use super::log_sum_exp;
use super::softmax_cross_entropy::{check, is_label};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `dx = softmax_cross_entropy_grad(dloss, x, labels)`: `(softmax(x) − onehot(labels))·dloss/N`, the softmax from
/// `x − max` as in [`super::Softmax`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SoftmaxCrossEntropyGrad;

impl Operation for SoftmaxCrossEntropyGrad {
    const MNEMONIC: &'static str = "softmax_cross_entropy_grad";
    const EXAMPLE: &'static str = "\
dloss = input() shape=[]
x = input() shape=[N, 10]
labels = input() shape=[N] dtype=i64
dx = softmax_cross_entropy_grad(dloss, x, labels)
output dx = dx";

    fn parse(_: &mut Attributes) -> Result<SoftmaxCrossEntropyGrad, OpError> {
        Ok(SoftmaxCrossEntropyGrad)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dloss", "x", "labels"])?;
        expect_operand(operands, 0, DType::F32, 0)?;
        expect_operand(operands, 1, DType::F32, 2)?;
        expect_operand(operands, 2, DType::I64, 1)?;
        check(operands[1], operands[2], 2)?;
        Ok(operands[1].clone())
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let shifted = Expr::Read(0) - Expr::Read(1);
        let [maximum, sum] = log_sum_exp::shifted_rows(operands[1], 1, shifted.clone());
        let probability = shifted.unary(Unary::Exp) / Expr::Read(2);
        let target = is_label(3).select(Expr::Constant(1.0), Expr::Constant(0.0));
        let factor = Expr::Read(4) * Expr::Constant(1.0 / operands[1].extents()[0] as f64);
        let reads = vec![
            read(1, loops(0, 2)),
            row(0),
            row(1),
            read(2, [Affine::of(Loop(0))]),
            read(0, []),
        ];
        vec![maximum, sum, map(result, reads, (probability - target) * factor)]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None, None, None]
    }
}
