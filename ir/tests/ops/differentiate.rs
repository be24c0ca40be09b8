//! The chain rule over a graph, and the derivative by small steps that it is compared with.

use ir::graph::Builder;
use ir::interpreter::{Tensor, evaluate};
use ir::ops::Add;
use ir::ops::operation::GradientContext;
use ir::{Graph, NodeId};
use std::collections::HashMap;

/// Adds the gradients of `Σ upstream·y` with respect to every node before y that has one.
pub fn backward(builder: &mut Builder, y: NodeId, upstream: NodeId) -> HashMap<NodeId, NodeId> {
    let mut gradients = HashMap::from([(y, upstream)]);
    let nodes: Vec<NodeId> = builder.graph().ids().filter(|id| *id <= y).collect();
    for &id in nodes.iter().rev() {
        let Some(&upstream) = gradients.get(&id) else {
            continue;
        };
        let operands = builder.graph().operands(id);
        let op = builder.node(id).op.clone();
        let contributions = op.gradient(&mut GradientContext {
            builder: &mut *builder,
            wanted: vec![true; operands.len()],
            operands: operands.clone(),
            result: id,
            upstream,
        });
        for (operand, contribution) in operands.into_iter().zip(contributions) {
            let Some(contribution) = contribution else {
                continue;
            };
            let sum = match gradients.get(&operand) {
                None => contribution,
                Some(&before) => builder
                    .add_fresh("sum", Add, &[before, contribution])
                    .expect("gradients of one value have its type"),
            };
            gradients.insert(operand, sum);
        }
    }
    gradients
}

/// The derivative of `Σ upstream·y` by each element of the input `name`, by central differences.
pub fn central_differences(
    graph: &Graph,
    inputs: &HashMap<String, Tensor>,
    upstream: &Tensor,
    name: &str,
) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut inputs = inputs.clone();
    let loss = |inputs: &HashMap<String, Tensor>| -> f64 {
        let values = evaluate(graph, inputs).unwrap_or_else(|error| panic!("{error}"));
        let y = values.output(graph, "y").expect("the graph has the output y");
        y.data.iter().zip(&upstream.data).map(|(y, dy)| y * dy).sum()
    };
    (0..inputs[name].data.len())
        .map(|i| {
            let x = inputs[name].data[i];
            let mut at = |x: f64| {
                inputs.get_mut(name).expect("the input has values").data[i] = x;
                loss(&inputs)
            };
            let difference = at(x + STEP) - at(x - STEP);
            at(x);
            difference / (2.0 * STEP)
        })
        .collect()
}
