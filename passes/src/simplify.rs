//! Local rules on the graph, common subexpressions, and dead code.
//!
//! A rule looks at one node and its operands, and either names a value that is the same or says how the node
//! would better be written. To add one: a function, a line in [`RULES`], a test. Inputs, parameters and the
//! names of outputs are the graph's interface and stay; so does each surviving node's name.

use crate::error::PassError;
use ir::graph::GraphError;
use ir::interpreter::{Tensor, evaluate_chain};
use ir::ops::{Constant, Op, Reshape, Scale};
use ir::{Builder, DType, Dim, Graph, NodeId, Real, Type};
use std::collections::HashMap;

/// What a rule makes of a node.
enum Rewrite {
    /// Its value is this one.
    Same(NodeId),
    /// It is this operation of these operands.
    As(Op, Vec<NodeId>),
}

type Rule = fn(&Builder, &Op, &[NodeId]) -> Option<Rewrite>;

/// All rules, by name.
const RULES: [(&str, Rule); 6] = [
    ("a scale by one is its operand", |_, op, operands| match op {
        Op::Scale(Scale { factor: Real(1.0) }) => Some(Rewrite::Same(operands[0])),
        _ => None,
    }),
    ("a scale of a scale is one scale", |graph, op, operands| {
        match (op, first(graph, operands)) {
            (Op::Scale(outer), Some(Op::Scale(inner))) => {
                let factor = Real(outer.factor.0 * inner.factor.0);
                Some(Rewrite::As(
                    Scale { factor }.into(),
                    operands_of(graph, operands[0]),
                ))
            }
            _ => None,
        }
    }),
    (
        "a reshape to its operand's shape is its operand",
        |graph, op, operands| match op {
            Op::Reshape(Reshape { shape }) => {
                (*shape == graph.node(operands[0]).ty.shape).then(|| Rewrite::Same(operands[0]))
            }
            _ => None,
        },
    ),
    (
        "a reshape of a reshape is one reshape",
        |graph, op, operands| match (op, first(graph, operands)) {
            (Op::Reshape(_), Some(Op::Reshape(_))) => {
                let from = operands_of(graph, operands[0]);
                // Two steps may lead where one would split a dimension unevenly.
                op.infer_type(&[&graph.node(from[0]).ty])
                    .is_ok()
                    .then(|| Rewrite::As(op.clone(), from))
            }
            _ => None,
        },
    ),
    (
        "the rectifier changes a rectified value no more",
        |graph, op, operands| match (op, first(graph, operands)) {
            (Op::Relu(_), Some(Op::Relu(_))) => Some(Rewrite::Same(operands[0])),
            _ => None,
        },
    ),
    (
        "what has constants for operands, and is the same number everywhere, is a constant",
        |graph, op, operands| {
            folded(graph, op, operands).map(|constant| Rewrite::As(constant.into(), vec![]))
        },
    ),
];

/// Elements that folding may compute; larger constants are left to the kernels.
const FOLDED: usize = 1 << 16;

/// The constant that an operation of constants is, by the interpreter.
fn folded(graph: &Builder, op: &Op, operands: &[NodeId]) -> Option<Constant> {
    let nodes: Vec<_> = operands.iter().map(|&id| graph.node(id)).collect();
    let types: Vec<&Type> = nodes.iter().map(|node| &node.ty).collect();
    let result = op.infer_type(&types).ok()?;
    let small = |ty: &Type| !ty.shape.contains(&Dim::Batch) && ty.elements() <= FOLDED;
    if operands.is_empty()
        || result.dtype != DType::F32
        || !types.iter().all(|ty| small(ty))
        || !small(&result)
    {
        return None;
    }
    let values = nodes.iter().map(|node| match &node.op {
        Op::Constant(constant) => Some(Tensor::f32(
            &node.ty.extents(),
            vec![constant.value.0; node.ty.elements()],
        )),
        _ => None,
    });
    let values: Vec<Tensor> = values.collect::<Option<_>>()?;
    let tensor = evaluate_chain(&op.semantics(&types, &result), &values.iter().collect::<Vec<_>>()).ok()?;
    let &value = tensor.data.first()?;
    let uniform = value.is_finite() && tensor.data.iter().all(|&x| x == value);
    uniform.then_some(Constant {
        shape: result.shape,
        value: Real(value),
    })
}

/// The operation behind the first operand.
fn first<'a>(graph: &'a Builder, operands: &[NodeId]) -> Option<&'a Op> {
    operands.first().map(|&id| &graph.node(id).op)
}

fn operands_of(builder: &Builder, id: NodeId) -> Vec<NodeId> {
    builder.graph().operands(id)
}

/// The graph with every rule applied until none matches, equal nodes joined and unused ones removed.
pub fn simplify(graph: &Graph) -> Result<Graph, PassError> {
    let rewritten = rewrite(graph).map_err(PassError::graph("simplify"))?;
    without_dead_code(&rewritten).map_err(PassError::graph("simplify"))
}

fn rewrite(graph: &Graph) -> Result<Graph, GraphError> {
    let mut builder = Builder::new(graph.name());
    let mut known: HashMap<(Op, Vec<NodeId>), NodeId> = HashMap::new();
    let mut new: Vec<NodeId> = vec![];
    for id in graph.ids() {
        let node = graph.node(id);
        let mut op = node.op.clone();
        let mut operands: Vec<NodeId> = graph.operands(id).iter().map(|o| new[o.index()]).collect();
        if op.is_leaf() {
            new.push(builder.add(&node.name, op, &operands)?);
            continue;
        }
        let same = loop {
            match RULES.iter().find_map(|(_, rule)| rule(&builder, &op, &operands)) {
                Some(Rewrite::Same(value)) => break Some(value),
                Some(Rewrite::As(better, of)) => (op, operands) = (better, of),
                None => break known.get(&(op.clone(), operands.clone())).copied(),
            }
        };
        let value = match same {
            Some(value) => value,
            None => {
                let value = builder.add(&node.name, op.clone(), &operands)?;
                known.insert((op, operands), value);
                value
            }
        };
        new.push(value);
    }
    finish(graph, builder, |id| new[id.index()])
}

fn without_dead_code(graph: &Graph) -> Result<Graph, GraphError> {
    let mut needed: Vec<bool> = graph.ids().map(|id| graph.node(id).op.is_leaf()).collect();
    graph
        .outputs()
        .iter()
        .for_each(|(_, id)| needed[id.index()] = true);
    graph
        .updates()
        .iter()
        .for_each(|(_, next)| needed[next.index()] = true);
    for id in graph.ids().rev().collect::<Vec<_>>() {
        if needed[id.index()] {
            graph.operands(id).iter().for_each(|o| needed[o.index()] = true);
        }
    }
    let mut builder = Builder::new(graph.name());
    let mut new: HashMap<NodeId, NodeId> = HashMap::new();
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let operands: Vec<NodeId> = graph.operands(id).iter().map(|o| new[o]).collect();
        let node = graph.node(id);
        new.insert(id, builder.add(&node.name, node.op.clone(), &operands)?);
    }
    finish(graph, builder, |id| new[&id])
}

/// Gives a rebuilt graph the outputs and updates of the old one.
fn finish(graph: &Graph, mut builder: Builder, new: impl Fn(NodeId) -> NodeId) -> Result<Graph, GraphError> {
    for (name, id) in graph.outputs() {
        builder.output(name, new(*id))?;
    }
    for &(state, next) in graph.updates() {
        builder.update(new(state), new(next))?;
    }
    Ok(builder.finish())
}
