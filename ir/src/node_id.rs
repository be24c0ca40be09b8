//! The id of a node, apart from the graph: operations name nodes, and a graph holds operations.

use petgraph::graph::NodeIndex;

/// A node of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) NodeIndex<u32>);

impl NodeId {
    /// The position of the node in [`crate::Graph::ids`].
    pub fn index(self) -> usize {
        self.0.index()
    }
}
