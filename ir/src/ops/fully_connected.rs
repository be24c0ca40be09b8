//! A fully connected layer: the matrix product as networks write it.

use super::Matmul;
use crate::node_id::NodeId;
use crate::nest::Nest;
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = fully_connected(x, w)`: x `[N, in]`, w `[out, in]` as PyTorch lays it out, y `[N, out]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FullyConnected;

const PRODUCT: Matmul = Matmul {
    transpose_a: false,
    transpose_b: true,
};

impl Operation for FullyConnected {
    const MNEMONIC: &'static str = "fully_connected";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 4]
w = parameter() shape=[3, 4] init=normal std=0.1
y = fully_connected(x, w)
output y = y";

    fn parse(_: &mut Attributes) -> Result<FullyConnected, OpError> {
        Ok(FullyConnected)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x", "weight"])?;
        expect_operand(operands, 0, DType::F32, 2)?;
        expect_operand(operands, 1, DType::F32, 2)?;
        let (x, w) = (operands[0], operands[1]);
        if x.shape[1] != w.shape[1] {
            let found = format!("a weight of {w} for {x}");
            let expected = format!("f32[out, {}]", x.shape[1]);
            return Err(OpError::new(found, expected, "Change the weight's second dimension.").operand(1));
        }
        PRODUCT.infer_type(operands)
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        PRODUCT.semantics(operands, result)
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        PRODUCT.gradient(context)
    }
}
