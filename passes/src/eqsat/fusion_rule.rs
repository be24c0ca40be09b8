//! Which kernel can be computed inside which, and by which rule: what the e-graph's analysis keeps of fusion.

use egg::Id;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What lets a kernel be computed inside of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FusionRule {
    /// Kernels over the same loops and operands store their results together.
    Sibling,
    /// A map is computed where the values that it reads are made.
    Epilogue,
    /// A map is computed again wherever it is read.
    Recompute,
}

impl FusionRule {
    /// All of them, in the order in which a round tries them.
    pub const ALL: [FusionRule; 3] = [FusionRule::Sibling, FusionRule::Epilogue, FusionRule::Recompute];

    /// How reports name it.
    pub fn name(self) -> &'static str {
        match self {
            FusionRule::Sibling => "sibling",
            FusionRule::Epilogue => "epilogue",
            FusionRule::Recompute => "recompute",
        }
    }
}

/// What may be computed inside of which kernel.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    /// The rule that lets a fused op into an anchor, by `(anchor, fused)`.
    pub fused_ops: BTreeMap<(Id, Id), FusionRule>,
    /// Whether a kernel can compute a map again, by `(kernel, map)`, as far as that was asked.
    pub recomputes: HashMap<(Id, Id), bool>,
    /// Anchors with more candidates than they were offered: see `rules::fusion::MAX_FUSED_OPS`.
    pub crowded: BTreeSet<Id>,
}
