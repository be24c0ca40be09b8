//! What every pass must leave intact. The pipeline runs this after each pass and names the pass at fault.
//!
//! - A node's type is what its operation's rule gives for the types of its operands.
//! - No result is larger than can be addressed.
//! - A node's name can be written and read back, and names that node only.
//! - There is something to compute: an output or an update.
//! - An update writes a parameter, with a value of the parameter's own type, once.
//! - Operands come before their users.

use crate::graph::Graph;
use crate::op::MAX_ELEMENTS;
use crate::ops::Op;
use crate::text::is_name;
use std::collections::HashSet;

/// Checks a graph; every error names the node at fault.
pub fn verify(graph: &Graph) -> Result<(), Vec<String>> {
    let mut errors = vec![];
    for id in graph.ids() {
        let node = graph.node(id);
        let name = &node.name;
        if !is_name(name) {
            errors.push(format!(
                "{name:?}: a name is letters, digits, _ and ., and begins with a letter"
            ));
        }
        if graph.find(name) != Some(id) {
            errors.push(format!("{name}: the name leads to another node"));
        }
        if graph.operands(id).into_iter().any(|operand| operand >= id) {
            errors.push(format!("{name}: an operand comes after its user"));
        }
        match node.op.infer_type(&graph.operand_types(id)) {
            Ok(ty) if ty == node.ty => {}
            Ok(ty) => errors.push(format!(
                "{name}: has the type {}, but {} gives {ty}",
                node.ty,
                node.op.mnemonic()
            )),
            Err(error) => errors.push(format!("{name}: {error}")),
        }
        let extents = node.ty.shape.iter().map(|d| d.fixed().unwrap_or(1) as u128);
        if extents.fold(1, u128::saturating_mul) > MAX_ELEMENTS {
            errors.push(format!(
                "{name}: a result of type {} has more than 2^40 elements",
                node.ty
            ));
        }
    }
    if graph.outputs().is_empty() && graph.updates().is_empty() {
        errors.push(format!(
            "{}: the graph has neither outputs nor updates",
            graph.name()
        ));
    }
    for (name, _) in graph.outputs().iter().filter(|output| !is_name(&output.0)) {
        errors.push(format!(
            "{name:?}: an output's name is letters, digits, _ and ., and begins with a letter"
        ));
    }
    let mut updated = HashSet::new();
    for &(state, next) in graph.updates() {
        let (target, value) = (graph.node(state), graph.node(next));
        if !matches!(target.op, Op::Parameter(_)) {
            errors.push(format!("{}: is updated, but is no parameter", target.name));
        }
        if target.ty != value.ty {
            errors.push(format!(
                "{}: is of type {}, its update {} of {}",
                target.name, target.ty, value.name, value.ty
            ));
        }
        if !updated.insert(state) {
            errors.push(format!("{}: is updated twice", target.name));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;
    use crate::ops::Input;
    use crate::types::{DType, Dim};

    fn input() -> Input {
        Input {
            shape: vec![Dim::Batch, Dim::Fixed(3)],
            dtype: DType::F32,
        }
    }

    #[test]
    fn a_sound_graph_passes() {
        let mut builder = Builder::new("m");
        let x = builder.add("x", input(), &[]).unwrap();
        builder.output("y", x).unwrap();
        assert_eq!(verify(&builder.finish()), Ok(()));
    }

    #[test]
    fn every_fault_is_reported_with_the_node_that_has_it() {
        let mut builder = Builder::new("m");
        builder.add("a b", input(), &[]).unwrap();
        builder.add("1st", input(), &[]).unwrap();
        let errors = verify(&builder.finish()).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].starts_with("\"a b\": a name is"));
        assert!(errors[1].starts_with("\"1st\": a name is"));
        assert_eq!(errors[2], "m: the graph has neither outputs nor updates");
    }

    #[test]
    fn an_output_needs_a_name_that_can_be_written() {
        let mut builder = Builder::new("m");
        let x = builder.add("x", input(), &[]).unwrap();
        builder.output("", x).unwrap();
        assert!(verify(&builder.finish()).unwrap_err()[0].starts_with("\"\": an output's name is"));
    }
}
