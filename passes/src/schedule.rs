//! The order of kernels: any order that keeps dependencies is right, and this one keeps few bytes alive.
//!
//! Greedy: of the kernels that can run, the one after which the fewest bytes more are alive comes next, the
//! earlier one among equals. So the gradient of a weight, which ends in an update and lets its operands go,
//! comes before the gradient of the next layer.

use ir::live::arena_bytes_of;
use ir::program::{KernelCall, Program, Value, ValueId};
use std::collections::{BTreeSet, HashMap};

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

/// Orders the kernels. Panics if they depend on each other in a circle, which `fuse` never makes.
pub fn schedule(program: &mut Program) {
    let kernels = std::mem::take(&mut program.kernels);
    let before = dependencies(&program.values, &kernels);
    let mut readers = vec![0usize; program.values.len()];
    kernels
        .iter()
        .flat_map(|k| &k.operands)
        .for_each(|v| readers[v.0] += 1);

    let mut waiting: BTreeSet<usize> = (0..kernels.len()).collect();
    while !waiting.is_empty() {
        let growth = |k: usize| -> i64 {
            let bytes = |v: &ValueId| arena_bytes_of(program.value(*v)) as i64;
            let made: i64 = kernels[k]
                .results
                .iter()
                .filter(|v| readers[v.0] > 0)
                .map(bytes)
                .sum();
            let freed: i64 = kernels[k]
                .operands
                .iter()
                .filter(|v| readers[v.0] == 1)
                .map(bytes)
                .sum();
            made - freed
        };
        let next = waiting
            .iter()
            .copied()
            .filter(|&k| before[k].is_disjoint(&waiting))
            .min_by_key(|&k| (!kernels[k].prepare, growth(k), k))
            .expect("kernels do not depend on each other in a circle");
        waiting.remove(&next);
        kernels[next].operands.iter().for_each(|v| readers[v.0] -= 1);
        program.kernels.push(kernels[next].clone());
    }
}
