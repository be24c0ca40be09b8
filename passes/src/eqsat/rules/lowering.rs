//! Operations become kernels: a nest each, or a chain of them, as the operation means it.

use super::Classes;
use crate::eqsat::language::{
    Node, TensorAnalysis, TensorEGraph, add_kernel, attributes, value_name, value_type,
};
use crate::substitute::normalize;
use egg::{Id, Rewrite, Subst};
use ir::nest::{Nest, Source};

/// The rule, for one round.
pub fn rewrites() -> Vec<Rewrite<Node, TensorAnalysis>> {
    vec![Rewrite::new("lower", Classes(is_operation), Lower).expect("the rule binds what it uses")]
}

/// Whether a class is computed by an operation.
fn is_operation(egraph: &TensorEGraph, class: Id) -> bool {
    let mut nodes = egraph[class].nodes.iter();
    nodes.any(|node| matches!(node, Node::Apply(..)))
}

struct Lower;

impl egg::Applier<Node, TensorAnalysis> for Lower {
    fn apply_one(
        &self,
        egraph: &mut TensorEGraph,
        class: Id,
        _: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let mut changed = vec![];
        for node in egraph[class].nodes.clone() {
            let made_by = egraph.analysis.made_by.get(&node).copied();
            let Node::Apply(_, children) = node else { continue };
            let result = lower(egraph, class, &children, made_by);
            if egraph.union_trusted(class, result, rule) {
                changed.push(class);
            }
        }
        changed
    }
}

/// Adds the kernels of an operation and gives the value of the last one.
fn lower(egraph: &mut TensorEGraph, class: Id, children: &[Id], made_by: Option<&'static str>) -> Id {
    let op = attributes(egraph, children[0]).clone();
    let mut values: Vec<Id> = children[1..].to_vec();
    let operands = values.len();
    let types: Vec<_> = values.iter().map(|&id| value_type(egraph, id)).collect();
    let nests = op.semantics(&types, value_type(egraph, class));
    let label = value_name(egraph, class).unwrap_or(op.mnemonic()).to_string();
    for nest in nests {
        let (nest, used) = with_operands(normalize(nest), |source| match source {
            Source::Operand(i) => values[i],
            Source::Intermediate(i) => values[operands + i],
        });
        let (kernel, results) = add_kernel(egraph, nest, &used, &label);
        if let Some(rule) = made_by {
            egraph.analysis.kernels_by.entry(kernel).or_insert(rule);
        }
        values.push(results[0]);
    }
    *values.last().expect("operations have a meaning, except leaves")
}

/// The nest over its own list of operands, in the order of first use.
fn with_operands(mut nest: Nest, value: impl Fn(Source) -> Id) -> (Nest, Vec<Id>) {
    let mut operands: Vec<Id> = vec![];
    for read in &mut nest.reads {
        let class = value(read.source);
        let position = operands.iter().position(|&known| known == class);
        read.source = Source::Operand(position.unwrap_or(operands.len()));
        if position.is_none() {
            operands.push(class);
        }
    }
    (nest, operands)
}
