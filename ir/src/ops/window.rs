//! Windows that slide over an image: the arithmetic that convolution and pooling share.

use crate::op::OpError;
use crate::types::Dim;

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
    let mut extent = if round_up { room.div_ceil(stride) } else { room / stride } + 1;
    if round_up && (extent - 1) * stride >= size + before {
        extent -= 1;
    }
    if extent == 0 { Err(OpError::new("an empty output", "at least one window", remedy)) } else { Ok(extent) }
}
