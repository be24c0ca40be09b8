//! The gradient of max pooling: each element gathers from the windows it won.

use super::build::reduce;
use super::window::Pool;
use crate::node_id::NodeId;
use crate::nest::{Affine, Binary, Combine, Expr, Nest};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Type};

/// `dx = max_pool_grad(dy, index) size=[H, W]` with the pooling's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaxPoolGrad {
    /// The windows.
    pub pool: Pool,
    /// Height and width of the pooled value: the stride leaves them open.
    pub size: [usize; 2],
}

impl Operation for MaxPoolGrad {
    const MNEMONIC: &'static str = "max_pool_grad";
    const EXAMPLE: &'static str = "\
dy = input() shape=[N, 3, 3, 3]
i = input() shape=[N, 3, 3, 3] dtype=u8
dx = max_pool_grad(dy, i) size=[7, 7] kernel=3 stride=2
output dx = dx";

    fn parse(attributes: &mut Attributes) -> Result<MaxPoolGrad, OpError> {
        Ok(MaxPoolGrad {
            size: attributes.ints("size", None, 1)?,
            pool: Pool::parse(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        [
            vec![("size", Attribute::ints(&self.size))],
            self.pool.attributes(),
        ]
        .concat()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy", "index"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        expect_operand(operands, 1, DType::U8, 4)?;
        self.pool.expect_small()?;
        let result = self.pool.infer_gradient(operands[0], self.size)?;
        if operands[1].shape != operands[0].shape {
            let found = format!("an index of type {}", operands[1]);
            return Err(OpError::new(
                found,
                format!("the shape of {}", operands[0]),
                "Pass its own index.",
            )
            .operand(1));
        }
        Ok(result)
    }

    fn semantics(&self, _: &[&Type], result: &Type) -> Vec<Nest> {
        let [ky, kx] = [4, 5].map(crate::nest::Loop);
        let place = Affine::default()
            .plus_loop(ky, self.pool.kernel[1] as i64)
            .plus_loop(kx, 1);
        let won = Expr::Read(1).binary(Binary::Equal, Expr::Index(place));
        // A window that does not exist has no winner.
        let reads = vec![self.pool.read_windows(0, 0.0), self.pool.read_windows(1, 255.0)];
        let body = won.select(Expr::Read(0), Expr::Constant(0.0));
        vec![reduce(
            result,
            self.pool.kernel.to_vec(),
            reads,
            Combine::Sum,
            body,
        )]
    }

    fn gradient(&self, _: &mut GradientContext) -> Vec<Option<NodeId>> {
        vec![None, None]
    }
}
