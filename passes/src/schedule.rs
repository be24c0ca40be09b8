//! The order of kernels: any order that keeps dependencies is right, and this one keeps few bytes alive.
//!
//! Greedy: of the kernels that can run, the one after which the fewest bytes more are alive comes next, the
//! earlier one among equals. So the gradient of a weight, which ends in an update and lets its operands go,
//! comes before the gradient of the next layer.

use ir::live::arena_bytes_of;
use ir::program::{KernelCall, Program, Value, ValueId};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// For every kernel, those that must run before it: the writers of what it reads, and for a kernel that
/// overwrites a parameter, the readers of its old value.
pub fn dependencies(values: &[Value], kernels: &[KernelCall]) -> Vec<BTreeSet<usize>> {
    let whole = |v: &ValueId| values[v.0].alias.filter(|_| values[v.0].window).unwrap_or(*v);
    let mut writer: HashMap<ValueId, usize> = HashMap::new();
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (k, kernel) in kernels.iter().enumerate() {
        kernel.results.iter().for_each(|v| _ = writer.insert(whole(v), k));
        kernel
            .operands
            .iter()
            .for_each(|v| readers.entry(whole(v)).or_default().push(k));
    }
    let before = |(k, kernel): (usize, &KernelCall)| {
        let mut before: BTreeSet<usize> = kernel
            .operands
            .iter()
            .filter_map(|v| writer.get(&whole(v)).copied())
            .collect();
        for result in kernel.results.iter().filter(|v| !values[v.0].window) {
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

/// Orders kernels of one device anew, those of a group as one, once convolutions have become several kernels: a weight can
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
    let runs = runs(program, &kernels);
    let mut readers = vec![0usize; program.values.len()];
    let reads = runs.iter().flat_map(|run| &run.reads);
    reads.for_each(|v| readers[v.0] += 1);

    let mut made: BTreeSet<ValueId> = BTreeSet::new();
    let waited_for = waited_for(&runs, &before);
    let mut waits: Vec<usize> = waited_for.iter().map(BTreeSet::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![vec![]; runs.len()];
    for (run, others) in waited_for.iter().enumerate() {
        others.iter().for_each(|&other| followers[other].push(run));
    }
    let mut ready: BTreeSet<usize> = (0..runs.len()).filter(|&run| waits[run] == 0).collect();
    for _ in 0..runs.len() {
        let bytes = |v: &ValueId| arena_bytes_of(program.value(*v)) as i64;
        let need = |run: &Run| {
            let is_new = |v: &&ValueId| readers[v.0] > 0 && !made.contains(v);
            let is_last = |v: &&ValueId| readers[v.0] == 1;
            let grown = run.writes.iter().filter(is_new).map(bytes).sum();
            key(grown, run.reads.iter().filter(is_last).map(bytes).sum())
        };
        let next = ready
            .iter()
            .copied()
            .min_by_key(|&r| (!runs[r].prepare, need(&runs[r]), r))
            .expect("kernels do not depend on each other in a circle");
        ready.remove(&next);
        for &follower in &followers[next] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                ready.insert(follower);
            }
        }
        runs[next].reads.iter().for_each(|v| readers[v.0] -= 1);
        made.extend(&runs[next].writes);
        program
            .kernels
            .extend_from_slice(&kernels[runs[next].kernels.clone()]);
    }
}

/// For every run the runs that must come before it, from the kernels that must come before each kernel.
fn waited_for(runs: &[Run], before: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut run_of = vec![0; before.len()];
    for (r, run) in runs.iter().enumerate() {
        run_of[run.kernels.clone()].fill(r);
    }
    let others = |(r, run): (usize, &Run)| {
        let needed = run.kernels.clone().flat_map(|k| &before[k]);
        needed.map(|&k| run_of[k]).filter(|&other| other != r).collect()
    };
    runs.iter().enumerate().map(others).collect()
}

/// Moves what reads nothing of the arena to just before the first that waits for it: its results need not be there sooner.
fn postpone(program: &mut Program) {
    let kernels = std::mem::take(&mut program.kernels);
    let before = dependencies(&program.values, &kernels);
    let runs = runs(program, &kernels);
    // The latest run comes first.
    let mut late: Vec<&Run> = vec![];
    for run in runs.iter().rev() {
        let waits = |other: &&Run| {
            let mut needed = other.kernels.clone().flat_map(|k| &before[k]);
            needed.any(|k| run.kernels.contains(k))
        };
        let in_arena = |&id: &ValueId| arena_bytes_of(program.value(id)) > 0;
        let stays = run.prepare || run.reads.iter().any(in_arena);
        let first = match stays {
            true => None,
            false => late.iter().rposition(waits),
        };
        let at = first.map_or(late.len(), |first| first + 1);
        late.insert(at, run);
    }
    for run in late.iter().rev() {
        program.kernels.extend_from_slice(&kernels[run.kernels.clone()]);
    }
}

/// Kernels that stay together: one, or those of a group.
struct Run {
    kernels: Range<usize>,
    /// Whether they run before the first step.
    prepare: bool,
    /// The values whose bytes they read.
    reads: BTreeSet<ValueId>,
    /// The values whose bytes they write.
    writes: BTreeSet<ValueId>,
}

fn runs(program: &Program, kernels: &[KernelCall]) -> Vec<Run> {
    let mut first = 0;
    let runs = kernels.chunk_by(|a, b| a.group.is_some() && a.group == b.group);
    let run = |calls: &[KernelCall]| {
        let start = first;
        first += calls.len();
        let owners = |ids: &dyn Fn(&KernelCall) -> &Vec<ValueId>| {
            let all = calls.iter().flat_map(ids);
            all.map(|&id| program.owner(id)).collect()
        };
        Run {
            kernels: start..first,
            prepare: calls[0].prepare,
            reads: owners(&|call| &call.operands),
            writes: owners(&|call| &call.results),
        }
    };
    runs.map(run).collect()
}
