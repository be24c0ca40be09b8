//! What selections that can run keep, and solutions of the integer program may not: the rows that rounds of solving add.

use super::ClassValueId;
use std::collections::BTreeMap;

/// Costs are handed to the solver in such units that a part of the greedy selection costs this much: its tolerances are
/// absolute.
pub(super) const SCALE: f64 = 1e3;

/// A kernel stores a value that another reads.
pub(super) type Step = (usize, ClassValueId, usize);

/// What a selection that can run keeps, and a solution did not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cut {
    /// Kernels that store a value with those that read it, the last for the first: not all of them do.
    Circle(Vec<Step>),
    /// `made` comes before `read` in every way of making that: a kernel that computes the one and reads the other takes
    /// another kernel that computes the first.
    Before {
        kernel: usize,
        op: usize,
        made: ClassValueId,
        read: ClassValueId,
    },
}

impl Cut {
    /// The kernels it speaks of.
    pub fn kernels(&self) -> Vec<usize> {
        match self {
            Cut::Circle(steps) => steps.iter().flat_map(|step| [step.0, step.2]).collect(),
            Cut::Before { kernel, .. } => vec![*kernel],
        }
    }

    /// Adds the cut to a part's signature, if it speaks of that part only.
    pub fn number(
        &self,
        kernels: &BTreeMap<usize, u64>,
        values: &BTreeMap<ClassValueId, u64>,
        text: &mut Vec<u64>,
    ) {
        if !self.kernels().iter().all(|k| kernels.contains_key(k)) {
            return;
        }
        match self {
            Cut::Circle(steps) => {
                text.extend([u64::MAX - 1, steps.len() as u64]);
                text.extend(
                    steps
                        .iter()
                        .flat_map(|(j, v, k)| [kernels[j], values[v], kernels[k]]),
                );
            }
            Cut::Before {
                kernel,
                op,
                made,
                read,
            } => text.extend([
                u64::MAX - 2,
                kernels[kernel],
                *op as u64,
                values[made],
                values[read],
            ]),
        }
    }
}
