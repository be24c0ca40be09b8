//! The kernel that writes zeros into the storage padding of a value.

use crate::access::Operand;
use crate::emit::{argument_name, element_name};
use crate::kernel::{KernelText, emit_function};
use crate::mlir::{Body, Value};

/// Lowers the zeroing of a value's storage padding, or `None` if it has none. A task is one index of the outermost
/// dimension in memory, unless that dimension itself has storage padding.
pub fn lower(value: &Operand, width: usize) -> Option<KernelText> {
    let layout = &value.layout;
    if !layout.has_padding() {
        return None;
    }
    // Physical dimensions, outermost first: (padded extent, stride, storage padding before, storage padding after).
    let mut dims: Vec<(usize, usize, usize, usize)> = vec![];
    let mut stride = 1;
    for &d in layout.order.iter().rev() {
        let (before, after) = layout.padding[d];
        let padded = value.extents[d] + before + after;
        dims.push((padded, stride, before, after));
        stride *= padded;
    }
    dims.reverse();
    let first_is_plain = dims[0].2 + dims[0].3 == 0;
    let tasks = if first_is_plain { dims[0].0 as u64 } else { 1 };
    Some(emit_function(std::slice::from_ref(value), tasks, |body, task| {
        let start = if first_is_plain {
            body.sum(0, &[(task, dims[0].1 as i64)])
        } else {
            body.index(0)
        };
        let rest = if first_is_plain { &dims[1..] } else { &dims[..] };
        for (i, &(padded, stride, before, after)) in rest.iter().enumerate() {
            for (low, count) in [(0, before), (padded - after, after)] {
                if count == 0 {
                    continue;
                }
                // Dimensions outside `i` keep to their interior, since their own storage padding is zeroed as a whole.
                let padding_value: Vec<(usize, usize, usize)> = rest[..i]
                    .iter()
                    .map(|&(padded, stride, b, a)| (padded - b - a, stride, b))
                    .collect();
                write_boxes(
                    body,
                    value,
                    width,
                    start,
                    &padding_value,
                    low * stride,
                    count * stride,
                );
            }
        }
    }))
}

/// Zeroes `count` elements from `first` on, for every index of the outside dimensions.
fn write_boxes(
    body: &mut Body,
    value: &Operand,
    width: usize,
    base: Value,
    padding_value: &[(usize, usize, usize)],
    first: usize,
    count: usize,
) {
    let Some((&(extent, stride, before), rest)) = padding_value.split_first() else {
        return write_run(body, value, width, base, first, count);
    };
    body.for_extent(extent, |body, i| {
        let base = body.sum((before * stride) as i64, &[(base, 1), (i, stride as i64)]);
        write_boxes(body, value, width, base, rest, first, count);
    });
}

fn write_run(body: &mut Body, value: &Operand, width: usize, base: Value, first: usize, count: usize) {
    let element = element_name(value.dtype);
    let (name, memref) = (
        argument_name(0),
        format!("memref<{}x{element}>", value.elements()),
    );
    let zero = if element == "f32" { "0.0" } else { "0" };
    let whole = count / width * width;
    if whole > 0 {
        let ty = format!("vector<{width}x{element}>");
        let zeros = body.op(format_args!("arith.constant dense<{zero}> : {ty}"));
        let (low, high) = (body.index(0), body.index(whole as i64));
        body.for_each(low, high, width as i64, |body, i| {
            let at = body.sum(first as i64, &[(base, 1), (i, 1)]);
            body.line(format_args!(
                "vector.store {zeros}, {name}[{at}] : {memref}, {ty}"
            ));
        });
    }
    for i in whole..count {
        let scalar = body.op(format_args!("arith.constant {zero} : {element}"));
        let at = body.sum((first + i) as i64, &[(base, 1)]);
        body.line(format_args!("memref.store {scalar}, {name}[{at}] : {memref}"));
    }
}
