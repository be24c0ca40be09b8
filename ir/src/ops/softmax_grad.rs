//! The gradient of softmax, from its result.

use super::build::{loops, map, read, reduce, row, same_types};
use crate::node_id::NodeId;
use crate::nest::{Combine, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `dx = softmax_grad(dy, y)`: `y·(dy − Σ dy·y)`, the sum over a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SoftmaxGrad;

impl Operation for SoftmaxGrad {
    const MNEMONIC: &'static str = "softmax_grad";
    const EXAMPLE: &'static str = "\
dy = input() shape=[N, 10]
y = input() shape=[N, 10]
dx = softmax_grad(dy, y)
output dx = dx";

    fn parse(_: &mut Attributes) -> Result<SoftmaxGrad, OpError> {
        Ok(SoftmaxGrad)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy", "y"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let both = || vec![read(0, loops(0, 2)), read(1, loops(0, 2))];
        let rows = Type::new(DType::F32, [operands[0].shape[0]]);
        let columns = vec![operands[0].extents()[1]];
        let sum = reduce(
            &rows,
            columns,
            both(),
            Combine::Sum,
            Expr::Read(0) * Expr::Read(1),
        );
        let reads = [both(), vec![row(0)]].concat();
        vec![
            sum,
            map(result, reads, Expr::Read(1) * (Expr::Read(0) - Expr::Read(2))),
        ]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None, None]
    }
}
