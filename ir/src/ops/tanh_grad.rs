//! The gradient of the hyperbolic tangent, from its result.

use super::build::{elementwise, same_types};

use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `dx = tanh_grad(dy, y)`: `dy·(1 − y²)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TanhGrad;

impl Operation for TanhGrad {
    const MNEMONIC: &'static str = "tanh_grad";
    const EXAMPLE: &'static str =
        "dy = input() shape=[N, 4]\ny = input() shape=[N, 4]\ndx = tanh_grad(dy, y)\noutput dx = dx";

    fn parse(_: &mut Attributes) -> Result<TanhGrad, OpError> {
        Ok(TanhGrad)
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
            Expr::Read(0) * (Expr::Constant(1.0) - Expr::Read(1) * Expr::Read(1)),
        )
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (y, upstream) = (context.operands[1], context.upstream);
        vec![Some(context.add("grad", TanhGrad, &[upstream, y])), None]
    }
}
