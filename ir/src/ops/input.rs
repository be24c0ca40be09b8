//! A tensor that the caller passes for every run.

use crate::node_id::NodeId;
use crate::nest::Nest;
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Shape, Type};

/// `image = input() shape=[N, 3, 224, 224]`; `dtype=i64` for labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Input {
    /// Shape of the tensor.
    pub shape: Shape,
    /// Its element type, f32 unless written.
    pub dtype: DType,
}

impl Operation for Input {
    const MNEMONIC: &'static str = "input";
    const EXAMPLE: &'static str = "x = input() shape=[N, 3, 8, 8]\noutput y = x";

    fn parse(attributes: &mut Attributes) -> Result<Input, OpError> {
        let dtype = attributes.word("dtype", &["f32", "i64", "u8"])?;
        Ok(Input {
            shape: attributes.dims("shape")?,
            dtype: DType::from_name(dtype).expect("the words listed are element types"),
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("shape", Attribute::Dims(self.shape.clone()))];
        if self.dtype != DType::F32 {
            attributes.push(("dtype", Attribute::Word(self.dtype.name().into())));
        }
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &[])?;
        if self.shape.iter().skip(1).any(|d| *d == Dim::Batch) {
            let error = OpError::new(
                "N after the first dimension",
                "N first",
                "Move the batch to the front.",
            );
            return Err(error.attribute("shape"));
        }
        Ok(Type::new(self.dtype, self.shape.clone()))
    }

    fn semantics(&self, _: &[&Type], _: &Type) -> Vec<Nest> {
        vec![]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![]
    }
}
