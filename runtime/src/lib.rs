//! Loads an artifact and runs it: devices, executor, training driver and data; `alexrun`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`artifact`] | the `.alx` file: programs, texts, conformance cases; the loader trusts nothing |
//! | [`device`] | the `Device` trait and the devices; all `unsafe` of this crate |
//! | [`executor`] | walks a plan: tensors in by name, launches, tensors out; [`queues`] on several devices, [`parts`] of tensors |
//! | [`weights`] | parameters in safetensors files, and how they start |
//! | [`mod@run`], [`mod@bench`] | one run, warm timing |
//! | [`mod@check`], [`kernel_check`], [`comparison`] | conformance cases of programs and of single kernels |
//! | [`mod@train`], [`mod@eval`], [`mod@predict`] | the training driver, error rates, classes of single images |
//! | [`feed`] | where training and evaluation get images from |
//! | [`recipe`], [`schedule`] | how a model is trained |
//! | [`checkpoint`], [`preprocess_state`], [`metrics`] | what a run folder holds |
//! | [`interface`], [`scores`] | which tensors of a plan are images and logits; error rates |
//! | [`tensor`], [`tensor_file`], [`files`] | tensors on the host, in safetensors files; files written whole or not at all |
//! | [`cli`] | the commands that `alexc` and `alexrun` share |
//! | [`console`], [`interrupt`] | progress bars, messages, Ctrl-C |
//!
//! This crate sees plans, never graphs, and needs neither LLVM nor CUDA.

#![deny(unsafe_code)]

pub mod artifact;
pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod comparison;
pub mod console;
pub mod data;
#[allow(unsafe_code)]
pub mod device;
pub mod error;
pub mod eval;
pub mod executor;
pub mod feed;
pub mod files;
pub mod interface;
pub mod interrupt;
pub mod kernel_check;
pub mod metrics;
pub mod parts;
pub mod predict;
pub mod preprocess_state;
pub mod queues;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod scores;
pub mod tensor;
pub mod tensor_file;
pub mod train;
pub mod weights;

pub use artifact::{Artifact, Case, Compiled, HostObject, Ptx};
pub use device::DeviceSpec;
pub use error::Error;
pub use executor::Executor;
pub use tensor::{Data, Tensor};
pub use tensor_file::TensorFile;
