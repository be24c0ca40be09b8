//! A tensor that training changes: weights, biases, and the optimiser's state.

use crate::node_id::NodeId;
use crate::nest::Nest;
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Real, Shape, Type};

/// `conv1.weight = parameter() shape=[96, 3, 11, 11] init=normal std=0.01`, or `init=constant value=1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parameter {
    /// Shape; known, without the batch.
    pub shape: Shape,
    /// How it starts.
    pub init: Init,
}

/// The initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Init {
    /// Every element the same.
    Constant(Real),
    /// Independent draws from a normal distribution with mean 0 and this standard deviation.
    Normal(Real),
}

impl Operation for Parameter {
    const MNEMONIC: &'static str = "parameter";
    const EXAMPLE: &'static str = "w = parameter() shape=[4, 2] init=normal std=0.01\noutput y = w";

    fn parse(attributes: &mut Attributes) -> Result<Parameter, OpError> {
        let init = match attributes.word("init", &["constant", "normal"])? {
            "normal" => Init::Normal(attributes.real("std", None)?),
            _ => Init::Constant(attributes.real("value", Some(0.0))?),
        };
        Ok(Parameter {
            shape: attributes.dims("shape")?,
            init,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("shape", Attribute::Dims(self.shape.clone()))];
        match self.init {
            Init::Constant(Real(0.0)) => {}
            Init::Constant(Real(value)) => attributes.push(("value", Attribute::Real(value))),
            Init::Normal(Real(std)) => {
                attributes.extend([
                    ("init", Attribute::Word("normal".into())),
                    ("std", Attribute::Real(std)),
                ]);
            }
        }
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &[])?;
        if self.shape.contains(&Dim::Batch) {
            let error = OpError::new(
                "N in a parameter's shape",
                "numbers",
                "Parameters do not depend on the batch.",
            );
            return Err(error.attribute("shape"));
        }
        Ok(Type::new(DType::F32, self.shape.clone()))
    }

    fn semantics(&self, _: &[&Type], _: &Type) -> Vec<Nest> {
        vec![]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![]
    }
}
