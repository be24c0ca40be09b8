//! What can go wrong in a pass, with the pass and the node it blames.

use ir::graph::GraphError;

/// Why compilation stopped between the graph and the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// The graph is not what the pass can work on.
    #[error("{pass}: {node}: {fault}")]
    Node {
        /// The pass.
        pass: &'static str,
        /// The node at fault.
        node: String,
        /// What is wrong with it and what to do.
        fault: String,
    },
    /// A node could not be added.
    #[error("{pass}: {error}")]
    Graph {
        /// The pass.
        pass: &'static str,
        /// What the builder said.
        error: Box<GraphError>,
    },
    /// A pass of ours broke an invariant.
    #[error("after the pass {pass}: {}. This is a fault of the compiler; please report it", faults.join("; "))]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What the verifier found, each fault with its node or kernel.
        faults: Vec<String>,
    },
}

impl PassError {
    /// Names the pass that met a graph error.
    pub fn graph(pass: &'static str) -> impl Fn(GraphError) -> PassError {
        move |error| PassError::Graph {
            pass,
            error: Box::new(error),
        }
    }
}
