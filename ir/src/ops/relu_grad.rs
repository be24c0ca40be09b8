//! The gradient of the rectifier, from its result.

use super::build::{elementwise, same_types};

use crate::node_id::NodeId;
use crate::nest::{Binary, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `dx = relu_grad(dy, y)`: dy where the result y is positive, else 0 (at 0 the subgradient 0 is taken).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReluGrad;

impl Operation for ReluGrad {
    const MNEMONIC: &'static str = "relu_grad";
    const EXAMPLE: &'static str =
        "dy = input() shape=[N, 4]\ny = input() shape=[N, 4]\ndx = relu_grad(dy, y)\noutput dx = dx";

    fn parse(_: &mut Attributes) -> Result<ReluGrad, OpError> {
        Ok(ReluGrad)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy", "y"])?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(
            operands.len(),
            result,
            Expr::Read(1)
                .binary(Binary::Greater, Expr::Constant(0.0))
                .select(Expr::Read(0), Expr::Constant(0.0)),
        )
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (y, upstream) = (context.operands[1], context.upstream);
        vec![Some(context.add("grad", ReluGrad, &[upstream, y])), None]
    }
}
