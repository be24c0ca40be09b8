//! Two-dimensional convolution (cross-correlation, as every framework has it), grouped, strided, dilated.

use super::window::output_extent;
use super::{Conv2dGradInput, Conv2dGradWeight};
use crate::node_id::NodeId;
use crate::nest::{Affine, Combine, Expr, Index, Loop, Nest, Output, Read, Source};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use super::operation::{GradientContext, Operation};
use crate::types::{DType, Dim, Type};

/// `y = conv2d(x, w) stride=[4, 4] pad=[0, 0, 3, 3]`: x `[N, C, H, W]`, w `[O, C/groups, KH, KW]`, y `[N, O, H', W']`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv2d {
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Zeros at the top, left, bottom and right.
    pub pad: [usize; 4],
    /// Distance between the kernel's elements.
    pub dilation: [usize; 2],
    /// Channels are split into this many independent convolutions.
    pub groups: usize,
}

impl Conv2d {
    /// The attributes of the text; the gradients have the same ones.
    pub(super) fn parse_window(attributes: &mut Attributes) -> Result<Conv2d, OpError> {
        Ok(Conv2d {
            stride: attributes.ints("stride", Some(1), 1)?,
            pad: attributes.ints("pad", Some(0), 0)?,
            dilation: attributes.ints("dilation", Some(1), 1)?,
            groups: attributes.int("groups", Some(1), 1)?,
        })
    }

    /// The attributes, without those that have their default value.
    pub(super) fn print_window(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![];
        if self.stride != [1; 2] {
            attributes.push(("stride", Attribute::ints(&self.stride)));
        }
        if self.pad != [0; 4] {
            attributes.push(("pad", Attribute::ints(&self.pad)));
        }
        if self.dilation != [1; 2] {
            attributes.push(("dilation", Attribute::ints(&self.dilation)));
        }
        if self.groups != 1 {
            attributes.push(("groups", Attribute::Int(self.groups as i64)));
        }
        attributes
    }

    /// The input row (or column) that output `out` and kernel element `k` meet, along axis 0 or 1.
    pub(super) fn position(&self, axis: usize, out: Loop, k: Loop) -> Affine {
        Affine::constant(-(self.pad[axis] as i64))
            .plus_loop(out, self.stride[axis] as i64)
            .plus_loop(k, self.dilation[axis] as i64)
    }

    /// Checks the channels of an input and a weight against each other and the groups.
    pub(super) fn check_channels(&self, x: &Type, w: &Type) -> Result<(), OpError> {
        let (c, o, per_group) = (x.shape[1], w.shape[0], w.shape[1]);
        let divides = |d: Dim| d.fixed().is_some_and(|n| n % self.groups == 0);
        if divides(c) && divides(o) && c.fixed().map(|n| n / self.groups) == per_group.fixed() {
            return Ok(());
        }
        Err(OpError::new(
            format!("{c} input channels, a weight of {w} and {} groups", self.groups),
            "a weight [out, in/groups, kh, kw] with both channel counts divisible by the groups",
            "Change the weight's shape or groups.",
        ))
    }
}

impl Operation for Conv2d {
    const MNEMONIC: &'static str = "conv2d";
    const EXAMPLE: &'static str = "\
x = input() shape=[N, 4, 7, 7]
w = parameter() shape=[6, 2, 3, 3] init=normal std=0.1
y = conv2d(x, w) stride=[2, 2] pad=[1, 1, 1, 1] groups=2
output y = y";

    fn parse(attributes: &mut Attributes) -> Result<Conv2d, OpError> {
        Conv2d::parse_window(attributes)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        self.print_window()
    }

    fn infer_type(&self, operands: &[&Type]) -> Result<Type, OpError> {
        expect_operands(operands, &["x", "weight"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        expect_operand(operands, 1, DType::F32, 4)?;
        let (x, w) = (operands[0], operands[1]);
        self.check_channels(x, w)?;
        let extent = |axis: usize| {
            let kernel = w.shape[2 + axis]
                .fixed()
                .expect("a weight whose channels are checked is not symbolic");
            let pad = (self.pad[axis], self.pad[axis + 2]);
            output_extent(
                x.shape[2 + axis],
                kernel,
                self.stride[axis],
                self.dilation[axis],
                pad,
                false,
            )
        };
        Ok(Type::new(
            DType::F32,
            [
                x.shape[0],
                w.shape[0],
                Dim::Fixed(extent(0)?),
                Dim::Fixed(extent(1)?),
            ],
        ))
    }

    /// Parallel loops n, g, o (within the group), y, x; reduction loops c (within the group), ky, kx.
    fn semantics(&self, operands: &[&Type], result: &Type) -> Vec<Nest> {
        let (w, out) = (operands[1].extents(), result.extents());
        let (per_group_in, per_group_out) = (w[1], out[1] / self.groups);
        let [n, g, o, y, x, c, ky, kx] = std::array::from_fn(Loop);
        let channel = |within: Loop, per_group: usize| Affine::of(within).plus_loop(g, per_group as i64);
        let read = |operand, index: Vec<Affine>| Read {
            source: Source::Operand(operand),
            index: index.into_iter().map(Index::new).collect(),
            predicates: vec![],
            padding_value: 0.0,
        };
        vec![Nest {
            parallel: vec![out[0], self.groups, per_group_out, out[2], out[3]],
            reduction: vec![per_group_in, w[2], w[3]],
            reads: vec![
                read(
                    0,
                    vec![
                        Affine::of(n),
                        channel(c, per_group_in),
                        self.position(0, y, ky),
                        self.position(1, x, kx),
                    ],
                ),
                read(
                    1,
                    vec![
                        channel(o, per_group_out),
                        Affine::of(c),
                        Affine::of(ky),
                        Affine::of(kx),
                    ],
                ),
            ],
            combine: Combine::Sum,
            body: Expr::Read(0) * Expr::Read(1),
            outputs: vec![Output {
                dtype: DType::F32,
                extents: out,
                index: vec![
                    Affine::of(n),
                    channel(o, per_group_out),
                    Affine::of(y),
                    Affine::of(x),
                ],
                value: Expr::Reduced,
            }],
        }]
    }

    fn gradient(&self, context: &mut GradientContext) -> Vec<Option<NodeId>> {
        let (x, w, upstream) = (context.operands[0], context.operands[1], context.upstream);
        let size = |ty: &Type, axis: usize| ty.shape[axis].fixed().expect("only the batch is symbolic");
        let input_size = [size(context.operand_type(0), 2), size(context.operand_type(0), 3)];
        let kernel = [size(context.operand_type(1), 2), size(context.operand_type(1), 3)];
        let dx = context.wanted[0].then(|| {
            context.add(
                "grad_input",
                Conv2dGradInput {
                    window: self.clone(),
                    size: input_size,
                },
                &[upstream, w],
            )
        });
        let dw = context.wanted[1].then(|| {
            context.add(
                "grad_weight",
                Conv2dGradWeight {
                    window: self.clone(),
                    kernel,
                },
                &[upstream, x],
            )
        });
        vec![dx, dw]
    }
}
