//! Kernels with fused ops: what may be computed inside of which kernel, and the nest that comes of it.
//!
//! An *anchor* is a kernel as an operation means it. Its fused ops are of three kinds, each a composition of [`crate::compose`]:
//!
//! | fused op | is | taken from registers |
//! |---|---|---|
//! | [`FusionRule::Sibling`] | a nest over the same loops | — |
//! | [`FusionRule::Recompute`] | a map that the anchor, or another fused op, would read | by whoever reads it, wherever it is read |
//! | [`FusionRule::Epilogue`] | a map of what the anchor, a sibling or an epilogue makes, element by element | what those make |

use super::fusion_rule::FusionRule;
use super::interner::NestId;
use super::language::{ClassData, Node, TensorEGraph, value_type};
use crate::compose;
use crate::substitute::normalize;
use egg::Id;
use ir::nest::{Binary, Combine, Expr, Nest, Source, Unary};
use ir::program::{Algorithm, Vectors};
use std::collections::BTreeSet;

/// The most parts of a stored value's expression: beyond it a kernel would spill registers.
const EXPRESSION_PARTS: usize = 200;
/// The most reads of a map that a window recomputes.
const CHEAP_READS: usize = 3;
/// A value that reads at most so many elements is generated anew by each of its users.
const GENERATOR_ELEMENTS: usize = 16;

/// A kernel over classes: `Source::Operand(n)` is the class with the number n.
#[derive(Clone, Debug)]
pub struct ClassKernel {
    /// Its class.
    pub class: Id,
    /// What it computes.
    pub nest: Nest,
    /// The classes of its outputs.
    pub results: Vec<Id>,
}

impl ClassKernel {
    /// The kernel of a class of kernels, alone.
    pub fn of(egraph: &TensorEGraph, class: Id) -> ClassKernel {
        let class = egraph.find(class);
        let (nest, operands) = nest_of(egraph, class);
        let mut nest = nest.clone();
        for read in &mut nest.reads {
            read.source = source(egraph.find(operands[read.source.operand()]));
        }
        ClassKernel {
            class,
            nest,
            results: results_of(egraph, class),
        }
    }

    /// The values that it reads, each once.
    pub fn operands(&self) -> BTreeSet<Id> {
        self.nest.reads.iter().map(|r| class_of(r.source)).collect()
    }
}

/// The nest of a class of kernels, and its operands.
pub fn nest_of(egraph: &TensorEGraph, kernel: Id) -> (&Nest, &[Id]) {
    let (nest, operands) = number_of(egraph, kernel);
    (&egraph.analysis.nests[nest], operands)
}

/// The same, the nest by its number.
pub fn number_of(egraph: &TensorEGraph, kernel: Id) -> (NestId, &[Id]) {
    let node = egraph[kernel].nodes.iter().find_map(|node| match node {
        Node::Kernel(nest, _, operands) => Some((*nest, &operands[..])),
        _ => None,
    });
    node.expect("a class of kernels has a kernel")
}

/// The operand that a read of a nest takes its elements from.
pub fn operand(nest: &Nest, read: usize) -> usize {
    nest.reads[read].source.operand()
}

/// Whether a class is one of kernels.
pub fn is_kernel(egraph: &TensorEGraph, class: Id) -> bool {
    egraph[class]
        .nodes
        .iter()
        .any(|node| matches!(node, Node::Kernel(..)))
}

/// How a class of kernels can be computed: by which algorithm, with what in vectors, of which operands.
pub fn variants(egraph: &TensorEGraph, kernel: Id) -> BTreeSet<(Algorithm, Option<Vectors>, &[Id])> {
    let nodes = egraph[kernel].nodes.iter();
    let variants = nodes.filter_map(|node| match node {
        Node::Kernel(_, algorithm, operands) => Some((*algorithm, None, &operands[..])),
        Node::Vectors(_, vectors, operands) => Some((Algorithm::Direct, Some(*vectors), &operands[..])),
        _ => None,
    });
    variants.collect()
}

/// The classes of a kernel's outputs.
pub fn results_of(egraph: &TensorEGraph, kernel: Id) -> Vec<Id> {
    let outputs = nest_of(egraph, kernel).0.outputs.len() as u32;
    let result = |i| egraph.lookup(Node::Result(i, [kernel]));
    (0..outputs)
        .map(|i| egraph.find(result(i).expect("the outputs of a kernel were added with it")))
        .collect()
}

/// All classes of kernels, in order.
pub fn kernels(egraph: &TensorEGraph) -> Vec<Id> {
    let is_kernel = |class: &&egg::EClass<Node, ClassData>| matches!(class.data, ClassData::Kernel(..));
    let mut found: Vec<Id> = egraph.classes().filter(is_kernel).map(|class| class.id).collect();
    found.sort_unstable();
    found
}

/// A class of values as the operand of a nest over classes.
pub fn source(value: Id) -> Source {
    Source::Operand(usize::from(value))
}

/// The class of values behind a read of a nest over classes.
pub fn class_of(source: Source) -> Id {
    match source {
        Source::Operand(n) | Source::Intermediate(n) => Id::from(n),
    }
}

/// Whether a nest reads a value.
pub(super) fn reads(nest: &Nest, value: Id) -> bool {
    nest.reads.iter().any(|r| r.source == source(value))
}

