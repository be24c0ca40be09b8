//! A value surrounded by a constant.

use super::Slice;
use super::build::{ints, map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest, Read};
use crate::op::{Attribute, Attributes, MAX_EXTENT, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Real, Type};

/// `y = pad(x) before=[0, 0, 1, 1] after=[0, 0, 2, 2] value=0.0`: one number a dimension on either side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pad {
    /// Elements added before each dimension.
    pub before: Vec<usize>,
    /// Elements added after each dimension.
    pub after: Vec<usize>,
    /// Their value.
    pub value: Real,
}

impl Operation for Pad {
    const MNEMONIC: &'static str = "pad";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 3, 4, 4]\ny = pad(x) before=[0, 0, 1, 1] after=[0, 0, 2, 2]\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Pad, OpError> {
        Ok(Pad {
            before: attributes.list("before", 0)?,
            after: attributes.list("after", 0)?,
            value: attributes.real("value", Some(0.0))?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("before", ints(&self.before)), ("after", ints(&self.after))];
        if self.value != Real(0.0) {
            attributes.push(("value", Attribute::Real(self.value.0)));
        }
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        let x = operands[0];
        let error = |at: &str, found: String, expected: &str| {
            Err(OpError::new(found, expected, "Change before, after or the operand.").attribute(at))
        };
        if x.dtype != DType::F32 {
            let found = format!("operand of type {x}");
            return Err(OpError::new(found, "f32", "Pass a floating-point value.").operand(0));
        }
        for (name, numbers) in [("before", &self.before), ("after", &self.after)] {
            if numbers.len() != x.rank() {
                let expected = format!("{} numbers, one a dimension of {x}", x.rank());
                return error(name, format!("{name}={}", ints(numbers)), &expected);
            }
        }
        let mut shape = x.shape.clone();
        for (d, dim) in shape.iter_mut().enumerate() {
            let extent = match *dim {
                Dim::Fixed(n) => self.before[d]
                    .checked_add(self.after[d])
                    .and_then(|more| n.checked_add(more)),
                Dim::Batch if self.before[d] == 0 && self.after[d] == 0 => continue,
                Dim::Batch => {
                    let found = format!("padding of the batch by {} and {}", self.before[d], self.after[d]);
                    return error("before", found, "0 and 0 for the dimension N");
                }
            };
            *dim = match extent {
                Some(extent) if extent <= MAX_EXTENT => Dim::Fixed(extent),
                _ => {
                    let expected = format!("an extent up to {MAX_EXTENT}");
                    return error(
                        "after",
                        format!("dimension {d} padded beyond what can be addressed"),
                        &expected,
                    );
                }
            };
        }
        Ok(Type::new(DType::F32, shape))
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let index = (0..result.rank()).map(|d| Affine::of(Loop(d)).plus_constant(-(self.before[d] as i64)));
        let x = Read {
            padding_value: self.value.0,
            ..read(0, index)
        };
        vec![map(result, vec![x], Expr::Read(0))]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let shape = context.operand_type(0).shape.clone();
        let padded = (0..shape.len()).filter(|&d| self.before[d] + self.after[d] > 0);
        let inner = padded.fold(context.upstream, |inner, axis| {
            let extent = shape[axis]
                .fixed()
                .expect("the shape rule refuses to pad the batch");
            let start = self.before[axis];
            context.add(
                "grad",
                Slice {
                    axis,
                    start,
                    stop: start + extent,
                },
                &[inner],
            )
        });
        vec![Some(inner)]
    }
}
