//! Which values are stored, and which kernels are one: a greedy walk over the unfused program.
//!
//! | rule | does | because |
//! |---|---|---|
//! | generators | compute values that read next to nothing, as random masks, wherever they are used | arithmetic is cheaper than memory |
//! | epilogues | let a kernel finish with the maps that read its result element by element | the result is at hand |
//! | recomputation | computes a map inside its only reader, another map or a cheap window | one store and one load less |
//! | siblings | let kernels over the same loops and operands store their results together | operands are read once |
//!
//! The operands of a contraction are always stored: its schedule wants to pack them. Every rule keeps the
//! kernels free of circles, counting that a parameter's old value is read before the new one overwrites it;
//! a kernel does both only if each point reads no other element than the one it writes.

use crate::compose;
use crate::schedule::{dependencies, has_detour, schedule};
use crate::substitute::{always_holds, simplify};
use ir::nest::{Binary, Combine, Expr, Nest, Source, Unary};
use ir::plan::Role;
use ir::program::{KernelCall, Program, ValueId};
use std::collections::BTreeMap;

/// A value that reads at most so many elements is generated anew by each of its users.
const GENERATOR_ELEMENTS: usize = 16;
/// The most reads of a map that a window recomputes.
const CHEAP_READS: usize = 3;
/// The most parts of a stored value's expression: beyond it a kernel would spill registers.
const EXPRESSION_PARTS: usize = 200;
/// The most outputs of a kernel, so that its pointers stay in registers.
const OUTPUTS: usize = 6;

/// Fuses kernels and drops values that nobody needs.
pub fn fuse(program: &mut Program) {
    let mut fusion = Fusion::new(program);
    fusion.share_equal();
    fusion.drop_unread();
    fusion.spread_generators();
    loop {
        let changed = [fusion.epilogues(|_| true), fusion.recompute(), fusion.siblings()];
        if !changed.contains(&true) {
            break;
        }
        fusion.drop_unread();
    }
    fusion.finish();
    schedule(program);
}

/// Lets kernels write straight to where a copy would bring their results, and drops what nobody reads.
pub fn fold_copies(program: &mut Program) {
    let mut fusion = Fusion::new(program);
    fusion.drop_unread();
    fusion.epilogues(is_copy);
    fusion.drop_unread();
    fusion.finish();
    schedule(program);
}

/// Kernels whose nests name operands by [`ValueId`], so that equal sources are the same tensor.
struct Fusion<'a> {
    program: &'a mut Program,
}

