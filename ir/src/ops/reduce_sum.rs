//! The sum over some dimensions, which disappear.

use super::Broadcast;
use super::build::{ints, read, reduce};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Type};

/// `y = reduce_sum(x) axes=[0, 2, 3]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReduceSum {
    /// The summed dimensions, ascending.
    pub axes: Vec<usize>,
}

impl Operation for ReduceSum {
    const MNEMONIC: &'static str = "reduce_sum";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 3, 2, 2]\ny = reduce_sum(x) axes=[0, 2, 3]\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<ReduceSum, OpError> {
        let mut axes = attributes.list("axes", 0)?;
        axes.sort_unstable();
        axes.dedup();
        Ok(ReduceSum { axes })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axes", ints(&self.axes))]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        let x = operands[0];
        if x.dtype != DType::F32 || self.axes.iter().any(|&axis| axis >= x.rank()) {
            let found = format!("axes={} of {x}", ints(&self.axes));
            let expected = format!("dimensions of an f32 value, below {}", x.rank());
            return Err(OpError::new(found, expected, "Name existing dimensions.").attribute("axes"));
        }
        let kept: Vec<Dim> = (0..x.rank())
            .filter(|d| !self.axes.contains(d))
            .map(|d| x.shape[d])
            .collect();
        Ok(Type::new(DType::F32, kept))
    }

    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let x = operands[0].extents();
        let (mut kept, mut summed) = (0, result.rank());
        let index: Vec<Affine> = (0..x.len())
            .map(|d| {
                let next = if self.axes.contains(&d) {
                    &mut summed
                } else {
                    &mut kept
                };
                *next += 1;
                Affine::of(Loop(*next - 1))
            })
            .collect();
        let reduction = self.axes.iter().map(|&axis| x[axis]).collect();
        vec![reduce(
            result,
            reduction,
            vec![read(0, index)],
            Combine::Sum,
            Expr::Read(0),
        )]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (shape, upstream) = (context.operand_type(0).shape.clone(), context.upstream);
        let op = Broadcast {
            shape,
            axes: self.axes.clone(),
        };
        vec![Some(context.add("grad", op, &[upstream]))]
    }
}
