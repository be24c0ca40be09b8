//! Faults of kernels.

use crate::Error;

/// A fault of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The thread in its block.
    pub thread: usize,
    /// The fault, as text.
    pub what: String,
}

impl Fault {
    /// A fault of a thread.
    pub fn new(thread: usize, what: impl Into<String>) -> Fault {
        Fault {
            thread,
            what: what.into(),
        }
    }
}

/// Where a fault happened.
#[derive(Clone, Debug)]
pub struct FaultLocation<'p> {
    /// The names of the nodes that are computed.
    pub label: &'p str,
    /// The kernel.
    pub kernel: &'p str,
    /// The instruction.
    pub instruction: &'p str,
    /// Its line in the PTX.
    pub line: usize,
    /// The block.
    pub block: u64,
}

impl FaultLocation<'_> {
    /// The report of a fault.
    pub fn report(&self, fault: &Fault) -> Error {
        let FaultLocation {
            label,
            kernel,
            instruction,
            line,
            block,
        } = self;
        Error::work(format!(
            "{label}: kernel {kernel}, line {line} of its PTX, `{instruction}`, block {block}, thread {}: {}. This is a bug \
             of alexc; please report the model file",
            fault.thread, fault.what
        ))
    }
}
