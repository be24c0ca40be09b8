//! The elementwise product of two values.

use super::build::{elementwise, same_types};

use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `y = multiply(a, b)`: shapes are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Multiply;

impl Operation for Multiply {
    const MNEMONIC: &'static str = "multiply";
    const EXAMPLE: &'static str =
        "a = input() shape=[N, 4]\nb = input() shape=[N, 4]\ny = multiply(a, b)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<Multiply, OpError> {
        Ok(Multiply)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["a", "b"])?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(operands.len(), result, Expr::Read(0) * Expr::Read(1))
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (a, b, upstream) = (context.operands[0], context.operands[1], context.upstream);
        let for_a = context.wanted[0].then(|| context.add("grad_a", Multiply, &[upstream, b]));
        let for_b = context.wanted[1].then(|| context.add("grad_b", Multiply, &[upstream, a]));
        vec![for_a, for_b]
    }
}
