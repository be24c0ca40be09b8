//! Repeats a value along new dimensions; the gradient of a sum.

use super::ReduceSum;
use super::build::{ints, map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Shape, Type};

/// `y = broadcast(x) shape=[N, 3, 2, 2] axes=[0, 2, 3]`: the axes are new, the others are x's in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Broadcast {
    /// The shape of the result.
    pub shape: Shape,
    /// Its dimensions that x lacks, ascending.
    pub axes: Vec<usize>,
}

impl Broadcast {
    fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.shape.len()).filter(|d| !self.axes.contains(d))
    }
}

impl Operation for Broadcast {
    const MNEMONIC: &'static str = "broadcast";
    const EXAMPLE: &'static str =
        "x = input() shape=[3]\ny = broadcast(x) shape=[2, 3, 4] axes=[0, 2]\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Broadcast, OpError> {
        let mut axes = attributes.list("axes", 0)?;
        axes.sort_unstable();
        axes.dedup();
        Ok(Broadcast {
            shape: attributes.dims("shape")?,
            axes,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("shape", Attribute::Dims(self.shape.clone())),
            ("axes", ints(&self.axes)),
        ]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        let kept: Vec<Dim> = self.kept().map(|d| self.shape[d]).collect();
        if operands[0].dtype != DType::F32 || operands[0].shape != kept {
            let found = format!("operand of type {}", operands[0]);
            let expected = format!("{}, the shape without the new axes", Type::new(DType::F32, kept));
            return Err(OpError::new(found, expected, "Change shape or axes.").operand(0));
        }
        Ok(Type::new(DType::F32, self.shape.clone()))
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        vec![map(
            result,
            vec![read(0, self.kept().map(|d| Affine::of(Loop(d))))],
            Expr::Read(0),
        )]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        vec![Some(context.add(
            "grad",
            ReduceSum {
                axes: self.axes.clone(),
            },
            &[upstream],
        ))]
    }
}
