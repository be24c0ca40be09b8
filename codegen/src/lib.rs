//! Placed graph to kernels.
pub mod bridge;
