//! Kernels write straight to where a copy would bring their results, and what nobody reads is not made.
//!
//! Copies stand at the end of a lowered program: updates of parameters, and outputs that are another value as well. A copy is
//! folded into the kernel that makes what it copies, unless that would make a circle: a parameter's old value is read before
//! the new one overwrites it, and a kernel does both only if each point reads no other element than the one it writes.

use crate::compose;
use crate::schedule::{dependencies, has_detour, schedule};
use crate::substitute::{always_holds, normalize, simplify};
use ir::nest::{Affine, Index, Nest, Output, Source};
use ir::plan::Role;
use ir::program::{Kernel, Program, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// The most outputs of a kernel, so that its pointers stay in registers.
pub(crate) const OUTPUTS: usize = 6;

/// Folds copies into kernels, and drops what nobody reads.
pub fn fold_copies(program: &mut Program) {
    for kernel in &mut program.kernels {
        let operands = kernel.operands.clone();
        renumber_sources(kernel, |i| operands[i].0);
        kernel.operands = operands_of(&kernel.nest);
    }
    drop_unread(program);
    Folding::new(program).run();
    drop_unread(program);
    finish(program);
    schedule(program);
}

/// Whether a value must be stored even if no kernel reads it.
fn is_wanted(program: &Program, value: ValueId) -> bool {
    let value = program.value(value);
    matches!(value.role, Role::Output { .. }) || value.alias.is_some()
}

/// Removes outputs that nobody reads, and kernels left without outputs.
fn drop_unread(program: &mut Program) {
    let mut readers = vec![0usize; program.values.len()];
    for operand in program.kernels.iter().flat_map(|kernel| &kernel.operands) {
        readers[operand.0] += 1;
    }
    let mut kernels: Vec<Option<Kernel>> = program.kernels.drain(..).map(Some).collect();
    for slot in kernels.iter_mut().rev() {
        let kernel = slot.as_mut().expect("each kernel is visited once");
        let is_kept = |v: &ValueId| is_wanted(program, *v) || readers[v.0] > 0;
        let keep: Vec<bool> = kernel.results.iter().map(is_kept).collect();
        if !keep.contains(&false) {
            continue;
        }
        kernel.operands.iter().for_each(|v| readers[v.0] -= 1);
        if !keep.contains(&true) {
            *slot = None;
            continue;
        }
        retain(&mut kernel.results, &keep);
        retain(&mut kernel.nest.outputs, &keep);
        kernel.nest = normalize(kernel.nest.clone());
        kernel.operands = operands_of(&kernel.nest);
        kernel.operands.iter().for_each(|v| readers[v.0] += 1);
    }
    program.kernels.extend(kernels.into_iter().flatten());
}

/// Kernels whose nests name operands by [`ValueId`], while copies among them are folded into others.
struct Folding<'a> {
    program: &'a mut Program,
    kernels: Vec<Option<Kernel>>,
    /// The kernels that read each value.
    readers: Vec<BTreeSet<usize>>,
    /// For every kernel those that run before it.
    before: Vec<BTreeSet<usize>>,
    /// For every kernel those that run after it.
    after: Vec<BTreeSet<usize>>,
}