impl ClassKernel {
    /// With a map at its end, which takes its results from registers.
    pub(super) fn with_epilogue(&self, fused: &ClassKernel) -> Option<ClassKernel> {
        let stored: Vec<Source> = self.results.iter().map(|&r| source(r)).collect();
        let keep = vec![true; stored.len()];
        self.joined(compose::epilogue(&self.nest, &stored, &keep, &fused.nest)?, fused)
    }

    /// With a kernel over the same loops.
    pub(super) fn with_sibling(&self, fused: &ClassKernel) -> Option<ClassKernel> {
        self.joined(compose::merge(&self.nest, &fused.nest)?, fused)
    }

    /// The kernel of both, if its expressions stay small.
    fn joined(&self, nest: Nest, fused: &ClassKernel) -> Option<ClassKernel> {
        is_small(&nest).then(|| ClassKernel {
            class: self.class,
            results: [&self.results[..], &fused.results].concat(),
            nest,
        })
    }
}

/// Whether a contraction multiplies elements of this tensor.
fn is_contracted(nest: &Nest, source: Source) -> bool {
    nest.contraction()
        .is_some_and(|(a, b)| [a, b].iter().any(|&r| nest.reads[r].source == source))
}

/// Whether computing a map several times costs less than storing and loading it.
fn is_cheap(nest: &Nest) -> bool {
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

fn parts(expression: &Expr) -> usize {
    let mut count = 0;
    expression.walk(&mut |_| count += 1);
    count
}

fn is_small(nest: &Nest) -> bool {
    let mut expressions = nest.outputs.iter().map(|o| &o.value).chain([&nest.body]);
    expressions.all(|e| parts(e) <= EXPRESSION_PARTS)
}

/// Whether `reader` can compute the map `fused` again instead of reading its value, and might gain by it.
pub fn can_recompute(egraph: &TensorEGraph, reader: &ClassKernel, fused: &ClassKernel) -> bool {
    if fused.nest.combine != Combine::None || fused.class == reader.class {
        return false;
    }
    let Some(&value) = fused.results.iter().find(|&&r| reads(&reader.nest, r)) else {
        return false;
    };
    let read: usize = fused
        .operands()
        .iter()
        .map(|&v| value_type(egraph, v).elements())
        .sum();
    let pays = match reader.nest.combine {
        Combine::None => reader.nest.points() <= fused.nest.points(),
        _ => is_cheap(&fused.nest),
    };
    let circular = reader.results.iter().any(|&r| reads(&fused.nest, r));
    (pays || read <= GENERATOR_ELEMENTS)
        && !circular
        && !is_contracted(&reader.nest, source(value))
        && recomputed(egraph, &reader.nest, fused).is_some()
}

/// The reader with every value of the fused op computed in place.
fn recomputed(egraph: &TensorEGraph, reader: &Nest, fused: &ClassKernel) -> Option<Nest> {
    let extents = |source: Source| value_type(egraph, class_of(source)).extents();
    let mut nest = reader.clone();
    for (i, &value) in fused
        .results
        .iter()
        .enumerate()
        .filter(|(_, v)| reads(reader, **v))
    {
        let mut one = fused.nest.clone();
        one.outputs = vec![one.outputs.swap_remove(i)];
        nest = compose::inline(&nest, source(value), &normalize(one), &extents)?;
    }
    Some(nest)
}

/// An anchor with some of its fused ops as one nest that stores some of what they make, by class. `None` where the compositions do
/// not fit together, though each fits alone.
///
/// `fused_ops` come in an order in which they can be computed.
pub fn assemble(egraph: &TensorEGraph, anchor: Id, fused_ops: &[Id], stores: &[Id]) -> Option<ClassKernel> {
    let rule = |fused: &Id| egraph.analysis.anchors.fused_ops[&(anchor, *fused)];
    let again: Vec<ClassKernel> = fused_ops
        .iter()
        .filter(|g| rule(g) == FusionRule::Recompute)
        .map(|&g| ClassKernel::of(egraph, g))
        .collect();
    let mut kernel = ClassKernel::of(egraph, anchor);
    kernel.nest = with_recomputed(egraph, &kernel, &again)?;
    for kind in [FusionRule::Sibling, FusionRule::Epilogue] {
        for &fused in fused_ops.iter().filter(|g| rule(g) == kind) {
            let mut fused = ClassKernel::of(egraph, fused);
            fused.nest = with_recomputed(egraph, &fused, &again)?;
            kernel = match kind {
                FusionRule::Sibling => kernel.with_sibling(&fused)?,
                _ => kernel.with_epilogue(&fused)?,
            };
        }
    }
    let mut outputs = vec![];
    for &value in stores {
        let position = kernel.results.iter().position(|&r| r == value)?;
        outputs.push(kernel.nest.outputs[position].clone());
    }
    kernel.nest.outputs = outputs;
    kernel.nest = normalize(kernel.nest);
    kernel.results = stores.to_vec();
    Some(kernel)
}

/// A kernel's nest with those of the maps that it reads computed in place, and in those the maps that they read.
fn with_recomputed(egraph: &TensorEGraph, reader: &ClassKernel, again: &[ClassKernel]) -> Option<Nest> {
    let mut nest = reader.nest.clone();
    for fused in again.iter().filter(|fused| can_recompute(egraph, reader, fused)) {
        let mut fused = fused.clone();
        fused.nest = with_recomputed(egraph, &fused, again)?;
        nest = recomputed(egraph, &nest, &fused)?;
    }
    is_small(&nest).then_some(nest)
}
