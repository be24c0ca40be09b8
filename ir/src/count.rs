//! What a network holds and what it computes, layer by layer: the columns of the papers' tables.

use crate::graph::{Graph, GraphError};
use crate::nest::{Nest, Source};
use crate::node_id::NodeId;
use crate::ops::Op;
use std::collections::HashMap;

/// The counts of one layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LayerCount {
    /// `conv1` for a layer whose parameters are `conv1.weight` and `conv1.bias`.
    pub layer: String,
    /// Elements of its parameters.
    pub parameters: u64,
    /// Multiply-adds of its convolutions and matrix products for one sample. Terms that fall on padding
    /// count, as they do in the papers.
    pub multiply_adds: u64,
}

/// The layers that have parameters or multiply-adds, in order of their first node. Fails where a batch of one
/// does not fit the graph's own constants.
pub fn layers(graph: &Graph) -> Result<Vec<LayerCount>, GraphError> {
    let graph = graph.bind(1)?;
    let mut layers: Vec<LayerCount> = vec![];
    let mut places: HashMap<String, usize> = HashMap::new();
    for id in graph.ids() {
        let parameters = match graph.node(id).op {
            Op::Parameter(_) => graph.node(id).ty.elements() as u64,
            _ => 0,
        };
        let multiply_adds = multiply_adds(&graph, id);
        if parameters + multiply_adds == 0 {
            continue;
        }
        let name = layer_of(&graph, id);
        let place = *places.entry(name.to_string()).or_insert_with(|| {
            layers.push(LayerCount {
                layer: name.to_string(),
                parameters: 0,
                multiply_adds: 0,
            });
            layers.len() - 1
        });
        let layer = &mut layers[place];
        layer.parameters += parameters;
        layer.multiply_adds = layer.multiply_adds.saturating_add(multiply_adds);
    }
    Ok(layers)
}

/// The multiply-adds of a node of a bound graph: the points of its nests that sum products of two operands. At most
/// `u64::MAX`.
pub fn multiply_adds(graph: &Graph, id: NodeId) -> u64 {
    let node = graph.node(id);
    let nests = node.op.semantics(&graph.operand_types(id), &node.ty);
    let contractions = nests.iter().filter(|nest| {
        nest.contraction()
            .is_some_and(|(a, b)| match (nest.reads[a].source, nest.reads[b].source) {
                (Source::Operand(a), Source::Operand(b)) => a != b,
                _ => false,
            })
    });
    let points = |nest: &Nest| {
        nest.extents()
            .iter()
            .fold(1, |points: u64, &n| points.saturating_mul(n as u64))
    };
    contractions.fold(0, |sum, nest| sum.saturating_add(points(nest)))
}

/// A layer is named by its parameters, so a node belongs to the layer of the first parameter that it reads.
fn layer_of(graph: &Graph, id: NodeId) -> &str {
    let parameter = graph
        .operands(id)
        .into_iter()
        .find(|&o| matches!(graph.node(o).op, Op::Parameter(_)));
    let name = &graph.node(parameter.unwrap_or(id)).name;
    name.split_once('.').map_or(name, |parts| parts.0)
}
