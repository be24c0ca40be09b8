//! The `alexc` command: joins the crates and owns no logic of theirs.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`compile`] | a model's text to an artifact |
//! | [`show`] | what `--emit` prints |
//! | [`peak`] | the machine's limits, measured |

pub mod cli;
pub mod compile;
pub mod peak;
pub mod show;
