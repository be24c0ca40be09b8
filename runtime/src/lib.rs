//! Loads an artifact and runs it: devices, executor, training driver and data; `alexrun`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`artifact`] | the `.alx` file: programs, texts, conformance cases; the loader trusts nothing |
//! | [`device`] | the `Device` trait and the devices; all `unsafe` of this crate |
//! | [`executor`] | walks a plan: tensors in by name, launches, tensors out |
//! | [`weights`] | parameters in safetensors files, and how they start |
//! | [`tensor`], [`tensor_file`] | tensors on the host and in safetensors files |
//! | [`files`] | files written whole or not at all |
//!
//! This crate sees plans, never graphs, and needs neither LLVM nor CUDA.

#![deny(unsafe_code)]

pub mod artifact;
pub mod checkpoint;
#[allow(unsafe_code)]
pub mod device;
pub mod error;
pub mod executor;
pub mod files;
pub mod metrics;
pub mod recipe;
pub mod schedule;
pub mod tensor;
pub mod tensor_file;
pub mod weights;

pub use artifact::{Artifact, Case, Compiled, HostObject};
pub use device::DeviceSpec;
pub use error::Error;
pub use executor::Executor;
pub use tensor::{Data, Tensor};
pub use tensor_file::TensorFile;