impl Fusion<'_> {
    fn new(program: &mut Program) -> Fusion<'_> {
        for kernel in &mut program.kernels {
            let operands = kernel.operands.clone();
            renumber_sources(kernel, |i| operands[i].0);
            kernel.operands = operands_of(&kernel.nest);
        }
        Fusion { program }
    }

    /// Gives every kernel its own operand list again, and forgets values that are no longer made.
    fn finish(self) {
        let Program { values, kernels, .. } = self.program;
        let mut new_id = BTreeMap::new();
        let written: Vec<ValueId> = kernels.iter().flat_map(|k| k.results.clone()).collect();
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

    fn readers(&self, value: ValueId) -> Vec<usize> {
        let reads = |k: &KernelCall| k.operands.contains(&value);
        (0..self.program.kernels.len())
            .filter(|&k| reads(&self.program.kernels[k]))
            .collect()
    }

    /// Whether a value must be stored even if no kernel reads it.
    fn is_wanted(&self, value: ValueId) -> bool {
        let value = self.program.value(value);
        matches!(value.role, Role::Output { .. }) || value.alias.is_some()
    }

    /// Removes outputs that nobody reads, and kernels left without outputs.
    fn drop_unread(&mut self) {
        for k in (0..self.program.kernels.len()).rev() {
            let results = self.program.kernels[k].results.clone();
            let keep: Vec<bool> = results
                .iter()
                .map(|&v| self.is_wanted(v) || !self.readers(v).is_empty())
                .collect();
            if !keep.contains(&true) {
                self.program.kernels.remove(k);
            } else if keep.contains(&false) {
                let kernel = &mut self.program.kernels[k];
                retain(&mut kernel.results, &keep);
                retain(&mut kernel.nest.outputs, &keep);
                kernel.nest = crate::substitute::normalize(kernel.nest.clone());
                kernel.operands = operands_of(&kernel.nest);
            }
        }
    }

    /// Lets readers of a value read an equal one instead: stages of different nodes may be the same nest.
    fn share_equal(&mut self) {
        for j in 0..self.program.kernels.len() {
            let kernel = &self.program.kernels[j];
            let Some(i) = self.program.kernels[..j]
                .iter()
                .position(|k| k.nest == kernel.nest)
            else {
                continue;
            };
            let results: Vec<(ValueId, ValueId)> = kernel
                .results
                .iter()
                .copied()
                .zip(self.program.kernels[i].results.clone())
                .collect();
            for kernel in &mut self.program.kernels {
                renumber_sources(kernel, |v| {
                    results
                        .iter()
                        .find(|(old, _)| old.0 == v)
                        .map_or(v, |(_, shared)| shared.0)
                });
                kernel.operands = operands_of(&kernel.nest);
            }
        }
    }

    /// Replaces kernels `i` and `j` by one at the place of `i`, if that makes no circle.
    fn replace(&mut self, i: usize, j: usize, nest: Nest, results: Vec<ValueId>) -> bool {
        let before = dependencies(&self.program.values, &self.program.kernels);
        let circle = has_detour(&before, i, j) || has_detour(&before, j, i);
        if circle || !self.is_sound(&nest, &results) {
            return false;
        }
        let kernels = &mut self.program.kernels;
        let label = if is_copy(&kernels[j].nest) {
            kernels[i].label.clone()
        } else {
            format!("{}+{}", kernels[i].label, kernels[j].label)
        };
        let operands = operands_of(&nest);
        kernels[i] = KernelCall {
            label,
            nest,
            operands,
            results,
            prepare: kernels[i].prepare,
            group: None,
            algorithm: kernels[i].algorithm.or(kernels[j].algorithm),
            vectors: kernels[i].vectors.or(kernels[j].vectors),
        };
        kernels.remove(j);
        true
    }

    /// Whether a nest is small enough, and in-place updates read no element that another point writes.
    fn is_sound(&self, nest: &Nest, results: &[ValueId]) -> bool {
        let extents = nest.extents();
        let small = nest.outputs.len() <= OUTPUTS
            && nest
                .outputs
                .iter()
                .map(|o| &o.value)
                .chain([&nest.body])
                .all(|e| parts(e) <= EXPRESSION_PARTS);
        let in_place = |(output, result): (&ir::nest::Output, &ValueId)| {
            let Some(overwritten) = self.program.value(*result).alias else {
                return true;
            };
            let own = |(index, map): (&ir::nest::Index, &ir::nest::Affine)| {
                index.divisor == 1 && simplify(&index.map, &extents) == simplify(map, &extents)
            };
            let mut old = nest
                .reads
                .iter()
                .filter(|r| r.source == Source::Operand(overwritten.0));
            old.all(|r| {
                r.index.iter().zip(&output.index).all(own)
                    && r.guards.iter().all(|g| always_holds(g, &extents))
            })
        };
        small && nest.outputs.iter().zip(results).all(in_place)
    }

    /// Computes values that read next to nothing inside their users, except for contractions' operands.
    fn spread_generators(&mut self) {
        for p in (0..self.program.kernels.len()).rev() {
            let kernel = &self.program.kernels[p];
            let elements: usize = kernel
                .operands
                .iter()
                .map(|v| self.program.value(*v).extents.iter().product::<usize>())
                .sum();
            let [result] = kernel.results[..] else { continue };
            if kernel.nest.combine != Combine::None || elements > GENERATOR_ELEMENTS || self.is_wanted(result)
            {
                continue;
            }
            for c in self.readers(result) {
                self.inline_into(c, p, result);
            }
            if self.readers(result).is_empty() {
                self.program.kernels.remove(p);
            }
        }
    }

    /// Computes kernel `p`, which makes `value`, again inside kernel `c`; says whether it did.
    fn inline_into(&mut self, c: usize, p: usize, value: ValueId) -> bool {
        let (consumer, producer) = (&self.program.kernels[c], &self.program.kernels[p]);
        let source = Source::Operand(value.0);
        let before = dependencies(&self.program.values, &self.program.kernels);
        if is_contracted(&consumer.nest, source) || has_detour(&before, p, c) {
            return false;
        }
        let extents = |source| match source {
            Source::Operand(v) | Source::Stage(v) => self.program.value(ValueId(v)).extents.clone(),
        };
        let Some(nest) = compose::inline(&consumer.nest, source, &producer.nest, &extents) else {
            return false;
        };
        if !self.is_sound(&nest, &consumer.results) {
            return false;
        }
        let label = format!("{}+{}", producer.label, consumer.label);
        let kernel = &mut self.program.kernels[c];
        kernel.operands = operands_of(&nest);
        (kernel.nest, kernel.label) = (nest, label);
        true
    }

    /// Lets every kernel finish with the maps that read its results and satisfy `allowed`.
    fn epilogues(&mut self, allowed: fn(&Nest) -> bool) -> bool {
        let mut changed = false;
        let mut i = 0;
        while i < self.program.kernels.len() {
            let results = self.program.kernels[i].results.clone();
            let readers: Vec<usize> = results.iter().flat_map(|&v| self.readers(v)).collect();
            let mut readers = readers.into_iter();
            match readers.find(|&j| allowed(&self.program.kernels[j].nest) && self.epilogue(i, j)) {
                // Kernel `j` is gone; if it stood before `i`, `i` moved down. Look at the same one again.
                Some(j) => {
                    changed = true;
                    i -= usize::from(j < i);
                }
                None => i += 1,
            }
        }
        changed
    }

    fn epilogue(&mut self, i: usize, j: usize) -> bool {
        let (producer, consumer) = (&self.program.kernels[i], &self.program.kernels[j]);
        let stored: Vec<Source> = producer.results.iter().map(|v| Source::Operand(v.0)).collect();
        let keep: Vec<bool> = producer
            .results
            .iter()
            .map(|&v| self.is_wanted(v) || self.readers(v).iter().any(|&k| k != j))
            .collect();
        let Some(nest) = compose::epilogue(&producer.nest, &stored, &keep, &consumer.nest) else {
            return false;
        };
        let mut results = producer.results.clone();
        retain(&mut results, &keep);
        results.extend(&consumer.results);
        self.replace(i, j, nest, results)
    }

    /// Computes maps inside their only readers.
    fn recompute(&mut self) -> bool {
        let mut changed = false;
        for p in (0..self.program.kernels.len()).rev() {
            let producer = &self.program.kernels[p];
            let [value] = producer.results[..] else { continue };
            let [c] = self.readers(value)[..] else { continue };
            let consumer = &self.program.kernels[c].nest;
            let pays = match consumer.combine {
                Combine::None => consumer.points() <= producer.nest.points(),
                _ => is_cheap(&producer.nest),
            };
            if self.is_wanted(value) || producer.nest.combine != Combine::None || !pays {
                continue;
            }
            if self.inline_into(c, p, value) {
                self.program.kernels.remove(p);
                changed = true;
            }
        }
        changed
    }

    /// Joins kernels over the same loops that read the same tensor.
    fn siblings(&mut self) -> bool {
        let mut changed = false;
        for i in 0..self.program.kernels.len() {
            let mut j = i + 1;
            while j < self.program.kernels.len() {
                if self.sibling(i, j) {
                    changed = true
                } else {
                    j += 1
                }
            }
        }
        changed
    }

    fn sibling(&mut self, i: usize, j: usize) -> bool {
        let (a, b) = (&self.program.kernels[i], &self.program.kernels[j]);
        let large = |v: &ValueId| {
            2 * self
                .program
                .value(*v)
                .extents
                .iter()
                .map(|&n| n as u64)
                .product::<u64>()
                >= a.nest.parallel_points()
        };
        let shared = a
            .nest
            .reads
            .iter()
            .filter(|r| b.nest.reads.contains(r))
            .any(|r| match r.source {
                Source::Operand(v) | Source::Stage(v) => large(&ValueId(v)),
            });
        if !shared {
            return false;
        }
        let Some(nest) = compose::merge(&a.nest, &b.nest) else {
            return false;
        };
        let before = dependencies(&self.program.values, &self.program.kernels);
        if before[j].contains(&i) || before[i].contains(&j) {
            return false;
        }
        let results = [&a.results[..], &b.results[..]].concat();
        self.replace(i, j, nest, results)
    }
}

