//! The mean cross-entropy of softmax probabilities and class labels.

use super::build::{loops, map, read, reduce, row};
use super::{SoftmaxCrossEntropyGrad, log_sum_exp};
use crate::node_id::NodeId;
use crate::nest::{Affine, Binary, Combine, Expr, Loop, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `loss = softmax_cross_entropy(x, labels)`: x `[N, K]`, labels i64 `[N]`; the mean over the batch, a scalar.
///
/// A sample's loss is `log Σ exp(x − max) − (x[label] − max)`, `max` over its row. A logit of −∞ has probability 0. A row
/// with NaN or +∞, or of −∞ alone, makes the loss NaN.
///
/// A label outside `0..K` matches no class: its sample's loss is the logarithm of the sum alone. The runtime rejects such
/// labels before they get here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SoftmaxCrossEntropy;

/// Checks logits and labels.
pub(super) fn check(x: &Type, labels: &Type, at: usize) -> Result<(), OpError> {
    if labels.shape[0] == x.shape[0] {
        return Ok(());
    }
    let found = format!("labels of type {labels} for {x}");
    Err(OpError::new(found, "one label a row", "Change the labels' shape.").operand(at))
}

/// 1 where column loop 1 is the row's label, which is read number `labels`.
pub(super) fn is_label(labels: usize) -> Expr {
    Expr::Read(labels).binary(Binary::Equal, Expr::Index(Affine::of(Loop(1))))
}

impl Operation for SoftmaxCrossEntropy {
    const MNEMONIC: &'static str = "softmax_cross_entropy";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 10]
labels = input() shape=[N] dtype=i64
loss = softmax_cross_entropy(x, labels)
output loss = loss";

    fn parse(_: &mut Attributes) -> Result<SoftmaxCrossEntropy, OpError> {
        Ok(SoftmaxCrossEntropy)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x", "labels"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        expect_operand(operands, 1, DType::I64, 1)?;
        check(operands[0], operands[1], 1)?;
        Ok(Type::new(DType::F32, []))
    }

    /// Intermediates: of each row the maximum, the sum of exponentials relative to it, and the logit of its label relative
    /// to it.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (rows, columns) = (operands[0].extents()[0], operands[0].extents()[1]);
        let shifted = Expr::Read(0) - Expr::Read(1);
        let [maximum, sum] = log_sum_exp::shifted_rows(operands[0], 0, shifted.clone());
        let reads = vec![read(0, loops(0, 2)), row(0), read(1, [Affine::of(Loop(0))])];
        let picked = is_label(2).select(shifted, Expr::Constant(0.0));
        let row_type = log_sum_exp::row_type(operands[0]);
        let logit = reduce(&row_type, vec![columns], reads, Combine::Sum, picked);
        let mut mean = map(
            result,
            vec![row(1), row(2)],
            Expr::Reduced * Expr::Constant(1.0 / rows as f64),
        );
        mean.reduction = vec![rows];
        mean.combine = Combine::Sum;
        mean.body = Expr::Read(0).unary(Unary::Log) - Expr::Read(1);
        vec![maximum, sum, logit, mean]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let operands = [context.upstream, context.operands[0], context.operands[1]];
        vec![
            Some(context.add("grad", SoftmaxCrossEntropyGrad, &operands)),
            None,
        ]
    }
}
