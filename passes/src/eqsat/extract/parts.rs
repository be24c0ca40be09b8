//! A problem in parts that share no decision.
//!
//! A value that is in memory in every selection ([`ExtractionProblem::forced`]) ties nobody together but its makers: whoever reads it
//! can, and one of its makers stores it, whatever else is selected. Two kernels are in one part only if they can store the
//! same value, or if both make or read a value that need not be in memory.
//!
//! **Bound.** A selection, restricted to the kernels of a part, meets every condition of the part's program: a reader finds
//! values of its own part made there, and all others are forced. Its seconds are the sum over parts. So the sum of the parts'
//! bounds is a bound of the whole.

use super::bits::Bits;
use super::{ClassValueId, ExtractionProblem, Selection};
use std::collections::BTreeMap;

/// Kernels that are decided together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Their positions, in order.
    pub kernels: Vec<usize>,
}

/// The parts of the kernels that are useful.
pub fn parts(problem: &ExtractionProblem, forced: &Bits) -> Vec<Part> {
    let useful = problem.useful();
    let mut leaders: Vec<usize> = (0..problem.kernels.len()).collect();
    let mut made: BTreeMap<ClassValueId, usize> = BTreeMap::new();
    for &k in &useful {
        for op in &problem.kernels[k].ops {
            // What is computed anew where it is read stores nothing.
            let makes = op.makes.iter().copied();
            let makes = makes.filter(|&v| op.is_stored || !forced.contains(v));
            let reads = op.needs.iter().map(|need| need.value);
            let tied = makes.chain(reads.filter(|&v| !forced.contains(v)));
            for value in tied.filter(|v| !problem.given.contains(v)) {
                let other = *made.entry(value).or_insert(k);
                join(&mut leaders, other, k);
            }
        }
    }
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for k in useful {
        parts.entry(leader(&mut leaders, k)).or_default().kernels.push(k);
    }
    parts.into_values().collect()
}

fn leader(leaders: &mut [usize], mut k: usize) -> usize {
    while leaders[k] != k {
        leaders[k] = leaders[leaders[k]];
        k = leaders[k];
    }
    k
}

fn join(leaders: &mut [usize], a: usize, b: usize) {
    let (a, b) = (leader(leaders, a), leader(leaders, b));
    leaders[a.max(b)] = a.min(b);
}

impl Part {
    /// How many decisions there are: ops that may run, and values that they may read.
    pub fn decisions(&self, problem: &ExtractionProblem) -> usize {
        let ops = self.kernels.iter().flat_map(|&k| &problem.kernels[k].ops);
        ops.map(|m| 1 + m.needs.len()).sum()
    }

    /// The part of a selection.
    pub fn seconds(&self, problem: &ExtractionProblem, selection: &Selection) -> f64 {
        let taken = selection.taken.iter();
        let own = taken.filter(|taken| self.kernels.binary_search(&taken.kernel).is_ok());
        own.map(|taken| problem.seconds(taken)).sum()
    }

    /// A bound by counting, for parts too large to solve. All forced values of the part are stored. What all ways of making
    /// them need is computed, and a kernel computes no more values than its ops make. Each kernel is launched, stores a
    /// value and reads one.
    pub fn counted_bound(&self, problem: &ExtractionProblem, forced: &Bits, before: &[Bits]) -> f64 {
        let kernels = || self.kernels.iter().map(|&k| &problem.kernels[k]);
        let ops = || kernels().flat_map(|kernel| &kernel.ops);
        let mut compute: BTreeMap<ClassValueId, f64> = BTreeMap::new();
        for op in ops() {
            // An op that makes several values computes them together.
            let share = op.compute / op.makes.len().max(1) as f64;
            for &value in op.makes.iter().filter(|v| !problem.given.contains(v)) {
                let least = compute.entry(value).or_insert(share);
                *least = least.min(share);
            }
        }
        let ends: Vec<ClassValueId> = compute.keys().copied().filter(|&v| forced.contains(v)).collect();
        let mut needed = Bits::none(problem.traffic.len());
        for &end in &ends {
            needed.insert(end);
            needed.unite(&before[end.0]);
        }
        let computed: Vec<ClassValueId> = compute.keys().copied().filter(|&v| needed.contains(v)).collect();
        let widest = kernels().map(|kernel| kernel.ops.iter().map(|m| m.makes.len()).sum::<usize>());
        let widest = widest.max().unwrap_or(1).max(1);
        let count = computed
            .len()
            .div_ceil(widest)
            .max(ends.len().div_ceil(problem.outputs.max(1)));
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let read =
            |op: &super::FusedOp| least(&mut op.needs.iter().map(|need| problem.traffic[need.value.0]));
        let is_idle = |op: &super::FusedOp| op.needs.is_empty();
        let read = match ops().any(is_idle) {
            true => 0.0,
            false => least(&mut ops().map(read)),
        };
        let stored = least(&mut compute.keys().map(|v| problem.traffic[v.0]));
        let launch = least(&mut kernels().map(|kernel| kernel.launch));
        let stores: f64 = ends.iter().map(|v| problem.traffic[v.0]).sum();
        let more = count.saturating_sub(ends.len()) as f64;
        let traffic = stores + more * stored.min(1e300) + count as f64 * read.min(1e300);
        let arithmetic: f64 = computed.iter().map(|v| compute[v]).sum();
        traffic.max(arithmetic) + count as f64 * launch.min(1e300)
    }
}
