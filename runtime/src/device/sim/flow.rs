//! The points where threads that took different paths at a branch reconverge.
//!
//! After a branch that only some threads take, both paths execute one after the other up to the branch's immediate
//! post-dominator, the first instruction that every path passes.

use super::code::{Code, Step};
use petgraph::algo::dominators::simple_fast;
use petgraph::graph::{DiGraph, NodeIndex};

/// The reconvergence point of every branch, by step; the number of steps if there is none before the end.
pub fn meetings(steps: &[Step]) -> Vec<u32> {
    let end = steps.len();
    // Edges are turned round, so that dominators from the end are post-dominators.
    let mut graph = DiGraph::<(), ()>::with_capacity(end + 1, end + 1);
    let nodes: Vec<NodeIndex> = (0..=end).map(|_| graph.add_node(())).collect();
    for (i, step) in steps.iter().enumerate() {
        let next = i + 1;
        match step.code {
            Code::Branch { to } => {
                graph.add_edge(nodes[to], nodes[i], ());
                if step.guard.is_some() {
                    graph.add_edge(nodes[next], nodes[i], ());
                }
            }
            Code::Exit | Code::Trap => {
                graph.add_edge(nodes[end], nodes[i], ());
                if step.guard.is_some() {
                    graph.add_edge(nodes[next], nodes[i], ());
                }
            }
            _ => {
                graph.add_edge(nodes[next], nodes[i], ());
            }
        }
    }
    let dominators = simple_fast(&graph, nodes[end]);
    (0..end)
        .map(|i| {
            dominators
                .immediate_dominator(nodes[i])
                .map_or(end, NodeIndex::index) as u32
        })
        .collect()
}
