//! The dataflow graph: read-only once built.
//!
//! A [`Builder`] adds nodes after their operands, so a graph is acyclic by construction; names are unique.
//! A pass reads one graph and builds another. The edges live in petgraph, operand order on the edges.

use crate::node_id::NodeId;
use crate::op::{MAX_ELEMENTS, OpError};
use crate::ops::Op;
use crate::ops::operation::GradientBuilder;
use crate::types::Type;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::HashMap;

/// An operation applied to the nodes that feed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in its graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The type of its result.
    pub ty: Type,
}

/// A named dataflow graph with outputs and parameter updates.
#[derive(Clone, Debug)]
pub struct Graph {
    name: String,
    nodes: DiGraph<Node, usize, u32>,
    names: HashMap<String, NodeId>,
    outputs: Vec<(String, NodeId)>,
    updates: Vec<(NodeId, NodeId)>,
}

impl Graph {
    /// The name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All nodes, operands before their users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<> {
        (0..self.nodes.node_count()).map(|i| NodeId(NodeIndex::new(i)))
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(usize, NodeId)> = self
            .nodes
            .edges_directed(id.0, petgraph::Direction::Incoming)
            .map(|edge| (*edge.weight(), NodeId(edge.source())))
            .collect();
        edges.sort();
        edges.into_iter().map(|e| e.1).collect()
    }

    /// The types of the operands of a node.
    pub fn operand_types(&self, id: NodeId) -> Vec<&Type> {
        self.operands(id).into_iter().map(|o| &self.node(o).ty).collect()
    }

    /// The nodes that use a node's result, each once, in order.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> = self.nodes.neighbors(id.0).map(NodeId).collect();
        users.sort();
        users.dedup();
        users
    }

    /// The named results of the graph.
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// `(parameter or state, its next value)`: what a training step writes back.
    pub fn updates(&self) -> &[(NodeId, NodeId)] {
        &self.updates
    }

    /// The nodes whose operation satisfies a test, in order.
    pub fn select(&self, test: impl Fn(&Op) -> bool) -> Vec<NodeId> {
        self.ids().filter(|&id| test(&self.node(id).op)).collect()
    }

    /// The petgraph view, for algorithms that petgraph has.
    pub fn as_petgraph(&self) -> &DiGraph<Node, usize, u32> {
        &self.nodes
    }

    /// The graph with the symbolic batch replaced by a number: every shape rule is applied anew.
    pub fn bind(&self, batch: usize) -> Result<Graph, GraphError> {
        let mut builder = Builder::new(&self.name);
        let mut map = Vec::new();
        for id in self.ids() {
            let operands: Vec<NodeId> = self
                .operands(id)
                .into_iter()
                .map(|o: NodeId| map[o.index()])
                .collect();
            let node = self.node(id);
            map.push(builder.add(&node.name, node.op.bind(batch), &operands)?);
        }
        for (name, id) in &self.outputs {
            builder.output(name, map[id.index()])?;
        }
        for (state, next) in &self.updates {
            builder.update(map[state.index()], map[next.index()])?;
        }
        Ok(builder.finish())
    }
}

impl PartialEq for Graph {
    /// Equal text: names, operations, operands, outputs and updates, in the same order.
    fn eq(&self, other: &Graph) -> bool {
        self.name == other.name
            && self.outputs == other.outputs
            && self.updates == other.updates
            && self.len() == other.len()
            && self
                .ids()
                .all(|id| self.node(id) == other.node(id) && self.operands(id) == other.operands(id))
    }
}

/// Why a node could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The operation refuses its operands.
    #[error("{name}: {error}")]
    Op {
        /// The node.
        name: String,
        /// What the operation said.
        error: OpError,
    },
    /// A name is taken.
    #[error("the name {0} is defined twice; give the second value another name")]
    Duplicate(String),
    /// A result is too large to address.
    #[error("{0}: a result of type {1} has more than 2^40 elements; use smaller extents")]
    TooLarge(String, Type),
    /// An update whose types differ, or whose target is no parameter.
    #[error("update of {0}: {1}; an update's target is a parameter, and its next value has the same type")]
    Update(String, String),
}

