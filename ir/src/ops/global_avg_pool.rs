//! The mean of each channel of each image.

use super::build::{loops, output, read};
use super::{Broadcast, Reshape, Scale};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Real, Type};

/// `y = global_avg_pool(x)`: x `[N, C, H, W]`, y `[N, C, 1, 1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlobalAvgPool;

impl Operation for GlobalAvgPool {
    const MNEMONIC: &'static str = "global_avg_pool";
    const EXAMPLE: &'static str = "x = input() shape=[N, 3, 4, 5]\ny = global_avg_pool(x)\noutput y = y";

    fn parse(_: &mut Attributes) -> Result<GlobalAvgPool, OpError> {
        Ok(GlobalAvgPool)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![]
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        let x = &operands[0].shape;
        if x[2..].contains(&Dim::Batch) {
            let found = format!("operand of type {}", operands[0]);
            let error = OpError::new(found, "a known height and width", "Use numbers in place of N.");
            return Err(error.operand(0));
        }
        Ok(Type::new(DType::F32, [x[0], x[1], Dim::Fixed(1), Dim::Fixed(1)]))
    }

    /// Parallel loops n, c; reduction loops y, x.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let x = operands[0].extents();
        let mean = Expr::Reduced * Expr::Constant(1.0 / (x[2] * x[3]) as f64);
        let index = loops(0, 2).chain([Affine::constant(0), Affine::constant(0)]);
        vec![Nest {
            parallel: x[..2].to_vec(),
            reduction: x[2..].to_vec(),
            reads: vec![read(0, loops(0, 4))],
            combine: Combine::Sum,
            body: Expr::Read(0),
            outputs: vec![output(result, index, mean)],
        }]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let shape = context.operand_type(0).shape.clone();
        let area: usize = shape[2..].iter().filter_map(|d| d.fixed()).product();
        let factor = Real(1.0 / area as f64);
        let upstream = context.upstream;
        let flat = context.add(
            "flat",
            Reshape {
                shape: shape[..2].to_vec(),
            },
            &[upstream],
        );
        let share = context.add("share", Scale { factor }, &[flat]);
        vec![Some(context.add(
            "grad",
            Broadcast {
                shape,
                axes: vec![2, 3],
            },
            &[share],
        ))]
    }
}
