//! In which ways a kernel can be computed, and what each costs by itself: the algorithm, and directly what is read in
//! vectors, which may have to be rearranged for it.

use super::kernel;
use super::language::{Fact, Node, Tensors, fastest, value_type};
use crate::cost::{Candidate, Costs, Stored};
use crate::{vectors, winograd};
use egg::Id;
use ir::DType;
use ir::plan::Mode;
use ir::program::{Algorithm, Vectors};
use std::collections::BTreeSet;

/// A way to compute a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Way {
    pub algorithm: Algorithm,
    /// What is read in vectors, and which read that is.
    pub vectors: Option<(Vectors, usize)>,
    /// The value that has to be rearranged for it.
    pub rearranged: Option<Id>,
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of rearranging what is read, if no other kernel wants the same, and what is made.
    pub rearranging: f64,
}

impl Way {
    pub fn seconds(&self) -> f64 {
        self.compute + self.rearranging
    }
}

/// The ways to compute a kernel, the fastest first; `constant` are values that never change.
pub(super) fn ways(
    egraph: &Tensors,
    class: Id,
    mode: Mode,
    costs: &Costs,
    constant: &BTreeSet<Id>,
) -> Vec<Way> {
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
    let vectorised = vectors::ways(nest);
    let fill = |way: &vectors::Way| way.fill(nest, costs.profile.lanes as usize);
    let fullest = vectorised.iter().map(fill).fold(0.0, f64::max);
    let known = kernel::ways(egraph, class).into_iter();
    let way = |(algorithm, in_vectors, operands): (Algorithm, Option<Vectors>, &[Id])| {
        let Some(vectors) = in_vectors else {
            return Way {
                algorithm,
                vectors: None,
                rearranged: None,
                compute: direct * winograd::share(nest, mode, Some(algorithm)),
                rearranging: 0.0,
            };
        };
        let way = vectorised.iter().find(|way| way.vectors == vectors);
        let way = way.expect("the rule takes ways of the nest");
        let panel = operands[kernel::operand(nest, way.panel)];
        let rearranged = matches!(egraph[panel].data, Fact::Rearranged(..)).then_some(panel);
        let paid = rearranged.filter(|&class| !constant.contains(&original(egraph, class)));
        // Vectors are stored along the same loop.
        let outputs = nest.outputs.iter().zip(&results);
        let across = outputs.filter(|(output, class)| {
            vectors::walks(output.index.iter(), way.vector) != fastest(egraph, **class)
        });
        let all = paid.into_iter().chain(across.map(|(_, &class)| class));
        let rearranging = |class: Id| 2.0 * traffic(egraph, class, costs) + costs.profile.launch_us * 1e-6;
        Way {
            algorithm,
            vectors: Some((vectors, way.panel)),
            rearranged,
            compute: direct * fullest / fill(way),
            rearranging: all.map(rearranging).sum(),
        }
    };
    let mut all: Vec<Way> = known.map(way).collect();
    // Directly is always in vectors, where that is known to be possible.
    if all.iter().any(|way| way.vectors.is_some()) {
        all.retain(|way| way.algorithm != Algorithm::Direct || way.vectors.is_some());
    }
    // Of equals the one with the longest loop, then the one that comes first.
    let position = |way: &Way| {
        vectorised
            .iter()
            .position(|other| way.vectors.is_some_and(|v| v.0 == other.vectors))
    };
    let length = |way: &Way| position(way).map_or(0, |i| vectorised[i].length(nest));
    let preferred = |way: &Way| (std::cmp::Reverse(length(way)), position(way));
    all.sort_by(|a, b| {
        a.seconds()
            .total_cmp(&b.seconds())
            .then(preferred(a).cmp(&preferred(b)))
    });
    all
}

/// The value that a class of rearranged values has in another order.
pub(super) fn original(egraph: &Tensors, class: Id) -> Id {
    let mut nodes = egraph[class].nodes.iter();
    let found = nodes.find_map(|node| match node {
        Node::Fastest(_, [from]) => Some(egraph.find(*from)),
        _ => None,
    });
    found.expect("a rearranged value is one of another order")
}

/// Seconds of reading or storing a value.
pub(super) fn traffic(egraph: &Tensors, class: Id, costs: &Costs) -> f64 {
    let ty = value_type(egraph, class);
    costs.traffic_us((ty.elements() * ty.dtype.bytes()) as f64) * 1e-6
}
