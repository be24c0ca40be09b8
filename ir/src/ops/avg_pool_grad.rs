//! The gradient of average pooling: each element gathers from the windows that contain it.

use super::AvgPool;
use super::build::{ints, reduce};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Loop, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `dx = avg_pool_grad(dy) size=[H, W]` with the pooling's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AvgPoolGrad {
    /// The pooling's own attributes.
    pub window: AvgPool,
    /// Height and width of the pooled value: the stride leaves them open.
    pub size: [usize; 2],
}

impl Operation for AvgPoolGrad {
    const MNEMONIC: &'static str = "avg_pool_grad";
    const EXAMPLE: &'static str = "\
dy = input() shape=[N, 3, 4, 4]
dx = avg_pool_grad(dy) size=[7, 7] kernel=3 stride=2 pad=1
output dx = dx";

    fn parse(attributes: &mut Attributes) -> Result<AvgPoolGrad, OpError> {
        Ok(AvgPoolGrad {
            size: attributes.ints("size", None, 1)?,
            window: AvgPool::parse_window(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        [vec![("size", ints(&self.size))], self.window.print_window()].concat()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        self.window.pool.infer_gradient(operands[0], self.size)
    }

    /// The window in which element y has place ky begins at y − ky.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (pool, dy) = (&self.window.pool, operands[0].extents());
        let start = [0, 1].map(|axis| Affine::of(Loop(2 + axis)).plus_loop(Loop(4 + axis), -1));
        let count = self.window.count(self.size, [dy[2], dy[3]], start);
        let (reads, body) = (vec![pool.read_windows(0, 0.0)], Expr::Read(0) / count);
        vec![reduce(result, pool.kernel.to_vec(), reads, Combine::Sum, body)]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let upstream = context.upstream;
        vec![Some(context.add("grad", self.window.clone(), &[upstream]))]
    }
}
