//! The order of kernels: any order that keeps dependencies is right, and this one keeps few bytes alive.
//!
//! Greedy: of the kernels that can run, the one after which the fewest bytes more are alive comes next, the
//! earlier one among equals. So the gradient of a weight, which ends in an update and lets its operands go,
//! comes before the gradient of the next layer.

use ir::live::arena_bytes_of;
use ir::program::{Kernel, Program, Value, ValueId};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// For every kernel, those that must run before it: the writers of what it reads, and for a kernel that
/// overwrites a parameter, the readers of its old value.
pub fn dependencies(values: &[Value], kernels: &[Kernel]) -> Vec<BTreeSet<usize>> {
    let whole = |v: &ValueId| {
        values[v.0]
            .alias
            .filter(|_| values[v.0].batch_slice)
            .unwrap_or(*v)
    };
    let mut writer: HashMap<ValueId, usize> = HashMap::new();
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (k, kernel) in kernels.iter().enumerate() {
        kernel.results.iter().for_each(|v| _ = writer.insert(whole(v), k));
        kernel
            .operands
            .iter()
            .for_each(|v| readers.entry(whole(v)).or_default().push(k));
    }
    let before = |(k, kernel): (usize, &Kernel)| {
        let mut before: BTreeSet<usize> = kernel
            .operands
            .iter()
            .filter_map(|v| writer.get(&whole(v)).copied())
            .collect();
        for result in kernel.results.iter().filter(|v| !values[v.0].batch_slice) {
            if let Some(overwritten) = values[result.0].alias {
                before.extend(readers.get(&overwritten).into_iter().flatten());
            }
        }
        before.remove(&k);
        before
    };
    kernels.iter().enumerate().map(before).collect()
}

/// Checks that the order of kernels keeps their dependencies, which `Program::verify` sees half of: a parameter
/// must not be overwritten before the last kernel that needs its old value. Names the kernel that comes too soon.
pub fn verify(program: &Program) -> Result<(), String> {
    let before = dependencies(&program.values, &program.kernels);
    for (k, kernel) in program.kernels.iter().enumerate() {
        if let Some(late) = before[k].iter().find(|&&other| other > k) {
            return Err(format!(
                "{}: runs before {}, which it waits for",
                kernel.label, program.kernels[*late].label
            ));
        }
    }
    Ok(())
}

/// Whether there is a way from kernel `from` to kernel `to` through at least one other kernel.
pub fn has_detour(dependencies: &[BTreeSet<usize>], from: usize, to: usize) -> bool {
    let mut seen = vec![false; dependencies.len()];
    let mut open: Vec<usize> = dependencies[to].iter().copied().filter(|&k| k != from).collect();
    while let Some(k) = open.pop() {
        if k == from {
            return true;
        }
        if !std::mem::replace(&mut seen[k], true) {
            open.extend(dependencies[k].iter().filter(|&&p| !seen[p] && p != to));
        }
    }
    false
}

/// What a choice among kernels looks at, the least first: bytes made and bytes freed.
type Key = fn(i64, i64) -> (bool, i64);

/// Orders the kernels. Panics if they depend on each other in a circle, which `fuse` never makes.
pub fn schedule(program: &mut Program) {
    order(program, |made, freed| (false, made - freed));
}

/// Orders kernels of one device anew, those of a micro-batch loop as one, once convolutions have become several kernels: a weight can
/// be updated as soon as the taps are made that its old value is needed for. Of those after which less is alive, the one
/// comes first that needs the least until then. (Before kernels are placed that is no gain: the search found places of
/// the one-tower AlexNet that hold 2 % more.)
pub fn reschedule(program: &mut Program) {
    order(program, |made, freed| match made > freed {
        true => (true, made - freed),
        false => (false, made),
    });
    postpone(program);
}

