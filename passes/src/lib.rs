//! Graph to graph: gradient, simplification, fusion, layout, schedule and memory
pub mod compose;
pub mod layout;
pub mod error;
pub mod substitute;
pub mod training;
pub mod lower;
pub mod schedule;
pub mod memory;
pub mod fuse;
