//! The rectifier.

use super::ReluGrad;
use super::build::{elementwise, same_types};
use crate::node_id::NodeId;
use crate::nest::{Binary, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `y = relu(x)`: `max(x, 0)`; NaN stays NaN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relu;

impl Operation for Relu {
    const MNEMONIC: &'static str = "relu";
    const EXAMPLE: &'static str = "x = input() shape=[N, 4]\ny = relu(x)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<Relu, OpError> {
        Ok(Relu)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(
            operands.len(),
            result,
            Expr::Read(0).binary(Binary::Max, Expr::Constant(0.0)),
        )
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (upstream, result) = (context.upstream, context.result);
        vec![Some(context.add("grad", ReluGrad, &[upstream, result]))]
    }
}