fn order(program: &mut Program, key: Key) {
    let kernels = std::mem::take(&mut program.kernels);
    let before = dependencies(&program.values, &kernels);
    let sequences = sequences(program, &kernels);
    let mut readers = vec![0usize; program.values.len()];
    let reads = sequences.iter().flat_map(|sequence| &sequence.reads);
    reads.for_each(|v| readers[v.0] += 1);

    let mut made: BTreeSet<ValueId> = BTreeSet::new();
    let waited_for = waited_for(&sequences, &before);
    let mut waits: Vec<usize> = waited_for.iter().map(BTreeSet::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![vec![]; sequences.len()];
    for (sequence, others) in waited_for.iter().enumerate() {
        others.iter().for_each(|&other| followers[other].push(sequence));
    }
    let mut ready: BTreeSet<usize> = (0..sequences.len())
        .filter(|&sequence| waits[sequence] == 0)
        .collect();
    for _ in 0..sequences.len() {
        let bytes = |v: &ValueId| arena_bytes_of(program.value(*v)) as i64;
        let need = |sequence: &KernelSequence| {
            let is_new = |v: &&ValueId| readers[v.0] > 0 && !made.contains(v);
            let is_last = |v: &&ValueId| readers[v.0] == 1;
            let grown = sequence.writes.iter().filter(is_new).map(bytes).sum();
            key(grown, sequence.reads.iter().filter(is_last).map(bytes).sum())
        };
        let next = ready
            .iter()
            .copied()
            .min_by_key(|&r| (!sequences[r].prepack, need(&sequences[r]), r))
            .expect("kernels do not depend on each other in a circle");
        ready.remove(&next);
        for &follower in &followers[next] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                ready.insert(follower);
            }
        }
        sequences[next].reads.iter().for_each(|v| readers[v.0] -= 1);
        made.extend(&sequences[next].writes);
        program
            .kernels
            .extend_from_slice(&kernels[sequences[next].kernels.clone()]);
    }
}

/// For every run the runs that must come before it, from the kernels that must come before each kernel.
fn waited_for(sequences: &[KernelSequence], before: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut run_of = vec![0; before.len()];
    for (r, sequence) in sequences.iter().enumerate() {
        run_of[sequence.kernels.clone()].fill(r);
    }
    let others = |(r, sequence): (usize, &KernelSequence)| {
        let needed = sequence.kernels.clone().flat_map(|k| &before[k]);
        needed.map(|&k| run_of[k]).filter(|&other| other != r).collect()
    };
    sequences.iter().enumerate().map(others).collect()
}

/// Moves what reads nothing of the arena to just before the first that waits for it: its results need not be there sooner.
fn postpone(program: &mut Program) {
    let kernels = std::mem::take(&mut program.kernels);
    let before = dependencies(&program.values, &kernels);
    let sequences = sequences(program, &kernels);
    // The latest run comes first.
    let mut late: Vec<&KernelSequence> = vec![];
    for sequence in sequences.iter().rev() {
        let waits = |other: &&KernelSequence| {
            let mut needed = other.kernels.clone().flat_map(|k| &before[k]);
            needed.any(|k| sequence.kernels.contains(k))
        };
        let in_arena = |&id: &ValueId| arena_bytes_of(program.value(id)) > 0;
        let stays = sequence.prepack || sequence.reads.iter().any(in_arena);
        let first = match stays {
            true => None,
            false => late.iter().rposition(waits),
        };
        let at = first.map_or(late.len(), |first| first + 1);
        late.insert(at, sequence);
    }
    for sequence in late.iter().rev() {
        program
            .kernels
            .extend_from_slice(&kernels[sequence.kernels.clone()]);
    }
}

/// Kernels that stay together: one, or those of a micro-batch loop.
struct KernelSequence {
    kernels: Range<usize>,
    /// Whether they run before the first step.
    prepack: bool,
    /// The values whose bytes they read.
    reads: BTreeSet<ValueId>,
    /// The values whose bytes they write.
    writes: BTreeSet<ValueId>,
}

fn sequences(program: &Program, kernels: &[Kernel]) -> Vec<KernelSequence> {
    let mut first = 0;
    let sequences =
        kernels.chunk_by(|a, b| a.micro_batch_loop.is_some() && a.micro_batch_loop == b.micro_batch_loop);
    let sequence = |calls: &[Kernel]| {
        let start = first;
        first += calls.len();
        let owners = |ids: &dyn Fn(&Kernel) -> &Vec<ValueId>| {
            let all = calls.iter().flat_map(ids);
            all.map(|&id| program.owner(id)).collect()
        };
        KernelSequence {
            kernels: start..first,
            prepack: calls[0].prepack,
            reads: owners(&|call| &call.operands),
            writes: owners(&|call| &call.results),
        }
    };
    sequences.map(sequence).collect()
}
