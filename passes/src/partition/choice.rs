//! A placement of a kernel with what follows from it, and which placements are never worth it.

use super::Placement;
use crate::region::contains;
use ir::plan::Region;
use ir::program::ValueId;

/// A region of a value on a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShardSpec {
    pub value: ValueId,
    pub device: usize,
    pub region: Region,
}

/// A placement with what follows from it.
#[derive(Clone, Debug)]
pub(super) struct PlacementOption {
    pub placement: Placement,
    pub seconds: Vec<f64>,
    pub reads: Vec<ShardSpec>,
    pub writes: Vec<ShardSpec>,
}

impl PlacementOption {
    /// Whether another takes no less time, reads what this reads and writes nothing more.
    fn beats(&self, other: &PlacementOption) -> bool {
        let holds = |outer: &ShardSpec, inner: &ShardSpec| {
            (outer.value, outer.device) == (inner.value, inner.device)
                && contains(&outer.region, &inner.region)
        };
        let within = |inner: &[ShardSpec], outer: &[ShardSpec]| {
            inner.iter().all(|i| outer.iter().any(|o| holds(o, i)))
        };
        let faster = self.seconds.iter().zip(&other.seconds).all(|(a, b)| a <= b);
        faster && within(&self.reads, &other.reads) && within(&other.writes, &self.writes)
    }
}

/// Choices that no other beats; of equal ones the first.
pub(super) fn undominated(choices: Vec<PlacementOption>) -> Vec<PlacementOption> {
    let mut kept: Vec<PlacementOption> = vec![];
    for choice in choices {
        if !kept.iter().any(|other| other.beats(&choice)) {
            kept.retain(|other| !choice.beats(other));
            kept.push(choice);
        }
    }
    kept
}
