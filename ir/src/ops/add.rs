//! The sum of two values.

use super::build::{elementwise, same_types};

use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::Type;

/// `y = add(a, b)`: shapes are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Add;

impl Operation for Add {
    const MNEMONIC: &'static str = "add";
    const EXAMPLE: &'static str =
        "a = input() shape=[N, 4]\nb = input() shape=[N, 4]\ny = add(a, b)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<Add, OpError> {
        Ok(Add)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["a", "b"])?;
        same_types(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(operands.len(), result, Expr::Read(0) + Expr::Read(1))
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![Some(context.upstream), Some(context.upstream)]
    }
}
