//! A contraction with a factor in vectors, which has to lie so that a dimension runs fastest: as it does by nature, or
//! rearranged for it.

use super::Classes;
use crate::eqsat::kernel;
use crate::eqsat::language::{Node, TensorAnalysis, TensorEGraph, innermost};
use crate::vectors;
use egg::{Id, Rewrite, Subst};

/// The rule, for one round.
pub fn rewrites() -> Vec<Rewrite<Node, TensorAnalysis>> {
    vec![
        Rewrite::new("vectors", Classes(has_vectorizations), InVectors).expect("the rule binds what it uses"),
    ]
}

/// Whether a class is of kernels that can read a factor in vectors.
fn has_vectorizations(egraph: &TensorEGraph, class: Id) -> bool {
    kernel::is_kernel(egraph, class) && !vectors::vectorizations(kernel::nest_of(egraph, class).0).is_empty()
}

struct InVectors;

impl egg::Applier<Node, TensorAnalysis> for InVectors {
    fn apply_one(
        &self,
        egraph: &mut TensorEGraph,
        class: Id,
        _: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let (number, operands) = kernel::number_of(egraph, class);
        let (nest, operands) = (egraph.analysis.nests[number].clone(), operands.to_vec());
        let mut changed = vec![];
        for vectorization in vectors::vectorizations(&nest) {
            let panel = kernel::operand(&nest, vectorization.panel);
            let dimension = vectorization.vectors.dimension;
            let mut children = operands.clone();
            if innermost(egraph, children[panel]) != Some(dimension) {
                children[panel] = egraph.add(Node::Innermost(dimension as u32, [children[panel]]));
            }
            let other = egraph.add(Node::Vectors(number, vectorization.vectors, children.into()));
            if egraph.union_trusted(class, other, rule) {
                changed.push(class);
            }
        }
        changed
    }
}
