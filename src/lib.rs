//! The `alexc` command: joins the crates and owns no logic of theirs.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`model_args`] | the command line |
//! | [`compile`] | a model's text to an artifact |
//! | [`cache`] | artifacts of earlier compilations, found again |
//! | [`compile_times`] | where its time goes |
//! | [`cases`] | the conformance cases that it takes along |
//! | [`show`], [`draw`] | what `--emit` prints and draws |
//! | [`explain`] | what was chosen, why, and what else it could have been |
//! | [`costs`], [`kernel_times`], [`tune`] | what launches cost, computed and measured |
//! | [`peak`], [`calibrate`], [`gpu_peak`] | a machine's limits, measured; a profile of them; an artifact that measures a GPU's |

pub mod cache;
pub mod calibrate;
pub mod cases;
pub mod cli;
pub mod compile;
pub mod compile_times;
pub mod costs;
pub mod draw;
pub mod explain;
pub mod gpu_peak;
pub mod kernel_times;
pub mod model_args;
pub mod peak;
pub mod show;
pub mod tune;
