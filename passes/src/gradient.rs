//! Reverse mode: from a scalar back to the values that it should be differentiated by.
//!
//! Each operation tells the gradients of its operands; what is left to do here is the chain rule over the
//! graph. Only nodes on a way from a wanted value to the scalar are visited, and a value with several users
//! gets the sum of what they contribute.

use crate::error::PassError;
use ir::ops::Add;
use ir::ops::operation::GradientContext;
use ir::{Builder, NodeId};

/// Adds the gradients of `result` with respect to `wanted` to the graph, given `seed`, the gradient of
/// whatever is differentiated with respect to `result` itself (1 for the loss).
///
/// Fails where a wanted value does not influence the result, or an operation on the way has no gradient.
pub fn gradients(
    builder: &mut Builder,
    result: NodeId,
    seed: NodeId,
    wanted: &[NodeId],
) -> Result<Vec<NodeId>, PassError> {
    let nodes: Vec<NodeId> = builder.graph().ids().take(result.index() + 1).collect();
    let mut on_way = vec![false; nodes.len()];
    for &id in &nodes {
        let operands = builder.graph().operands(id);
        on_way[id.index()] = wanted.contains(&id) || operands.iter().any(|o| on_way[o.index()]);
    }

    let mut gradient: Vec<Option<NodeId>> = vec![None; nodes.len()];
    gradient[result.index()] = Some(seed);
    for &id in nodes.iter().rev() {
        let (Some(upstream), true) = (gradient[id.index()], on_way[id.index()]) else {
            continue;
        };
        if builder.node(id).op.is_leaf() {
            continue;
        }
        let operands = builder.graph().operands(id);
        let flags: Vec<bool> = operands.iter().map(|o| on_way[o.index()]).collect();
        let op = builder.node(id).op.clone();
        op.differentiable().map_err(|error| {
            let fault = format!("no gradient of {}: {error}", op.mnemonic());
            fault_at(builder, id, fault)
        })?;
        let contributions = op.gradient(&mut GradientContext {
            builder: &mut *builder,
            operands: operands.clone(),
            result: id,
            upstream,
            wanted: flags.clone(),
        });
        for (i, operand) in operands.into_iter().enumerate().filter(|(i, _)| flags[*i]) {
            let Some(contribution) = contributions.get(i).copied().flatten() else {
                let fault = format!(
                    "{} has no gradient with respect to operand {i}, {}; train a network without it there",
                    op.mnemonic(),
                    builder.node(operand).name
                );
                return Err(fault_at(builder, id, fault));
            };
            let sum = &mut gradient[operand.index()];
            *sum = Some(match *sum {
                None => contribution,
                Some(before) => {
                    let name = format!("{}.grad", builder.node(operand).name);
                    builder
                        .add_fresh(&name, Add, &[before, contribution])
                        .map_err(PassError::graph("gradient"))?
                }
            });
        }
    }
    let of = |&id: &NodeId| {
        gradient.get(id.index()).copied().flatten().ok_or_else(|| {
            let fault = format!(
                "does not influence {}; remove it or use it",
                builder.node(result).name
            );
            fault_at(builder, id, fault)
        })
    };
    wanted.iter().map(of).collect()
}

fn fault_at(builder: &Builder, id: NodeId, fault: String) -> PassError {
    PassError::Node {
        pass: "gradient",
        node: builder.node(id).name.clone(),
        fault,
    }
}
