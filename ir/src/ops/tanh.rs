//! The hyperbolic tangent.

use super::TanhGrad;
use super::build::{elementwise, same_types};
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest, Unary};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `y = tanh(x)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tanh;

impl Operation for Tanh {
    const MNEMONIC: &'static str = "tanh";
    const EXAMPLE: &'static str = "x = input() shape=[N, 4]\ny = tanh(x)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<Tanh, OpError> {
        Ok(Tanh)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(operands.len(), result, Expr::Read(0).unary(Unary::Tanh))
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (upstream, result) = (context.upstream, context.result);
        vec![Some(context.add("grad", TanhGrad, &[upstream, result]))]
    }
}