/// Builds a graph, operands first.
#[derive(Clone, Debug)]
pub struct Builder {
    graph: Graph,
}

impl Builder {
    /// An empty graph.
    pub fn new(name: &str) -> Builder {
        Builder {
            graph: Graph {
                name: name.to_string(),
                nodes: DiGraph::default(),
                names: HashMap::new(),
                outputs: vec![],
                updates: vec![],
            },
        }
    }

    /// Continues an existing graph, without its outputs and updates.
    pub fn extend(graph: &Graph) -> Builder {
        let mut graph = graph.clone();
        graph.outputs.clear();
        graph.updates.clear();
        Builder { graph }
    }

    /// What has been built so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A node added before.
    pub fn node(&self, id: NodeId) -> &Node {
        self.graph.node(id)
    }

    /// Adds a node; its type follows from its operation.
    pub fn add(&mut self, name: &str, op: impl Into<Op>, operands: &[NodeId]) -> Result<NodeId, GraphError> {
        let op = op.into();
        if self.graph.names.contains_key(name) {
            return Err(GraphError::Duplicate(name.to_string()));
        }
        let types: Vec<&Type> = operands.iter().map(|&o| &self.node(o).ty).collect();
        let ty = op.infer_type(&types).map_err(|error| GraphError::Op {
            name: name.to_string(),
            error,
        })?;
        let extents = ty.shape.iter().map(|d| d.fixed().unwrap_or(1) as u128);
        let elements = extents.fold(1, u128::saturating_mul);
        if elements > MAX_ELEMENTS {
            return Err(GraphError::TooLarge(name.to_string(), ty));
        }
        let id = NodeId(self.graph.nodes.add_node(Node {
            name: name.to_string(),
            op,
            ty,
        }));
        for (i, operand) in operands.iter().enumerate() {
            self.graph.nodes.add_edge(operand.0, id.0, i);
        }
        self.graph.names.insert(name.to_string(), id);
        Ok(id)
    }

    /// Adds a node under this name, or the first free `name.2`, `name.3`, ...
    pub fn add_fresh(
        &mut self,
        name: &str,
        op: impl Into<Op>,
        operands: &[NodeId],
    ) -> Result<NodeId, GraphError> {
        let mut fresh = name.to_string();
        let mut count = 1;
        while self.graph.names.contains_key(&fresh) {
            count += 1;
            fresh = format!("{name}.{count}");
        }
        self.add(&fresh, op, operands)
    }

    /// Declares a named result.
    pub fn output(&mut self, name: &str, id: NodeId) -> Result<(), GraphError> {
        if self.graph.outputs.iter().any(|o| o.0 == name) {
            return Err(GraphError::Duplicate(name.to_string()));
        }
        self.graph.outputs.push((name.to_string(), id));
        Ok(())
    }

    /// Declares that a step replaces the parameter `state` by `next`.
    pub fn update(&mut self, state: NodeId, next: NodeId) -> Result<(), GraphError> {
        let (target, value) = (self.node(state), self.node(next));
        let fault = if !matches!(target.op, Op::Parameter(_)) {
            format!("the target's operation is {}", target.op.mnemonic())
        } else if target.ty != value.ty {
            format!("the types {} and {} differ", target.ty, value.ty)
        } else if self.graph.updates.iter().any(|u| u.0 == state) {
            "it is updated twice".to_string()
        } else {
            self.graph.updates.push((state, next));
            return Ok(());
        };
        Err(GraphError::Update(target.name.clone(), fault))
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }
}

impl GradientBuilder for Builder {
    fn add_derived(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        self.add_fresh(name, op, operands)
            .expect("a derived gradient fits its operands")
    }

    fn name(&self, id: NodeId) -> &str {
        &self.node(id).name
    }

    fn result_type(&self, id: NodeId) -> &Type {
        &self.node(id).ty
    }
}
