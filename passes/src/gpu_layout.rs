//! Layouts for GPUs: images and the weights of convolutions channels last.
//!
//! A kernel of a contraction fetches its operands element by element, so it asks for no halos and no panels; only that
//! neighbouring threads find neighbours. With channels last an image's neighbours along the reduction are its channels,
//! and so are those of weights `[out, height, width, in]`: of these a copy is made, once for inference and every step in
//! training. Interface values stay row-major.

use crate::layout::{operand, order_like_operands, read_from};
use ir::layout::Layout;
use ir::nest::Nest;
use ir::plan::{Mode, Place, Role};
use ir::program::{KernelCall, Program, Value, ValueId};
use std::collections::HashMap;

/// Copies made so far, by original.
pub(crate) type Copies = HashMap<ValueId, ValueId>;

/// Adds a kernel to a program, with layouts for its results where `is_free` allows, and copies of its operands.
pub(crate) fn add(
    program: &mut Program,
    copies: &mut Copies,
    mut call: KernelCall,
    is_free: impl Fn(&Program, ValueId) -> bool,
) {
    if let Some((a, b)) = call.nest.contraction() {
        for read in [a, b] {
            let id = operand(&call, &call.nest.reads[read]);
            if wants_copy(program, id) {
                let copy = *copies.entry(id).or_insert_with(|| add_copy(program, id));
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

/// Whether a value is a weight whose channels are not neighbours.
fn wants_copy(program: &Program, id: ValueId) -> bool {
    let value = program.value(id);
    let parameter = matches!(program.value(program.owner(id)).role, Role::Parameter { .. });
    parameter && value.extents.len() == 4 && value.extents[1] > 1 && value.extents[2] * value.extents[3] > 1
}

fn add_copy(program: &mut Program, id: ValueId) -> ValueId {
    let constant = program.mode == Mode::Infer;
    let source = program.value(id).clone();
    let copy = ValueId(program.values.len());
    program.values.push(Value {
        name: format!("{}.channels_last", source.name),
        layout: Layout::channels_last(4),
        role: if constant { Role::Prepared } else { Role::Temporary },
        alias: None,
        window: false,
        place: Place::Own,
        ..source.clone()
    });
    program.kernels.push(KernelCall {
        prepare: constant,
        ..KernelCall::new(
            format!("copy {}", source.name),
            Nest::copy(source.dtype, &source.extents),
            vec![id],
            vec![copy],
        )
    });
    copy
}
