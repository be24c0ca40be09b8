//! The gradient of a convolution with respect to its input (a transposed convolution).

use super::Conv2d;
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Read, Source};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Type};

/// `dx = conv2d_grad_input(dy, w) size=[H, W]` with the convolution's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv2dGradInput {
    /// The convolution's own attributes.
    pub window: Conv2d,
    /// Height and width of its input: the stride leaves them open.
    pub size: [usize; 2],
}

impl Operation for Conv2dGradInput {
    const MNEMONIC: &'static str = "conv2d_grad_input";
    const EXAMPLE: &'static str = "\
dy = input() shape=[N, 6, 4, 4]
w = parameter() shape=[6, 2, 3, 3] init=normal std=0.1
dx = conv2d_grad_input(dy, w) size=[7, 7] stride=[2, 2] pad=[1, 1, 1, 1] groups=2
output dx = dx";

    fn parse(attributes: &mut Attributes) -> Result<Conv2dGradInput, OpError> {
        Ok(Conv2dGradInput {
            size: attributes.ints("size", None, 1)?,
            window: Conv2d::parse_window(attributes)?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("size", Attribute::ints(&self.size))];
        attributes.extend(self.window.print_window());
        attributes
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["dy", "weight"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        expect_operand(operands, 1, DType::F32, 4)?;
        let (dy, w) = (operands[0], operands[1]);
        let per_group = w.shape[1].fixed().unwrap_or(0);
        let channels = Dim::Fixed(per_group * self.window.groups);
        let dx = Type::new(
            DType::F32,
            [
                dy.shape[0],
                channels,
                Dim::Fixed(self.size[0]),
                Dim::Fixed(self.size[1]),
            ],
        );
        let forward = self.window.infer_type(&[&dx, w])?;
        if forward != *dy {
            let error = OpError::new(
                format!("an upstream gradient of type {dy}"),
                format!("{forward}, the convolution's result"),
                "Check size, stride, pad and the weight.",
            );
            return Err(error.operand(0));
        }
        Ok(dx)
    }

    /// Parallel loops n, g, c (within the group), y, x of the input; reduction loops o, ky, kx. The output
    /// position is `(y + pad − ky·dilation) / stride` where that divides.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (w, out) = (operands[1].extents(), result.extents());
        let groups = self.window.groups;
        let (per_group_in, per_group_out) = (w[1], w[0] / groups);
        let [n, g, c, y, x, o, ky, kx] = std::array::from_fn(Loop);
        let channel = |within: Loop, per_group: usize| Affine::of(within).plus_loop(g, per_group as i64);
        let position = |axis: usize, at: Loop, k: Loop| Index {
            map: Affine::constant(self.window.pad[axis] as i64)
                .plus_loop(at, 1)
                .plus_loop(k, -(self.window.dilation[axis] as i64)),
            divisor: self.window.stride[axis] as i64,
        };
        let dy = Read {
            source: Source::Operand(0),
            index: vec![
                Index::of(n),
                Index::new(channel(o, per_group_out)),
                position(0, y, ky),
                position(1, x, kx),
            ],
            predicates: vec![],
            padding_value: 0.0,
        };
        let weight = Read {
            source: Source::Operand(1),
            index: vec![
                Index::new(channel(o, per_group_out)),
                Index::of(c),
                Index::of(ky),
                Index::of(kx),
            ],
            predicates: vec![],
            padding_value: 0.0,
        };
        vec![Nest {
            parallel: vec![out[0], groups, per_group_in, out[2], out[3]],
            reduction: vec![per_group_out, w[2], w[3]],
            reads: vec![dy, weight],
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Read(1),
            outputs: vec![Output {
                dtype: DType::F32,
                extents: out,
                index: vec![
                    Affine::of(n),
                    channel(c, per_group_in),
                    Affine::of(y),
                    Affine::of(x),
                ],
                value: Expr::Reduced,
            }],
        }]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (dy, w, upstream) = (context.operands[0], context.operands[1], context.upstream);
        let kernel = [2, 3].map(|d| {
            context.operand_type(1).shape[d]
                .fixed()
                .expect("only the batch is symbolic")
        });
        let for_dy = context.wanted[0].then(|| context.add("grad_dy", self.window.clone(), &[upstream, w]));
        let op = super::Conv2dGradWeight {
            window: self.window.clone(),
            kernel,
        };
        let for_w = context.wanted[1].then(|| context.add("grad_weight", op, &[dy, upstream]));
        vec![for_dy, for_w]
    }
}
