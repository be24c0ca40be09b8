//! The result of a conformance case, of a whole program or of a single kernel.

use serde::Serialize;

/// The result of one tensor of a case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The case.
    pub case: String,
    /// The tensor.
    pub tensor: String,
    /// The largest difference, relative to the largest magnitude expected; infinite if a value is not finite.
    pub error: f64,
    /// The allowed difference.
    pub tolerance: f64,
    /// Whether the difference is allowed.
    pub passed: bool,
}
