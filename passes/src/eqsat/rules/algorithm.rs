//! A kernel by another algorithm: convolutions and their gradients by Winograd's, in every form that they can take.

use super::Classes;
use crate::eqsat::kernel;
use crate::eqsat::language::{Node, TensorAnalysis, TensorEGraph};
use crate::winograd;
use egg::{Id, Rewrite, Subst};
use ir::program::Algorithm;

/// The rule, for one round.
pub fn rewrites() -> Vec<Rewrite<Node, TensorAnalysis>> {
    vec![Rewrite::new("winograd", Classes(has_forms), Winograd).expect("the rule binds what it uses")]
}

/// Whether a class is of kernels that have a form.
fn has_forms(egraph: &TensorEGraph, class: Id) -> bool {
    kernel::is_kernel(egraph, class) && !winograd::candidates(kernel::nest_of(egraph, class).0).is_empty()
}

struct Winograd;

impl egg::Applier<Node, TensorAnalysis> for Winograd {
    fn apply_one(
        &self,
        egraph: &mut TensorEGraph,
        class: Id,
        _: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let (nest, operands) = kernel::number_of(egraph, class);
        let operands: Box<[Id]> = operands.into();
        let mut changed = vec![];
        for form in winograd::candidates(&egraph.analysis.nests[nest]) {
            let algorithm = Algorithm::Winograd(form.products());
            let other = egraph.add(Node::Kernel(nest, algorithm, operands.clone()));
            if egraph.union_trusted(class, other, rule) {
                changed.push(class);
            }
        }
        changed
    }
}
