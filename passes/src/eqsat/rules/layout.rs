//! A contraction with a factor in vectors, which has to lie so that a dimension runs fastest: as it does by nature, or
//! rearranged for it.

use super::Classes;
use crate::eqsat::kernel;
use crate::eqsat::language::{Facts, Node, Tensors, fastest};
use crate::vectors;
use egg::{Id, Rewrite, Subst};

/// The rule, for one round.
pub fn rewrites() -> Vec<Rewrite<Node, Facts>> {
    vec![Rewrite::new("vectors", Classes(has_ways), InVectors).expect("the rule binds what it uses")]
}

/// Whether a class is of kernels that can read a factor in vectors.
fn has_ways(egraph: &Tensors, class: Id) -> bool {
    kernel::is_kernel(egraph, class) && !vectors::ways(kernel::nest_of(egraph, class).0).is_empty()
}

struct InVectors;

impl egg::Applier<Node, Facts> for InVectors {
    fn apply_one(
        &self,
        egraph: &mut Tensors,
        class: Id,
        _: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let (number, operands) = kernel::number_of(egraph, class);
        let (nest, operands) = (egraph.analysis.nests[number].clone(), operands.to_vec());
        let mut changed = vec![];
        for way in vectors::ways(&nest) {
            let panel = kernel::operand(&nest, way.panel);
            let dimension = way.vectors.dimension;
            let mut children = operands.clone();
            if fastest(egraph, children[panel]) != Some(dimension) {
                children[panel] = egraph.add(Node::Fastest(dimension as u32, [children[panel]]));
            }
            let other = egraph.add(Node::Vectors(number, way.vectors, children.into()));
            if egraph.union_trusted(class, other, rule) {
                changed.push(class);
            }
        }
        changed
    }
}
