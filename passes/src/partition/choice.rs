//! A placement of a kernel with what follows from it, and which placements are never worth it.

use super::Placement;
use super::region::contains;
use ir::plan::Part;
use ir::program::ValueId;

/// A box of a value on a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub value: ValueId,
    pub device: usize,
    pub part: Part,
}

/// A placement with what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub placement: Placement,
    pub seconds: Vec<f64>,
    pub reads: Vec<Piece>,
    pub writes: Vec<Piece>,
}

impl Choice {
    /// Whether another takes no less time, reads what this reads and writes nothing more.
    fn beats(&self, other: &Choice) -> bool {
        let holds = |outer: &Piece, inner: &Piece| {
            (outer.value, outer.device) == (inner.value, inner.device) && contains(&outer.part, &inner.part)
        };
        let within =
            |inner: &[Piece], outer: &[Piece]| inner.iter().all(|i| outer.iter().any(|o| holds(o, i)));
        let faster = self.seconds.iter().zip(&other.seconds).all(|(a, b)| a <= b);
        faster && within(&self.reads, &other.reads) && within(&other.writes, &self.writes)
    }
}

/// Choices that no other beats; of equal ones the first.
pub(super) fn undominated(choices: Vec<Choice>) -> Vec<Choice> {
    let mut kept: Vec<Choice> = vec![];
    for choice in choices {
        if !kept.iter().any(|other| other.beats(&choice)) {
            kept.retain(|other| !choice.beats(other));
            kept.push(choice);
        }
    }
    kept
}
