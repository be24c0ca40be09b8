//! Runs of kernels that hand each other large values take micro-batches, so that those values need not be there as a whole.
//!
//! Pooling after a normalisation, or the gradients of both, follow each other and go over samples alike: what the first
//! writes and the second reads is as large as a turn then, and still in a cache when it is read. Contractions keep their
//! batch: fewer rows at a time would cost them more than that saves. (Fast convolutions, which have large tensors of their
//! own, are cut by [`crate::winograd`].)

use crate::turns;
use ir::nest::{Affine, Loop};
use ir::plan::Role;
use ir::program::{KernelCall, Program, ValueId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The share of a turn's bytes from which on a value counts as large.
const LARGE: f64 = 0.1;

/// Cuts what can be cut, into turns of so many bytes if possible.
pub fn cut(program: &mut Program, turn_bytes: u64) {
    let lives = Lives::of(program);
    let turn = |call: &KernelCall| {
        let l = samples(program, call)?;
        Some((call.nest.parallel[l.0], program.device_of(call)))
    };
    let turns: Vec<_> = program.kernels.iter().map(turn).collect();
    let mut first = 0;
    while first < program.kernels.len() {
        let own = turns[first];
        let alike = turns[first..].iter().take_while(|&&turn| turn == own).count();
        let end = first + alike;
        while own.is_some() && first < end {
            let Some(run) = run_from(program, &lives, first, end - 1, turn_bytes) else {
                first += 1;
                continue;
            };
            first = run.end() + 1;
            cut_run(program, &lives, run, turn_bytes);
        }
        first = end;
    }
}

/// The first and the last kernel that touches each value. Taking turns changes neither.
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

/// The loop over samples of a kernel that can take turns.
fn samples(program: &Program, call: &KernelCall) -> Option<Loop> {
    let plain = call.group.is_none()
        && !call.prepare
        && call.nest.contraction().is_none()
        && !program.is_transfer(call);
    let mut loops = (0..call.nest.parallel.len()).map(Loop).filter(|_| plain);
    let first = call.nest.outputs.first()?.index.first()?;
    let l = loops.find(|l| *first == Affine::of(*l))?;
    let one_after_another = |id: &ValueId| {
        let layout = &program.value(*id).layout;
        layout.order[0] == 0 && layout.halo[0] == (0, 0)
    };
    let walked = turns::walked(call, l);
    (turns::walks_samples(program, call, l) && walked.iter().all(one_after_another)).then_some(l)
}

/// Where a value is made and last read, if only kernels between those touch it.
fn life(program: &Program, lives: &Lives, id: ValueId, turn_bytes: u64) -> Option<RangeInclusive<usize>> {
    let value = program.value(id);
    if value.role != Role::Temporary
        || value.alias.is_some()
        || (value.bytes() as f64) < LARGE * turn_bytes as f64
    {
        return None;
    }
    let (first, last) = lives.0[id.0]?;
    (first < last).then_some(first..=last)
}

/// The kernels from `first` on that hand each other large values and can take turns together; `alike` is the last one that
/// takes turns as the first does.
fn run_from(
    program: &Program,
    lives: &Lives,
    first: usize,
    alike: usize,
    turn_bytes: u64,
) -> Option<RangeInclusive<usize>> {
    let mut last = first;
    let mut k = first;
    while k <= last {
        let made = program.kernels[k]
            .results
            .iter()
            .filter_map(|&id| life(program, lives, id, turn_bytes));
        let ends = made
            .filter(|life| *life.start() == k && *life.end() <= alike)
            .map(|life| *life.end());
        last = ends.fold(last, usize::max);
        k += 1;
    }
    (last > first).then_some(first..=last)
}

fn cut_run(program: &mut Program, lives: &Lives, run: RangeInclusive<usize>, turn_bytes: u64) {
    let calls = program.kernels[run.clone()].to_vec();
    let loops: Vec<Loop> = calls.iter().filter_map(|call| samples(program, call)).collect();
    let count = calls[0].nest.parallel[loops[0].0];
    let inner = |id: ValueId| {
        life(program, lives, id, turn_bytes)
            .is_some_and(|life| run.contains(life.start()) && run.contains(life.end()))
    };
    let mut walked: Vec<ValueId> = vec![];
    for (call, &l) in calls.iter().zip(&loops) {
        walked.extend(turns::walked(call, l));
    }
    walked.sort_unstable();
    walked.dedup();
    let own: Vec<ValueId> = walked.iter().copied().filter(|&id| inner(id)).collect();
    let all = walked.iter().map(|&id| program.value(id).bytes()).sum();
    let turns = turns::count(count, all, turn_bytes, |samples| {
        turns::are_aligned(program, &walked, samples)
    });
    if turns == 1 {
        return;
    }
    let group = Some(turns::new_group(program, turns));
    let mut windows: BTreeMap<ValueId, ValueId> = own.iter().map(|&id| (id, id)).collect();
    let mut cut: Vec<KernelCall> = vec![];
    for (call, &l) in calls.iter().zip(&loops) {
        cut.push(KernelCall {
            group,
            ..turns::cut(program, call, l, turns, &mut windows)
        });
    }
    for id in own {
        program.values[id.0].extents[0] = count / turns;
    }
    program.kernels.splice(run, cut);
}
