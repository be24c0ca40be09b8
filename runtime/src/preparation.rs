//! How the images of a run were prepared and what its classes are called. It travels in checkpoints, so that
//! `eval` and `predict` treat images as training did: subtracting another mean gives wrong classes, not an error.

use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Begins the names of a checkpoint's tensors that belong to the preparation.
pub const PREPARATION_PREFIX: &str = "preparation/";

/// How images were prepared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// The classes' names, in the order of their labels; empty when they have none.
    pub classes: Vec<String>,
    /// The loader's settings, in its own form.
    pub settings: Value,
    /// The loader's statistics, as the mean image.
    #[serde(skip)]
    pub tensors: BTreeMap<String, Tensor>,
}

impl Preparation {
    /// The name of a class, or its number.
    pub fn class_name(&self, class: usize) -> String {
        self.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    }
}
