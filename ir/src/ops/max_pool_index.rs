//! Which element of each pooling window wins: all that the gradient needs to know of the input.

use super::build::{loops, output};
use super::window::Pool;
use crate::node_id::NodeId;
use crate::nest::{Combine, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `i = max_pool_index(x) kernel=[3, 3] stride=[2, 2]`: the winner's place in its window, counted row-major.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaxPoolIndex {
    /// The windows.
    pub pool: Pool,
}

impl Operation for MaxPoolIndex {
    const MNEMONIC: &'static str = "max_pool_index";
    const EXAMPLE: &'static str =
        "x = input() shape=[N, 3, 7, 7]\ni = max_pool_index(x) kernel=3 stride=2\noutput i = i";

    fn parse(attributes: &mut Attributes) -> Result<MaxPoolIndex, OpError> {
        Ok(MaxPoolIndex {
            pool: Pool::parse(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.pool.attributes()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        self.pool.expect_small()?;
        self.pool.infer_type(operands, DType::U8)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        vec![Nest {
            parallel: result.extents(),
            reduction: self.pool.kernel.to_vec(),
            reads: vec![self.pool.read(0, f64::NEG_INFINITY)],
            combine: Combine::Max,
            body: Expr::Read(0),
            outputs: vec![output(result, loops(0, 4), Expr::ArgMax)],
        }]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None]
    }
}
