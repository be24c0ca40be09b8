//! Equality saturation: rules one by one, the round trip, extraction against exact answers, whole models.

#[path = "../common/mod.rs"]
mod common;

mod extraction;
mod graphs;
mod rules;