fn renumber_sources(kernel: &mut KernelCall, number: impl Fn(usize) -> usize) {
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

pub(crate) fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(true));
}

/// Whether a contraction multiplies elements of this tensor.
pub(crate) fn is_contracted(nest: &Nest, source: Source) -> bool {
    nest.contraction()
        .is_some_and(|(a, b)| [a, b].iter().any(|&r| nest.reads[r].source == source))
}

/// Whether a nest only moves a tensor to another buffer: an update or a second output, no node.
pub(crate) fn is_copy(nest: &Nest) -> bool {
    let [output] = &nest.outputs[..] else { return false };
    *nest
        == Nest {
            reads: nest.reads.clone(),
            ..Nest::copy(output.dtype, &nest.parallel)
        }
}

pub(crate) fn parts(expression: &Expr) -> usize {
    let mut count = 0;
    expression.walk(&mut |_| count += 1);
    count
}

/// Whether computing a map several times costs less than storing and loading it.
pub(crate) fn is_cheap(nest: &Nest) -> bool {
    let mut cheap = nest.reads.len() <= CHEAP_READS;
    let mut visit = |e: &Expr| {
        cheap &= !matches!(
            e,
            Expr::Uniform { .. }
                | Expr::Unary(Unary::Exp | Unary::Log | Unary::Tanh, _)
                | Expr::Binary(Binary::Power, ..)
        );
    };
    nest.outputs.iter().for_each(|o| o.value.walk(&mut visit));
    cheap
}
