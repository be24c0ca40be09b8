//! Layouts for GPUs: images and the weights of convolutions channels last.
//!
//! A kernel of a contraction fetches its operands element by element, so it asks for no storage padding and no panels; only that
//! neighbouring threads find neighbours. With channels last an image's neighbours along the reduction are its channels,
//! and so are those of weights `[out, height, width, in]`, or `[in, height, width, out]` where a gradient to the input sums
//! over what was put out: of these copies are made, once for inference and every step in training. Interface values stay
//! row-major.

use crate::operands::{operand, order_like_operands, read_from};
use ir::layout::Layout;
use ir::nest::Nest;
use ir::plan::{Allocation, Mode, Role};
use ir::program::{Kernel, Program, Value, ValueId};
use std::collections::HashMap;

/// Copies made so far, by original and which of its dimensions is the last.
pub(crate) type Copies = HashMap<(ValueId, usize), ValueId>;

/// Adds a kernel to a program, with layouts for its results where `is_free` allows, and copies of its operands.
pub(crate) fn add(
    program: &mut Program,
    copies: &mut Copies,
    mut call: Kernel,
    is_free: impl Fn(&Program, ValueId) -> bool,
) {
    if let Some((a, b)) = call.nest.contraction() {
        for read in [a, b] {
            let id = operand(&call, &call.nest.reads[read]);
            if let Some(last) = wants_last(program, &call.nest, read, id) {
                let copy = *copies
                    .entry((id, last))
                    .or_insert_with(|| add_copy(program, id, last));
                read_from(&mut call, read, copy);
            }
        }
    }
    for (id, order) in order_like_operands(program, &call) {
        if is_free(program, id) {
            program.values[id.0].layout = Layout::ordered(order);
        }
    }
    program.kernels.push(call);
}

/// The dimension of a weight's channels that is summed over, if these should be neighbours and are not.
fn wants_last(program: &Program, nest: &Nest, read: usize, id: ValueId) -> Option<usize> {
    let value = program.value(id);
    let parameter = matches!(program.value(program.owner(id)).role, Role::Parameter { .. });
    if !parameter || value.extents.len() != 4 || value.extents[2] * value.extents[3] == 1 {
        return None;
    }
    let index = &nest.reads[read].index;
    let summed = |&dimension: &usize| {
        let map = &index[dimension].map;
        value.extents[dimension] > 1
            && (0..nest.reduction.len()).any(|i| map.coefficient(nest.reduction_loop(i)) != 0)
    };
    [1, 0].into_iter().find(summed)
}

/// Copies a weight so that a dimension of its channels comes last, the kernel's before it.
fn add_copy(program: &mut Program, id: ValueId, last: usize) -> ValueId {
    let constant = program.mode == Mode::Infer;
    let source = program.value(id).clone();
    let copy = ValueId(program.values.len());
    program.values.push(Value {
        name: format!("{}.{}_last", source.name, ["outputs", "channels"][last]),
        layout: Layout::ordered(vec![1 - last, 2, 3, last]),
        role: if constant { Role::Packed } else { Role::Temporary },
        alias: None,
        batch_slice: false,
        allocation: Allocation::Dedicated,
        ..source.clone()
    });
    program.kernels.push(Kernel {
        prepack: constant,
        ..Kernel::new(
            format!("copy {}", source.name),
            Nest::copy(source.dtype, &source.extents),
            vec![id],
            vec![copy],
        )
    });
    copy
}
