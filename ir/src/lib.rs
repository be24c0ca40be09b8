//! What a program is.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | element types, dimensions (with the symbolic batch `N`), tensor types |
//! | [`ops`] | every operation, one file each: attributes, shape rule, meaning, gradient, example |
//! | [`nest`] | the form in which an operation states its meaning: loops, index maps, a scalar body |
//! | [`graph`] | the read-only dataflow graph and its builder |
//! | [`text`] | the text format: parser, printer, diagnostics with places |
//! | [`interpreter`] | the reference meaning, in f64, of graphs and nests |
//! | [`verify`] | what every pass must leave intact |
//! | [`count`] | parameters and multiply-adds, layer by layer |
//! | [`layout`] | where the elements of a tensor lie in memory |
//! | [`profile`] | what a device can do at the most |
//! | [`program`] | a scheduled graph: kernels (nests) over stored values; [`program::text`] its text; [`live`] when values are needed |
//! | [`plan`] | what the runtime sees: buffers and launches, no graph; [`order`] what of it waits for what |
//!
//! This crate knows neither LLVM nor CUDA nor files.

pub mod count;
pub mod graph;
pub mod interpreter;
pub mod layout;
pub mod live;
pub mod nest;
pub mod node_id;
pub mod op;
pub mod ops;
pub mod order;
pub mod plan;
mod plan_check;
pub mod profile;
pub mod program;
pub mod text;
pub mod types;
pub mod verify;

pub use graph::{Builder, Graph, Node};
pub use node_id::NodeId;
pub use op::{Attribute, Attributes, OpError};
pub use ops::Op;
pub use ops::operation::Operation;
pub use types::{DType, Dim, Real, Shape, Type};
