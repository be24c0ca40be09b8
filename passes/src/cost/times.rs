//! Measured times of kernels. They win over computed ones, because a schedule that looks good on paper may not be.

use super::Candidate;
use ir::profile::Precision;
use ir::program::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The times of kernels on one device, as one version of the compiler makes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTimes {
    known: BTreeMap<String, MeasuredTime>,
}

/// What a kernel was measured to take.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTime {
    /// Microseconds, with its start.
    pub us: f64,
    /// What it computes, for people.
    pub label: String,
}

impl KernelTimes {
    /// Times by their keys.
    pub fn new(known: BTreeMap<String, MeasuredTime>) -> KernelTimes {
        KernelTimes { known }
    }

    /// All times by their keys.
    pub fn all(&self) -> &BTreeMap<String, MeasuredTime> {
        &self.known
    }

    /// Adds a time; the one that was known is replaced.
    pub fn insert(&mut self, key: String, time: MeasuredTime) {
        self.known.insert(key, time);
    }

    /// The time of a kernel in microseconds, if it is known.
    pub fn find(&self, candidate: &Candidate, precision: Precision) -> Option<f64> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&key(candidate, precision)).map(|time| time.us)
    }
}

/// What tells kernels apart: a hash of the nest, of type, extents and layout of every operand and result, and of the
/// precision. Names do not count, so equal layers share one time.
pub fn key(candidate: &Candidate, precision: Precision) -> String {
    let stored = |value: &&Value| format!("{} {:?} {:?}", value.dtype, value.extents, value.layout);
    let operands: Vec<String> = candidate.operands.iter().map(stored).collect();
    let results: Vec<String> = candidate.results.iter().map(stored).collect();
    let precision = match candidate.nest.contraction() {
        Some(_) => precision.name(),
        None => Precision::F32.name(),
    };
    let text = format!(
        "{:?}\n{operands:?}\n{results:?}\n{}\n{precision}",
        candidate.nest, candidate.in_place
    );
    let digest = Sha256::digest(text.as_bytes());
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
