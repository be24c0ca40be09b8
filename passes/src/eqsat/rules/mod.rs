//! The rules, as tables by subject.
//!
//! | subject | rewrites |
//! |---|---|
//! | [`algebra`] | operations into equal operations |
//! | [`kernels`] | operations into kernels, and kernels into fewer |
//!
//! To add a rule of algebra: a line in its table, with an example that a test runs and evaluates on random inputs. What is
//! always better belongs into `simplify` instead: here both sides stay, and the extraction chooses.

pub mod algebra;
pub mod kernels;