impl Folding<'_> {
    fn new(program: &mut Program) -> Folding<'_> {
        let before = dependencies(&program.values, &program.kernels);
        let mut after = vec![BTreeSet::new(); before.len()];
        for (k, before) in before.iter().enumerate() {
            before.iter().for_each(|&p| _ = after[p].insert(k));
        }
        let mut readers = vec![BTreeSet::new(); program.values.len()];
        for (k, kernel) in program.kernels.iter().enumerate() {
            kernel.operands.iter().for_each(|v| _ = readers[v.0].insert(k));
        }
        let kernels = program.kernels.drain(..).map(Some).collect();
        Folding {
            program,
            kernels,
            readers,
            before,
            after,
        }
    }

    fn run(mut self) {
        for i in 0..self.kernels.len() {
            while self.fold_one(i) {}
        }
        self.program.kernels.extend(self.kernels.into_iter().flatten());
    }

    /// Folds the first copy into a kernel that can be.
    fn fold_one(&mut self, i: usize) -> bool {
        let Some(kernel) = &self.kernels[i] else {
            return false;
        };
        let readers = kernel
            .results
            .iter()
            .flat_map(|v| self.readers[v.0].iter().copied());
        let copies =
            readers.filter(|&j| j != i && self.kernels[j].as_ref().is_some_and(|k| is_copy(&k.nest)));
        let copies: Vec<usize> = copies.collect();
        copies.into_iter().any(|j| self.fold(i, j))
    }

    /// Folds copy `j` into kernel `i`, if that makes no circle.
    fn fold(&mut self, i: usize, j: usize) -> bool {
        let (Some(producer), Some(copy)) = (&self.kernels[i], &self.kernels[j]) else {
            return false;
        };
        let stored: Vec<Source> = producer.results.iter().map(|v| Source::Operand(v.0)).collect();
        let is_kept = |v: &ValueId| is_wanted(self.program, *v) || self.readers[v.0].iter().any(|&k| k != j);
        let keep: Vec<bool> = producer.results.iter().map(is_kept).collect();
        let Some(nest) = compose::epilogue(&producer.nest, &stored, &keep, &copy.nest) else {
            return false;
        };
        let mut results = producer.results.clone();
        retain(&mut results, &keep);
        results.extend(&copy.results);
        let circle = has_detour(&self.before, i, j) || has_detour(&self.before, j, i);
        if circle || !self.is_sound(&nest, &results) {
            return false;
        }
        let merged = Kernel {
            label: producer.label.clone(),
            operands: operands_of(&nest),
            nest,
            results,
            prepack: producer.prepack,
            micro_batch_loop: None,
            algorithm: producer.algorithm.or(copy.algorithm),
            vectors: producer.vectors.or(copy.vectors),
        };
        for k in [i, j] {
            let operands = self.kernels[k].iter().flat_map(|kernel| &kernel.operands);
            operands.for_each(|v| _ = self.readers[v.0].remove(&k));
        }
        merged
            .operands
            .iter()
            .for_each(|v| _ = self.readers[v.0].insert(i));
        self.kernels[i] = Some(merged);
        self.kernels[j] = None;
        let (earlier, later) = (
            std::mem::take(&mut self.before[j]),
            std::mem::take(&mut self.after[j]),
        );
        for k in earlier {
            self.after[k].remove(&j);
            if k != i {
                self.after[k].insert(i);
                self.before[i].insert(k);
            }
        }
        for k in later {
            self.before[k].remove(&j);
            if k != i {
                self.before[k].insert(i);
                self.after[i].insert(k);
            }
        }
        true
    }

    /// Whether a kernel stores no more than it can, and in-place updates read no element that another point writes.
    fn is_sound(&self, nest: &Nest, results: &[ValueId]) -> bool {
        let extents = nest.extents();
        let in_place = |(output, result): (&Output, &ValueId)| {
            let Some(overwritten) = self.program.value(*result).alias else {
                return true;
            };
            let own = |(index, map): (&Index, &Affine)| {
                index.divisor == 1 && simplify(&index.map, &extents) == simplify(map, &extents)
            };
            let reads = nest.reads.iter();
            let mut old = reads.filter(|r| r.source == Source::Operand(overwritten.0));
            old.all(|r| {
                r.index.iter().zip(&output.index).all(own)
                    && r.predicates.iter().all(|g| always_holds(g, &extents))
            })
        };
        nest.outputs.len() <= OUTPUTS && nest.outputs.iter().zip(results).all(in_place)
    }
}

/// Gives every kernel its own operand list again, and forgets values that are no longer made.
fn finish(program: &mut Program) {
    let Program { values, kernels, .. } = program;
    let mut new_id = BTreeMap::new();
    let written: BTreeSet<ValueId> = kernels.iter().flat_map(|k| k.results.clone()).collect();
    let mut id = 0;
    values.retain(|value| {
        let kept = value.role != Role::Temporary || written.contains(&ValueId(id));
        if kept {
            new_id.insert(ValueId(id), ValueId(new_id.len()));
        }
        id += 1;
        kept
    });
    for alias in values.iter_mut().filter_map(|v| v.alias.as_mut()) {
        *alias = new_id[alias];
    }
    for kernel in kernels.iter_mut() {
        let operands = kernel.operands.clone();
        let position = |v| {
            operands
                .iter()
                .position(|o| o.0 == v)
                .expect("a kernel's reads are its operands")
        };
        renumber_sources(kernel, position);
        for id in kernel.operands.iter_mut().chain(&mut kernel.results) {
            *id = new_id[id];
        }
    }
}

fn renumber_sources(kernel: &mut Kernel, number: impl Fn(usize) -> usize) {
    for read in &mut kernel.nest.reads {
        if let Source::Operand(i) = &mut read.source {
            *i = number(*i);
        }
    }
}

/// The values that a nest reads, each once, in the order of its reads.
fn operands_of(nest: &Nest) -> Vec<ValueId> {
    let mut operands = vec![];
    for read in &nest.reads {
        if let Source::Operand(v) = read.source
            && !operands.contains(&ValueId(v))
        {
            operands.push(ValueId(v));
        }
    }
    operands
}

fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(true));
}

/// Whether a nest only moves a tensor to another buffer: an update or a second output, no node.
fn is_copy(nest: &Nest) -> bool {
    let [output] = &nest.outputs[..] else { return false };
    *nest
        == Nest {
            reads: nest.reads.clone(),
            ..Nest::copy(output.dtype, &nest.parallel)
        }
}
