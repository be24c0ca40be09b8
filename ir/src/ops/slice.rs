//! A range of one dimension.

use super::Pad;
use super::build::{map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Real, Type};

/// `y = slice(x) axis=1 start=2 stop=5`: elements 2, 3 and 4 of dimension 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    /// The dimension.
    pub axis: usize,
    /// The first element kept.
    pub start: usize,
    /// The first element after those kept.
    pub stop: usize,
}

impl Operation for Slice {
    const MNEMONIC: &'static str = "slice";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 6]\ny = slice(x) axis=1 start=2 stop=5\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<Slice, OpError> {
        let (axis, start) = (
            attributes.int("axis", None, 0)?,
            attributes.int("start", Some(0), 0)?,
        );
        let stop = attributes.int("stop", None, 1)?;
        if start >= stop {
            let found = format!("start={start} with stop={stop}");
            return Err(
                OpError::new(found, "start below stop", "Keep at least one element.").attribute("start"),
            );
        }
        Ok(Slice { axis, start, stop })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("axis", Attribute::Int(self.axis as i64))];
        if self.start != 0 {
            attributes.push(("start", Attribute::Int(self.start as i64)));
        }
        attributes.push(("stop", Attribute::Int(self.stop as i64)));
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        let x = operands[0];
        let fits = x
            .shape
            .get(self.axis)
            .and_then(|d| d.fixed())
            .is_some_and(|extent| self.stop <= extent);
        if x.dtype != DType::F32 || !fits {
            let found = format!(
                "elements {} to {} of dimension {} of {x}",
                self.start,
                self.stop - 1,
                self.axis
            );
            let expected = "elements of a dimension of an f32 value whose extent is known";
            return Err(OpError::new(found, expected, "Change axis, start or stop.").operand(0));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = Dim::Fixed(self.stop - self.start);
        Ok(Type::new(DType::F32, shape))
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let shift = |d: usize| if d == self.axis { self.start as i64 } else { 0 };
        let index = (0..result.rank()).map(|d| Affine::of(Loop(d)).plus_constant(shift(d)));
        vec![map(result, vec![read(0, index)], Expr::Read(0))]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let x = context.operand_type(0);
        let extent = x.shape[self.axis]
            .fixed()
            .expect("the shape rule refuses symbolic extents along the axis");
        let (mut before, mut after) = (vec![0; x.rank()], vec![0; x.rank()]);
        (before[self.axis], after[self.axis]) = (self.start, extent - self.stop);
        let upstream = context.upstream;
        vec![Some(context.add(
            "grad",
            Pad {
                before,
                after,
                value: Real(0.0),
            },
            &[upstream],
        ))]
    }
}
