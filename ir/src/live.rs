//! When values of a program must keep their bytes.

use crate::plan::Role;
use crate::program::{Program, Value, ValueId};

/// Kernels between which a value must keep its bytes, first and last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveRange {
    /// The value that owns the bytes.
    pub value: ValueId,
    /// Bytes, a multiple of 64.
    pub bytes: u64,
    /// The kernel that writes it first.
    pub first: usize,
    /// The last kernel that reads or writes it.
    pub last: usize,
}

impl LiveRange {
    /// Whether both are alive during some kernel.
    pub fn overlaps(&self, other: &LiveRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether it is alive during a kernel.
    pub fn at(&self, k: usize) -> bool {
        self.first <= k && k <= self.last
    }
}

/// Bytes that a value takes while it is alive: nothing for those outside of the arena.
pub fn arena_bytes_of(value: &Value) -> u64 {
    if !matches!(value.role, Role::Temporary) || value.alias.is_some() {
        return 0;
    }
    value.bytes().next_multiple_of(64)
}

/// When each value of the arena is alive, in the order of values. Values that no kernel touches are left out. What a
/// micro-batch loop of kernels shares with others is alive through all of the micro-batch loop, whose micro-batches come back to it.
pub fn liveness(program: &Program) -> Vec<LiveRange> {
    let mut live: Vec<Option<LiveRange>> = vec![None; program.values.len()];
    for (k, kernel) in program.kernels.iter().enumerate() {
        for &touched in kernel.operands.iter().chain(&kernel.results) {
            let value = program.owner(touched);
            let bytes = arena_bytes_of(program.value(value));
            if program.value(value).role == Role::Temporary {
                live[value.0]
                    .get_or_insert(LiveRange {
                        value,
                        bytes,
                        first: k,
                        last: k,
                    })
                    .last = k;
            }
        }
    }
    let mut live: Vec<LiveRange> = live.into_iter().flatten().collect();
    let mut first = 0;
    for sequence in program.kernel_sequences() {
        let last = first + sequence.len() - 1;
        // A single kernel holds nothing longer than it is used.
        let held = if sequence.len() > 1 {
            &mut live[..]
        } else {
            &mut []
        };
        for live in held {
            let within = |k: usize| (first..=last).contains(&k);
            if within(live.last) && live.first < first {
                live.last = last;
            } else if within(live.first) && live.last > last {
                live.first = first;
            }
        }
        first = last + 1;
    }
    live
}
