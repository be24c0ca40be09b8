//! Maximum over windows that may overlap.

use super::build::{loops, output};
use super::window::Pool;
use super::{MaxPoolGrad, MaxPoolIndex};
use crate::node_id::NodeId;
use crate::nest::{Combine, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `y = max_pool(x) kernel=[3, 3] stride=[2, 2]`: padding never wins; NaN wins, and the first of equals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaxPool {
    /// The windows.
    pub pool: Pool,
}

impl Operation for MaxPool {
    const MNEMONIC: &'static str = "max_pool";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 3, 7, 7]\ny = max_pool(x) kernel=3 stride=2\noutput y = y";

    fn parse(attributes: &mut Attributes) -> Result<MaxPool, OpError> {
        Ok(MaxPool {
            pool: Pool::parse(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.pool.attributes()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.pool.infer_type(operands, DType::F32)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        vec![Nest {
            parallel: result.extents(),
            reduction: self.pool.kernel.to_vec(),
            reads: vec![self.pool.read(0, f64::NEG_INFINITY)],
            combine: Combine::Max,
            body: Expr::Read(0),
            outputs: vec![output(result, loops(0, 4), Expr::Reduced)],
        }]
    }

    /// The gradient keeps each winner's place in its window in a byte.
    fn differentiable(&self) -> Result<(), OpError> {
        self.pool.expect_small()
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (x, upstream) = (context.operands[0], context.upstream);
        let size = [2, 3].map(|d| {
            context.operand_type(0).shape[d]
                .fixed()
                .expect("only the batch is symbolic")
        });
        let index = context.add(
            "index",
            MaxPoolIndex {
                pool: self.pool.clone(),
            },
            &[x],
        );
        let op = MaxPoolGrad {
            pool: self.pool.clone(),
            size,
        };
        vec![Some(context.add("grad", op, &[upstream, index]))]
    }
}
