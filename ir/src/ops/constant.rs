//! The same number everywhere: where a gradient begins.

use super::build::map;
use crate::node_id::NodeId;
use crate::nest::{Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Real, Shape, Type};

/// `one = constant() shape=[] value=1.0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Constant {
    /// The shape of the result.
    pub shape: Shape,
    /// Every element.
    pub value: Real,
}

impl Operation for Constant {
    const MNEMONIC: &'static str = "constant";
    const EXAMPLE: &'static str = "x = constant() shape=[2, 3] value=0.5\noutput x = x";

    fn parse(attributes: &mut Attributes) -> Result<Constant, OpError> {
        Ok(Constant {
            shape: attributes.dims("shape")?,
            value: attributes.real("value", None)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("shape", Attribute::Dims(self.shape.clone())),
            ("value", Attribute::Real(self.value.0)),
        ]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &[])?;
        Ok(Type::new(DType::F32, self.shape.clone()))
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        vec![map(result, vec![], Expr::Constant(self.value.0))]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![]
    }
}
