//! Graph to e-graph and back.

use super::language::{ClassData, Node, TensorAnalysis, TensorEGraph, add_op, attributes, value_name};
use egg::Id;
use ir::graph::GraphError;
use ir::{Builder, Graph, NodeId};
use std::collections::HashMap;

/// An e-graph with the class of every node that it was made from.
pub struct Built {
    /// The e-graph.
    pub egraph: TensorEGraph,
    /// The class of each node, by the node's position; find them again after unions.
    pub classes: Vec<Id>,
}

/// The e-graph of a bound graph: a class a value, equal nodes in one.
pub fn from_graph(graph: &Graph) -> Built {
    let mut egraph = TensorEGraph::new(TensorAnalysis::default());
    let mut classes: Vec<Id> = vec![];
    for id in graph.ids() {
        let node = graph.node(id);
        let class = if node.op.is_leaf() {
            let name = egg::Symbol::from(&node.name[..]);
            egraph.analysis.leaves.insert(name, node.ty.clone());
            egraph.add(Node::Leaf(name))
        } else {
            let operands: Vec<Id> = graph.operands(id).iter().map(|o| classes[o.index()]).collect();
            add_op(&mut egraph, &node.op, &operands)
        };
        if value_name(&egraph, class).is_none() {
            let data = ClassData::Value(node.ty.clone(), Some(node.name.clone()));
            egraph.set_analysis_data(class, data);
        }
        classes.push(class);
    }
    egraph.rebuild();
    Built { egraph, classes }
}

impl Built {
    /// A graph of operations again, with the interface of the one it was made from: of every class the smallest
    /// expression. Where no rule fired that is the graph itself, without what no output needs.
    pub fn to_graph(&self, graph: &Graph) -> Result<Graph, GraphError> {
        let sizes = self.sizes();
        let mut made = Making {
            built: self,
            sizes,
            builder: Builder::new(graph.name()),
            nodes: HashMap::new(),
        };
        // Leaves are the interface, used or not.
        for id in graph.ids().filter(|&id| graph.node(id).op.is_leaf()) {
            let node = graph.node(id);
            let leaf = made.builder.add(&node.name, node.op.clone(), &[])?;
            made.nodes
                .insert(self.egraph.find(self.classes[id.index()]), leaf);
        }
        for (name, id) in graph.outputs() {
            let node = made.node(self.classes[id.index()])?;
            made.builder.output(name, node)?;
        }
        for (state, next) in graph.updates() {
            let state = made.node(self.classes[state.index()])?;
            let next = made.node(self.classes[next.index()])?;
            made.builder.update(state, next)?;
        }
        Ok(made.builder.finish())
    }

    /// The operations in the smallest expression of every class, each counted where it is used.
    fn sizes(&self) -> HashMap<Id, u64> {
        let mut sizes: HashMap<Id, u64> = HashMap::new();
        loop {
            let mut changed = false;
            for class in self.egraph.classes() {
                let known = sizes.get(&class.id).copied().unwrap_or(u64::MAX);
                let least = class
                    .nodes
                    .iter()
                    .filter_map(|node| self.size(node, &sizes))
                    .min();
                if let Some(least) = least.filter(|&least| least < known) {
                    sizes.insert(class.id, least);
                    changed = true;
                }
            }
            if !changed {
                return sizes;
            }
        }
    }

    fn size(&self, node: &Node, sizes: &HashMap<Id, u64>) -> Option<u64> {
        let of = |id: &Id| sizes.get(&self.egraph.find(*id)).copied();
        match node {
            Node::Leaf(_) | Node::Attributes(_) => Some(0),
            Node::Apply(_, children) => {
                let all: Option<Vec<u64>> = children.iter().map(of).collect();
                Some(all?.iter().fold(1, |sum: u64, &n| sum.saturating_add(n)))
            }
            _ => None,
        }
    }
}

struct Making<'a> {
    built: &'a Built,
    sizes: HashMap<Id, u64>,
    builder: Builder,
    nodes: HashMap<Id, NodeId>,
}

impl Making<'_> {
    fn node(&mut self, class: Id) -> Result<NodeId, GraphError> {
        let egraph = &self.built.egraph;
        let class = egraph.find(class);
        if let Some(&node) = self.nodes.get(&class) {
            return Ok(node);
        }
        let best = egraph[class]
            .nodes
            .iter()
            .filter_map(|node| Some((self.built.size(node, &self.sizes)?, node)))
            .min_by_key(|(size, _)| *size);
        let (_, best) = best.expect("every class of values began with an operation");
        let Node::Apply(_, children) = best else {
            unreachable!("leaves are made before anything else")
        };
        let op = attributes(egraph, children[0]).clone();
        let name = value_name(egraph, class).map(str::to_string);
        let operands = children[1..]
            .iter()
            .map(|&child| self.node(child))
            .collect::<Result<Vec<_>, _>>()?;
        let node = match name {
            Some(name) => self.builder.add(&name, op, &operands)?,
            None => self.builder.add_fresh(op.mnemonic(), op.clone(), &operands)?,
        };
        self.nodes.insert(class, node);
        Ok(node)
    }
}
