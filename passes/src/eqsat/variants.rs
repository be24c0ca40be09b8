//! In which ways a kernel can be computed, and what each costs by itself: the algorithm, and directly what is read in
//! vectors, which may have to be rearranged for it.

use super::kernel;
use super::language::{ClassData, Node, TensorEGraph, innermost, value_type};
use crate::cost::{Candidate, Costs, Stored};
use crate::{vectors, winograd};
use egg::Id;
use ir::DType;
use ir::plan::Mode;
use ir::program::{Algorithm, Vectors};
use std::collections::BTreeSet;

/// A variant to compute a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KernelVariant {
    pub algorithm: Algorithm,
    /// What is read in vectors, and which read that is.
    pub vectors: Option<(Vectors, usize)>,
    /// The value that has to be rearranged for it.
    pub relayout: Option<Id>,
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of rearranging what is read, if no other kernel wants the same, and what is made.
    pub relayout_seconds: f64,
}

impl KernelVariant {
    pub fn seconds(&self) -> f64 {
        self.compute + self.relayout_seconds
    }
}

/// The variants to compute a kernel, the fastest first; `constant` are values that never change.
pub(super) fn variants(
    egraph: &TensorEGraph,
    class: Id,
    mode: Mode,
    costs: &Costs,
    constant: &BTreeSet<Id>,
) -> Vec<KernelVariant> {
    let (nest, operands) = kernel::nest_of(egraph, class);
    let types: Vec<(DType, Vec<usize>)> = operands
        .iter()
        .map(|&id| value_type(egraph, id))
        .map(|ty| (ty.dtype, ty.extents()))
        .collect();
    let stored = |(dtype, extents)| Stored {
        dtype,
        extents,
        layout: None,
    };
    let of_types = types.iter().map(|(dtype, extents)| stored((*dtype, extents)));
    // With the operands as suits it best.
    let direct = costs.compute_us(&Candidate::free(nest, of_types.collect())) * 1e-6;
    let results = kernel::results_of(egraph, class);
    let vectorised = vectors::vectorizations(nest);
    let fill = |variant: &vectors::Vectorization| variant.fill(nest, costs.profile.lanes as usize);
    let fullest = vectorised.iter().map(fill).fold(0.0, f64::max);
    let known = kernel::variants(egraph, class).into_iter();
    let variant = |(algorithm, in_vectors, operands): (Algorithm, Option<Vectors>, &[Id])| {
        let Some(vectors) = in_vectors else {
            return KernelVariant {
                algorithm,
                vectors: None,
                relayout: None,
                compute: direct * winograd::time_ratio(nest, mode, Some(algorithm)),
                relayout_seconds: 0.0,
            };
        };
        let variant = vectorised.iter().find(|variant| variant.vectors == vectors);
        let variant = variant.expect("the rule takes ways of the nest");
        let panel = operands[kernel::operand(nest, variant.panel)];
        let relayout = matches!(egraph[panel].data, ClassData::Relayout(..)).then_some(panel);
        let paid = relayout.filter(|&class| !constant.contains(&original(egraph, class)));
        // Vectors are stored along the same loop.
        let outputs = nest.outputs.iter().zip(&results);
        let across = outputs.filter(|(output, class)| {
            vectors::unit_stride_dimension(output.index.iter(), variant.vector) != innermost(egraph, **class)
        });
        let all = paid.into_iter().chain(across.map(|(_, &class)| class));
        let relayout_seconds =
            |class: Id| 2.0 * traffic(egraph, class, costs) + costs.profile.launch_us * 1e-6;
        KernelVariant {
            algorithm,
            vectors: Some((vectors, variant.panel)),
            relayout,
            compute: direct * fullest / fill(variant),
            relayout_seconds: all.map(relayout_seconds).sum(),
        }
    };
    let mut all: Vec<KernelVariant> = known.map(variant).collect();
    // Directly is always in vectors, where that is known to be possible.
    if all.iter().any(|variant| variant.vectors.is_some()) {
        all.retain(|variant| variant.algorithm != Algorithm::Direct || variant.vectors.is_some());
    }
    // Of equals the one with the longest loop, then the one that comes first.
    let position = |variant: &KernelVariant| {
        vectorised
            .iter()
            .position(|other| variant.vectors.is_some_and(|v| v.0 == other.vectors))
    };
    let length = |variant: &KernelVariant| position(variant).map_or(0, |i| vectorised[i].length(nest));
    let preferred = |variant: &KernelVariant| (std::cmp::Reverse(length(variant)), position(variant));
    all.sort_by(|a, b| {
        a.seconds()
            .total_cmp(&b.seconds())
            .then(preferred(a).cmp(&preferred(b)))
    });
    all
}

/// The value that a class of rearranged values has in another order.
pub(super) fn original(egraph: &TensorEGraph, class: Id) -> Id {
    let mut nodes = egraph[class].nodes.iter();
    let found = nodes.find_map(|node| match node {
        Node::Innermost(_, [from]) => Some(egraph.find(*from)),
        _ => None,
    });
    found.expect("a rearranged value is one of another order")
}

/// Seconds of reading or storing a value.
pub(super) fn traffic(egraph: &TensorEGraph, class: Id, costs: &Costs) -> f64 {
    let ty = value_type(egraph, class);
    costs.traffic_us((ty.elements() * ty.dtype.bytes()) as f64) * 1e-6
}
