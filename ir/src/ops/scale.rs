//! The product with a constant.

use super::build::{elementwise, same_types};
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{Real, Type};

/// `y = scale(x) factor=0.5`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scale {
    /// The constant.
    pub factor: Real,
}

impl Operation for Scale {
    const MNEMONIC: &'static str = "scale";
    const EXAMPLE: &'static str = "x = input() shape=[N, 4]\ny = scale(x) factor=0.5\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Scale, OpError> {
        Ok(Scale {
            factor: attributes.real("factor", None)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("factor", Attribute::Real(self.factor.0))]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        same_types(operands)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        elementwise(1, result, Expr::Read(0) * Expr::Constant(self.factor.0))
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        vec![Some(context.add("grad", self.clone(), &[upstream]))]
    }
}
