//! Every generated kernel against the interpreter: the same text, compiled and interpreted, on fresh numbers.
//!
//! `PROPTEST_CASES` sets how many random cases each property tries (the default is chosen so that all of them take
//! a few minutes). A failure prints the shrunk `.ir` and the seed of its numbers.

mod examples;
mod harness;
mod layouts;
mod nets;
mod ops;
mod scalars;
mod slide;
mod sums;
mod winograd;
