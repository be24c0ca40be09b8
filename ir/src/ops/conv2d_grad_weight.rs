//! The gradient of a convolution with respect to its weight.

use super::{Conv2d, Conv2dGradInput};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Read, Source};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Type};

/// `dw = conv2d_grad_weight(dy, x) kernel=[KH, KW]` with the convolution's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv2dGradWeight {
    /// The convolution's own attributes.
    pub window: Conv2d,
    /// Height and width of the kernel: the stride leaves them open.
    pub kernel: [usize; 2],
}

impl Operation for Conv2dGradWeight {
    const MNEMONIC: &'static str = "conv2d_grad_weight";
    const EXAMPLE: &'static str = "\
dy = input() shape=[N, 6, 4, 4]
x = input() shape=[N, 4, 7, 7]
dw = conv2d_grad_weight(dy, x) kernel=[3, 3] stride=[2, 2] pad=[1, 1, 1, 1] groups=2
output dw = dw";

    fn parse(attributes: &mut Attributes) -> Result<Conv2dGradWeight, OpError> {
        Ok(Conv2dGradWeight {
            kernel: attributes.ints("kernel", None, 1)?,
            window: Conv2d::parse_window(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("kernel", Attribute::ints(&self.kernel))];
        attributes.extend(self.window.print_window());
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy", "x"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        expect_operand(operands, 1, DType::F32, 4)?;
        let (dy, x) = (operands[0], operands[1]);
        let per_group = x.shape[1].fixed().map(|c| c / self.window.groups).unwrap_or(0);
        let w = Type::new(
            DType::F32,
            [
                dy.shape[1],
                Dim::Fixed(per_group),
                Dim::Fixed(self.kernel[0]),
                Dim::Fixed(self.kernel[1]),
            ],
        );
        let forward = self.window.infer_type(&[x, &w])?;
        if forward != *dy {
            let error = OpError::new(
                format!("an upstream gradient of type {dy}"),
                format!("{forward}, the convolution's result"),
                "Check kernel, stride, pad and the input.",
            );
            return Err(error.operand(0));
        }
        Ok(w)
    }

    /// Parallel loops g, o (within the group), c (within the group), ky, kx; reduction loops n, y, x of the output.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (dy, w) = (operands[0].extents(), result.extents());
        let (per_group_in, per_group_out) = (w[1], w[0] / self.window.groups);
        let [g, o, c, ky, kx, n, y, x] = std::array::from_fn(Loop);
        let channel = |within: Loop, per_group: usize| Affine::of(within).plus_loop(g, per_group as i64);
        let read = |operand, index: Vec<Affine>| Read {
            source: Source::Operand(operand),
            index: index.into_iter().map(Index::new).collect(),
            predicates: vec![],
            padding_value: 0.0,
        };
        vec![Nest {
            parallel: vec![self.window.groups, per_group_out, per_group_in, w[2], w[3]],
            reduction: vec![dy[0], dy[2], dy[3]],
            reads: vec![
                read(
                    0,
                    vec![
                        Affine::of(n),
                        channel(o, per_group_out),
                        Affine::of(y),
                        Affine::of(x),
                    ],
                ),
                read(
                    1,
                    vec![
                        Affine::of(n),
                        channel(c, per_group_in),
                        self.window.position(0, y, ky),
                        self.window.position(1, x, kx),
                    ],
                ),
            ],
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Read(1),
            outputs: vec![Output {
                dtype: DType::F32,
                extents: w,
                index: vec![
                    channel(o, per_group_out),
                    Affine::of(c),
                    Affine::of(ky),
                    Affine::of(kx),
                ],
                value: Expr::Reduced,
            }],
        }]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (dy, x, upstream) = (context.operands[0], context.operands[1], context.upstream);
        let size = [2, 3].map(|d| {
            context.operand_type(1).shape[d]
                .fixed()
                .expect("only the batch is symbolic")
        });
        let for_dy = context.wanted[0].then(|| context.add("grad_dy", self.window.clone(), &[x, upstream]));
        let op = Conv2dGradInput {
            window: self.window.clone(),
            size,
        };
        let for_x = context.wanted[1].then(|| context.add("grad_x", op, &[dy, upstream]));
        vec![for_dy, for_x]
    }
}
