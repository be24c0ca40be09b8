//! The `alexc` command: joins the crates and owns no logic of theirs.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`model_args`] | the command line |
//! | [`compile`] | a model's text to an artifact |
//! | [`cases`] | the conformance cases that it takes along |
//! | [`show`] | what `--emit` prints |
//! | [`peak`], [`gpu_peak`] | a machine's limits, measured; an artifact that measures a GPU's |

pub mod cases;
pub mod cli;
pub mod compile;
pub mod gpu_peak;
pub mod model_args;
pub mod peak;
pub mod show;
