//! A random mask, a pure function of seed, step, stream and element: it is recomputed, never stored.

use super::build::{map, read};
use crate::node_id::NodeId;
use crate::nest::{Affine, Binary, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Real, Shape, Type};

/// `m = random_mask(state) shape=[N, 4096] keep=0.5 value=2.0 stream=1`: `value` with probability `keep`, else 0.
///
/// The state is i64 `[2]`: seed and step. Masks of different streams are independent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RandomMask {
    /// Shape of the mask.
    pub shape: Shape,
    /// Probability of an element to be kept.
    pub keep: Real,
    /// The mask at kept elements.
    pub value: Real,
    /// Which random operation of the graph this is.
    pub stream: usize,
}

impl Operation for RandomMask {
    const MNEMONIC: &'static str = "random_mask";
    const EXAMPLE: &'static str = "\
state = input() shape=[2] dtype=i64
mask = random_mask(state) shape=[N, 8] keep=0.5 value=2.0 stream=1
output mask = mask";

    fn parse(attributes: &mut Attributes) -> Result<RandomMask, OpError> {
        Ok(RandomMask {
            shape: attributes.dims("shape")?,
            keep: attributes.real("keep", Some(0.5))?,
            value: attributes.real("value", Some(1.0))?,
            stream: attributes.int("stream", Some(0), 0)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("shape", Attribute::Dims(self.shape.clone())),
            ("keep", Attribute::Real(self.keep.0)),
            ("value", Attribute::Real(self.value.0)),
            ("stream", Attribute::Int(self.stream as i64)),
        ]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["state"])?;
        expect_operand(operands, 0, DType::I64, 1)?;
        if operands[0].shape[0] != Dim::Fixed(2) {
            let found = format!("a state of type {}", operands[0]);
            return Err(OpError::new(found, "i64[2], seed and step", "Pass the random state.").operand(0));
        }
        Ok(Type::new(DType::F32, self.shape.clone()))
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let mut element = Affine::default();
        let mut stride = 1;
        for (d, &extent) in result.extents().iter().enumerate().rev() {
            element = element.plus_loop(Loop(d), stride);
            stride *= extent as i64;
        }
        let uniform = Expr::Uniform {
            seed: 0,
            step: 1,
            stream: self.stream as u32,
            element,
        };
        let kept = Expr::Constant(self.keep.0).binary(Binary::Greater, uniform);
        let reads = [0, 1].map(|i| read(0, [Affine::constant(i)])).to_vec();
        vec![map(
            result,
            reads,
            kept.select(Expr::Constant(self.value.0), Expr::Constant(0.0)),
        )]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None]
    }
}
