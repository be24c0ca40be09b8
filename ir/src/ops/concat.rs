//! Values joined along a dimension.

use super::Slice;
use super::build::{map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Type};

/// `y = concat(a, b, c) axis=1`: one value or more, equal but for their extents along the axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Concat {
    /// The dimension along which values follow each other.
    pub axis: usize,
}

impl Operation for Concat {
    const MNEMONIC: &'static str = "concat";
    const EXAMPLE: &'static str = "\
a = input() shape=[N, 3, 2, 2]
b = input() shape=[N, 1, 2, 2]
y = concat(a, b) axis=1
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<Concat, OpError> {
        Ok(Concat {
            axis: attributes.int("axis", None, 0)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![("axis", Attribute::Int(self.axis as i64))]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        let Some(first) = operands.first() else {
            return Err(OpError::new(
                "no operands",
                "one value or more",
                "Pass the values to join.",
            ));
        };
        if self.axis >= first.rank() {
            let (found, expected) = (
                format!("axis={} of {first}", self.axis),
                "one of its dimensions, from 0 up",
            );
            return Err(OpError::new(found, expected, "Name an existing dimension.").attribute("axis"));
        }
        let mut total: usize = 0;
        for (i, ty) in operands.iter().enumerate() {
            let rest = |ty: &Type| {
                let mut shape = ty.shape.clone();
                shape
                    .iter_mut()
                    .skip(self.axis)
                    .take(1)
                    .for_each(|d| *d = Dim::Fixed(0));
                shape
            };
            let extent = ty.shape.get(self.axis).and_then(|d| d.fixed());
            match extent {
                Some(extent) if ty.dtype == DType::F32 && rest(ty) == rest(first) => total += extent,
                _ => {
                    let expected = format!(
                        "an f32 value that is {first} but for a known extent along axis {}",
                        self.axis
                    );
                    let remedy = "Make the other dimensions equal; the batch cannot be joined.";
                    return Err(OpError::new(format!("operand of type {ty}"), expected, remedy).operand(i));
                }
            }
        }
        let mut shape = first.shape.clone();
        shape[self.axis] = Dim::Fixed(total);
        Ok(Type::new(DType::F32, shape))
    }

    /// Every operand is read where it lies in the result; elsewhere it is outside.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let mut start = 0;
        let mut reads = vec![];
        for (i, operand) in operands.iter().enumerate() {
            let shift = |d: usize| if d == self.axis { -start } else { 0 };
            reads.push(read(
                i,
                (0..result.rank()).map(|d| Affine::of(Loop(d)).plus_constant(shift(d))),
            ));
            start += operand.extents()[self.axis] as i64;
        }
        let last = reads.len() - 1;
        let value = (0..last).rev().fold(Expr::Read(last), |rest, i| {
            Expr::InBounds(i).select(Expr::Read(i), rest)
        });
        vec![map(result, reads, value)]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        let mut start = 0;
        (0..context.operands.len())
            .map(|i| {
                let extent = context.operand_type(i).shape[self.axis].fixed();
                let stop = start + extent.expect("the shape rule refuses symbolic extents along the axis");
                let part = Slice {
                    axis: self.axis,
                    start,
                    stop,
                };
                start = stop;
                context.wanted[i].then(|| context.add("grad", part, &[upstream]))
            })
            .collect()
    }
}
