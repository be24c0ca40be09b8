//! The operands of a kernel: which value a read takes, reads pointed elsewhere, and operands that no read uses.

use ir::layout::Layout;
use ir::nest::{Output, Read, Source};
use ir::program::{Kernel, Program, ValueId};

/// The value that a read of a kernel takes its elements from.
pub(crate) fn operand(call: &Kernel, read: &Read) -> ValueId {
    call.operands[read.source.operand()]
}

/// The order of dimensions for each result of a kernel: images channels last, other values as the first operand that
/// is read at the same places.
pub(crate) fn order_like_operands(program: &Program, call: &Kernel) -> Vec<(ValueId, Vec<usize>)> {
    let results = call.results.iter().zip(&call.nest.outputs);
    let order = |(&id, output): (&ValueId, &Output)| {
        let rank = output.extents.len();
        let like = call.nest.reads.iter().find_map(|read| {
            let value = program.value(operand(call, read));
            let mut maps = read.index.iter().zip(&output.index);
            let aligned = maps.all(|(i, o)| i.divisor == 1 && i.map == *o);
            (value.extents == output.extents && aligned).then(|| value.layout.order.clone())
        });
        match like {
            Some(order) if rank < 3 => (id, order),
            _ => (id, Layout::channels_last(rank).order),
        }
    };
    results.map(order).collect()
}

/// Points a read at another value, as an operand of its own.
pub(crate) fn read_from(call: &mut Kernel, read: usize, id: ValueId) {
    call.nest.reads[read].source = Source::Operand(call.operands.len());
    call.operands.push(id);
    drop_unused_operands(call);
}

/// Removes operands that no read uses and renumbers the rest.
pub(crate) fn drop_unused_operands(call: &mut Kernel) {
    let used = |i: usize| call.nest.reads.iter().any(|r| r.source == Source::Operand(i));
    let kept: Vec<usize> = (0..call.operands.len()).filter(|&i| used(i)).collect();
    for read in &mut call.nest.reads {
        if let Source::Operand(i) = read.source {
            let position = kept
                .iter()
                .position(|&k| k == i)
                .expect("a read's operand is used");
            read.source = Source::Operand(position);
        }
    }
    call.operands = kept.into_iter().map(|i| call.operands[i]).collect();
}
