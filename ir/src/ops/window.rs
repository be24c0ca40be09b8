//! Windows that slide over an image: the arithmetic that convolution and pooling share.

use super::build::{ints, read};
use crate::nest::{Affine, Index, Loop, Read};
use crate::op::{Attribute, Attributes, OpError, expect_operand, expect_operands};
use crate::types::{DType, Dim, Type};

/// The extent of the output of a window: `(size + before + after − reach) / stride + 1`, where the window's
/// reach is `dilation·(kernel − 1) + 1`; rounded down, or up so that a last partial window counts.
///
/// When rounding up, a window that would start beyond the last real element is dropped (PyTorch and Caffe
/// agree on that).
pub fn output_extent(
    size: Dim,
    kernel: usize,
    stride: usize,
    dilation: usize,
    (before, after): (usize, usize),
    round_up: bool,
) -> Result<usize, OpError> {
    let remedy = "Use a fixed height and width, a smaller kernel, or more padding.";
    let Some(size) = size.fixed() else {
        return Err(OpError::new("N as height or width", "a number", remedy).operand(0));
    };
    let reach = dilation * (kernel - 1) + 1;
    let Some(room) = (size + before + after).checked_sub(reach) else {
        let found = format!("a window of {reach} over {size} elements padded by {before} and {after}");
        return Err(OpError::new(found, "a window that fits", remedy));
    };
    let mut extent = if round_up {
        room.div_ceil(stride)
    } else {
        room / stride
    } + 1;
    if round_up && (extent - 1) * stride >= size + before {
        extent -= 1;
    }
    if extent == 0 {
        Err(OpError::new("an empty output", "at least one window", remedy))
    } else {
        Ok(extent)
    }
}

/// The windows of a pooling operation. Loops of its nests: n, c, y, x, then ky, kx.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pool {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Padding at the top, left, bottom and right.
    pub pad: [usize; 4],
    /// Whether the output's extents are rounded up.
    pub ceil: bool,
}

impl Pool {
    /// Reads `kernel`, `stride`, `pad` and `ceil`.
    pub fn parse(attributes: &mut Attributes) -> Result<Pool, OpError> {
        let pool = Pool {
            kernel: attributes.ints("kernel", None, 1)?,
            stride: attributes.ints("stride", Some(1), 1)?,
            pad: attributes.ints("pad", Some(0), 0)?,
            ceil: attributes.bool("ceil", false)?,
        };
        // Otherwise a window could lie in the padding as a whole.
        if (0..4).any(|side| pool.pad[side] >= pool.kernel[side % 2]) {
            let found = format!("pad={} for kernel={}", ints(&pool.pad), ints(&pool.kernel));
            return Err(OpError::new(found, "padding smaller than the kernel", "Pad less.").attribute("pad"));
        }
        Ok(pool)
    }

    /// The attributes, without those that have their default value.
    pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("kernel", Attribute::ints(&self.kernel))];
        if self.stride != [1; 2] {
            attributes.push(("stride", Attribute::ints(&self.stride)));
        }
        if self.pad != [0; 4] {
            attributes.push(("pad", Attribute::ints(&self.pad)));
        }
        if self.ceil {
            attributes.push(("ceil", Attribute::Bool(true)));
        }
        attributes
    }

    /// The type of the pooled value.
    pub fn infer_type(&self, operands: &[&Type], dtype: DType) -> Result<Type, OpError> {
        expect_operands(operands, &["x"])?;
        expect_operand(operands, 0, DType::F32, 4)?;
        let x = &operands[0].shape;
        let extent = |axis: usize| {
            let pad = (self.pad[axis], self.pad[axis + 2]);
            output_extent(
                x[2 + axis],
                self.kernel[axis],
                self.stride[axis],
                1,
                pad,
                self.ceil,
            )
        };
        Ok(Type::new(
            dtype,
            [x[0], x[1], Dim::Fixed(extent(0)?), Dim::Fixed(extent(1)?)],
        ))
    }

    /// The type of the gradient with respect to a pooled value of this height and width.
    pub fn infer_gradient(&self, dy: &Type, size: [usize; 2]) -> Result<Type, OpError> {
        let x = Type::new(
            DType::F32,
            [dy.shape[0], dy.shape[1], Dim::Fixed(size[0]), Dim::Fixed(size[1])],
        );
        let forward = self.infer_type(&[&x], DType::F32)?;
        if forward != *dy {
            let found = format!("an upstream gradient of type {dy}");
            let expected = format!("{forward}, the pooling's result");
            return Err(OpError::new(found, expected, "Check size, kernel, stride and pad.").operand(0));
        }
        Ok(x)
    }

    /// Checks that a place in a window fits a byte, 255 apart, which means none.
    pub fn expect_small(&self) -> Result<(), OpError> {
        match self.kernel[0].checked_mul(self.kernel[1]) {
            Some(area) if area < 255 => Ok(()),
            _ => {
                let found = format!("windows of {} elements", ints(&self.kernel));
                Err(
                    OpError::new(found, "fewer than 255 elements", "Use a smaller kernel.")
                        .attribute("kernel"),
                )
            }
        }
    }

    /// A read of the pooled value at element (ky, kx) of output (n, c, y, x)'s window.
    pub fn read(&self, operand: usize, padding_value: f64) -> Read {
        let position = |axis: usize| {
            Affine::constant(-(self.pad[axis] as i64))
                .plus_loop(Loop(2 + axis), self.stride[axis] as i64)
                .plus_loop(Loop(4 + axis), 1)
        };
        let index = [Affine::of(Loop(0)), Affine::of(Loop(1)), position(0), position(1)];
        Read {
            padding_value,
            ..read(operand, index)
        }
    }

    /// A read at the window in which element (n, c, y, x) of the pooled value has place (ky, kx).
    pub fn read_windows(&self, operand: usize, padding_value: f64) -> Read {
        let position = |axis: usize| Index {
            map: Affine::constant(self.pad[axis] as i64)
                .plus_loop(Loop(2 + axis), 1)
                .plus_loop(Loop(4 + axis), -1),
            divisor: self.stride[axis] as i64,
        };
        let mut result = read(operand, [Affine::of(Loop(0)), Affine::of(Loop(1))]);
        result.index.extend([position(0), position(1)]);
        Read {
            padding_value,
            ..result
        }
    }
}
