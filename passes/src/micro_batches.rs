//! Runs of kernels that hand each other large values take micro-batches, so that those values need not be there as a whole.
//!
//! Pooling after a normalisation, or the gradients of both, follow each other and go over samples alike: what the first
//! writes and the second reads is as large as a turn then, and still in a cache when it is read. Contractions keep their
//! batch: fewer rows at a time would cost them more than that saves. (Fast convolutions, which have large tensors of their
//! own, are cut by [`crate::winograd`].)

use crate::micro_batch;
use ir::nest::{Affine, Loop};
use ir::plan::Role;
use ir::program::{Kernel, Program, ValueId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The share of a micro-batch's bytes from which on a value counts as large.
const LARGE: f64 = 0.1;

/// Cuts what can be cut, into micro-batches of so many bytes if possible.
pub fn cut(program: &mut Program, micro_batch_bytes: u64) {
    let lives = Lives::of(program);
    let micro_batch = |call: &Kernel| {
        let l = samples(program, call)?;
        Some((call.nest.parallel[l.0], program.device_of(call)))
    };
    let micro_batches: Vec<_> = program.kernels.iter().map(micro_batch).collect();
    let mut first = 0;
    while first < program.kernels.len() {
        let own = micro_batches[first];
        let alike = micro_batches[first..]
            .iter()
            .take_while(|&&micro_batch| micro_batch == own)
            .count();
        let end = first + alike;
        while own.is_some() && first < end {
            let Some(sequence) = sequence_from(program, &lives, first, end - 1, micro_batch_bytes) else {
                first += 1;
                continue;
            };
            first = sequence.end() + 1;
            cut_sequence(program, &lives, sequence, micro_batch_bytes);
        }
        first = end;
    }
}

/// The first and the last kernel that touches each value. Taking micro-batches changes neither.
struct Lives(Vec<Option<(usize, usize)>>);

impl Lives {
    fn of(program: &Program) -> Lives {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; program.values.len()];
        for (k, call) in program.kernels.iter().enumerate() {
            for &touched in call.operands.iter().chain(&call.results) {
                lives[program.owner(touched).0].get_or_insert((k, k)).1 = k;
            }
        }
        Lives(lives)
    }
}

/// The loop over samples of a kernel that can run in micro-batches.
fn samples(program: &Program, call: &Kernel) -> Option<Loop> {
    let plain = call.micro_batch_loop.is_none()
        && !call.prepack
        && call.nest.contraction().is_none()
        && !program.is_transfer(call);
    let mut loops = (0..call.nest.parallel.len()).map(Loop).filter(|_| plain);
    let first = call.nest.outputs.first()?.index.first()?;
    let l = loops.find(|l| *first == Affine::of(*l))?;
    let one_after_another = |id: &ValueId| {
        let layout = &program.value(*id).layout;
        layout.order[0] == 0 && layout.padding[0] == (0, 0)
    };
    let indexed = micro_batch::indexed(call, l);
    (micro_batch::is_batch_loop(program, call, l) && indexed.iter().all(one_after_another)).then_some(l)
}

/// Where a value is made and last read, if only kernels between those touch it.
fn live_range(
    program: &Program,
    lives: &Lives,
    id: ValueId,
    micro_batch_bytes: u64,
) -> Option<RangeInclusive<usize>> {
    let value = program.value(id);
    if value.role != Role::Temporary
        || value.alias.is_some()
        || (value.bytes() as f64) < LARGE * micro_batch_bytes as f64
    {
        return None;
    }
    let (first, last) = lives.0[id.0]?;
    (first < last).then_some(first..=last)
}

/// The kernels from `first` on that hand each other large values and can run in micro-batches together; `alike` is the last one that
/// run in micro-batches as the first does.
fn sequence_from(
    program: &Program,
    lives: &Lives,
    first: usize,
    alike: usize,
    micro_batch_bytes: u64,
) -> Option<RangeInclusive<usize>> {
    let mut last = first;
    let mut k = first;
    while k <= last {
        let made = program.kernels[k]
            .results
            .iter()
            .filter_map(|&id| live_range(program, lives, id, micro_batch_bytes));
        let ends = made
            .filter(|live_range| *live_range.start() == k && *live_range.end() <= alike)
            .map(|live_range| *live_range.end());
        last = ends.fold(last, usize::max);
        k += 1;
    }
    (last > first).then_some(first..=last)
}

fn cut_sequence(
    program: &mut Program,
    lives: &Lives,
    sequence: RangeInclusive<usize>,
    micro_batch_bytes: u64,
) {
    let calls = program.kernels[sequence.clone()].to_vec();
    let loops: Vec<Loop> = calls.iter().filter_map(|call| samples(program, call)).collect();
    let count = calls[0].nest.parallel[loops[0].0];
    let inner = |id: ValueId| {
        live_range(program, lives, id, micro_batch_bytes).is_some_and(|live_range| {
            sequence.contains(live_range.start()) && sequence.contains(live_range.end())
        })
    };
    let mut indexed: Vec<ValueId> = vec![];
    for (call, &l) in calls.iter().zip(&loops) {
        indexed.extend(micro_batch::indexed(call, l));
    }
    indexed.sort_unstable();
    indexed.dedup();
    let own: Vec<ValueId> = indexed.iter().copied().filter(|&id| inner(id)).collect();
    let all = indexed.iter().map(|&id| program.value(id).bytes()).sum();
    let micro_batches = micro_batch::count(count, all, micro_batch_bytes, |samples| {
        micro_batch::are_aligned(program, &indexed, samples)
    });
    if micro_batches == 1 {
        return;
    }
    let micro_batch_loop = Some(micro_batch::new_micro_batch_loop(program, micro_batches));
    let mut slices: BTreeMap<ValueId, ValueId> = own.iter().map(|&id| (id, id)).collect();
    let mut cut: Vec<Kernel> = vec![];
    for (call, &l) in calls.iter().zip(&loops) {
        cut.push(Kernel {
            micro_batch_loop,
            ..micro_batch::cut(program, call, l, micro_batches, &mut slices)
        });
    }
    for id in own {
        program.values[id.0].extents[0] = count / micro_batches;
    }
    program.kernels.splice(sequence, cut);
}
