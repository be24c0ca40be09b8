//! Kernels become fewer: which may be computed inside of which.
//!
//! A rule says of a pair that the fused op's results are at hand, or can be had, where the anchor runs. Nothing is fused yet: a
//! anchor offers all that it and its fused ops make, and the extraction decides who is let in and what is stored. So *dropping the
//! store between a producer and its consumer* needs no rule of its own.
//!
//! Pairs are a relation over classes of kernels, not e-nodes: no class changes by them. A round tries only what the pairs of
//! the round before make possible, so the whole takes time in proportion to the pairs.

use crate::eqsat::fusion_rule::{Anchors, FusionRule};
use crate::eqsat::kernel::{self, ClassKernel, can_recompute, reads};
use crate::eqsat::language::{TensorEGraph, value_type};
use crate::eqsat::report::Phase;
use egg::Id;
use ir::nest::Combine;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// The most kernels that one is offered as fused ops, the nearest first. Without it a chain of `n` maps has `n * n` pairs.
pub const MAX_FUSED_OPS: usize = 32;

/// Finds all fused ops of all kernels, in rounds until nothing is new, or for so many.
pub fn saturate(egraph: &mut TensorEGraph, rounds: usize) -> Phase {
    let start = Instant::now();
    let mut fusion = Fusion::new(egraph);
    let mut done = 1;
    let candidates = fusion.first();
    let mut new = fusion.round(candidates);
    while !new.is_empty() && done < rounds {
        done += 1;
        let candidates = fusion.next(&new);
        new = fusion.round(candidates);
    }
    let mut applied: BTreeMap<String, usize> = BTreeMap::new();
    for rule in fusion.anchors.fused_ops.values() {
        *applied.entry(rule.name().to_string()).or_default() += 1;
    }
    let anchors = fusion.anchors;
    egraph.analysis.anchors = anchors;
    Phase {
        name: "fusion",
        rounds: done,
        nodes: egraph.total_size(),
        classes: egraph.number_of_classes(),
        applied,
        stopped: match new.is_empty() {
            true => "saturated".to_string(),
            false => format!("limit of {rounds} rounds"),
        },
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// A kernel that may be let in, and where: in the order in which a round tries them.
type Candidate = (FusionRule, Id, Id);

struct Fusion<'a> {
    egraph: &'a TensorEGraph,
    kernels: BTreeMap<Id, ClassKernel>,
    /// The kernels that make each value.
    makers: HashMap<Id, Vec<Id>>,
    /// The kernels that read each value.
    readers: HashMap<Id, Vec<Id>>,
    anchors: Anchors,
    /// Anchors with all siblings and epilogues at once: the measure of whether one more fits.
    full: HashMap<Id, ClassKernel>,
    fused_ops: HashMap<Id, usize>,
    tried: HashSet<Candidate>,
}

impl Fusion<'_> {
    fn new(egraph: &TensorEGraph) -> Fusion<'_> {
        let classes = kernel::kernels(egraph).into_iter();
        let kernels: BTreeMap<Id, ClassKernel> =
            classes.map(|id| (id, ClassKernel::of(egraph, id))).collect();
        let (mut makers, mut readers) = (HashMap::new(), HashMap::new());
        for (&class, kernel) in &kernels {
            for &value in &kernel.results {
                makers.entry(value).or_insert_with(Vec::new).push(class);
            }
            for value in kernel.operands() {
                readers.entry(value).or_insert_with(Vec::new).push(class);
            }
        }
        Fusion {
            egraph,
            kernels,
            makers,
            readers,
            anchors: Anchors::default(),
            full: HashMap::new(),
            fused_ops: HashMap::new(),
            tried: HashSet::new(),
        }
    }

    /// The pairs of which nothing else has to be known.
    fn first(&mut self) -> BTreeSet<Candidate> {
        let mut found = BTreeSet::new();
        let classes: Vec<Id> = self.kernels.keys().copied().collect();
        for class in classes {
            found.extend(
                self.siblings(class)
                    .map(|anchor| (FusionRule::Sibling, class, anchor)),
            );
            self.followers(class, class, &mut found);
            self.generators(class, class, &mut found);
        }
        found
    }

    /// The pairs that new ones make possible.
    fn next(&mut self, new: &[Candidate]) -> BTreeSet<Candidate> {
        let mut found = BTreeSet::new();
        for &(rule, fused, anchor) in new {
            if rule != FusionRule::Recompute {
                self.followers(fused, anchor, &mut found);
            }
            self.generators(fused, anchor, &mut found);
        }
        found
    }

    /// Tries candidates, and returns those that are new pairs.
    fn round(&mut self, candidates: BTreeSet<Candidate>) -> Vec<Candidate> {
        let mut new = vec![];
        for candidate in candidates {
            if self.tried.insert(candidate) && self.admit(candidate) {
                new.push(candidate);
            }
        }
        new
    }

    /// Earlier kernels over the same loops that read the same tensor, as large as the loops or nearly so.
    fn siblings(&self, class: Id) -> impl Iterator<Item = Id> {
        let kernel = &self.kernels[&class];
        let operands = kernel.operands();
        let points = kernel.nest.parallel_points();
        let large = |v: &&Id| 2 * value_type(self.egraph, **v).elements() as u64 >= points;
        let mut found: BTreeSet<Id> = BTreeSet::new();
        for value in operands.iter().filter(large) {
            for &id in self.readers[value].iter().filter(|other| **other < class) {
                let other = &self.kernels[&id];
                let same = other.nest.parallel == kernel.nest.parallel
                    && other.nest.reduction == kernel.nest.reduction;
                let depends = kernel.results.iter().any(|&r| reads(&other.nest, r))
                    || other.results.iter().any(|r| operands.contains(r));
                if same && !depends {
                    found.insert(id);
                }
            }
        }
        found.into_iter()
    }

    /// The maps that read, in an anchor, what a kernel in it makes.
    fn followers(&self, kernel: Id, anchor: Id, found: &mut BTreeSet<Candidate>) {
        for value in &self.kernels[&kernel].results {
            for &map in self.readers.get(value).into_iter().flatten() {
                if map != anchor && self.kernels[&map].nest.combine == Combine::None {
                    found.insert((FusionRule::Epilogue, map, anchor));
                }
            }
        }
    }

    /// The maps whose values a kernel in an anchor could compute again.
    fn generators(&mut self, kernel: Id, anchor: Id, found: &mut BTreeSet<Candidate>) {
        for value in self.kernels[&kernel].operands() {
            for map in self.makers.get(&value).cloned().unwrap_or_default() {
                if map != anchor && self.recomputes(kernel, map) {
                    found.insert((FusionRule::Recompute, map, anchor));
                }
            }
        }
    }

    fn recomputes(&mut self, reader: Id, map: Id) -> bool {
        if let Some(&known) = self.anchors.recomputes.get(&(reader, map)) {
            return known;
        }
        let can = can_recompute(self.egraph, &self.kernels[&reader], &self.kernels[&map]);
        self.anchors.recomputes.insert((reader, map), can);
        can
    }

    /// Lets a fused op into an anchor if it fits. Remembers it, so that kernels that read the fused op's results can follow.
    fn admit(&mut self, (rule, fused, anchor): Candidate) -> bool {
        if anchor == fused || self.anchors.fused_ops.contains_key(&(anchor, fused)) {
            return false;
        }
        let kernel = &self.kernels[&fused];
        let full = self.full.get(&anchor).unwrap_or(&self.kernels[&anchor]);
        // What the anchor reads cannot be made of what the anchor makes.
        let circular = kernel.results.iter().any(|r| full.results.contains(r))
            || rule != FusionRule::Recompute && kernel.results.iter().any(|&r| reads(&full.nest, r));
        if circular {
            return false;
        }
        let fused_ops = self.fused_ops.entry(anchor).or_default();
        if *fused_ops >= MAX_FUSED_OPS {
            self.anchors.crowded.insert(anchor);
            return false;
        }
        let fuller = match rule {
            FusionRule::Epilogue => full.with_epilogue(kernel),
            FusionRule::Sibling => full.with_sibling(kernel),
            FusionRule::Recompute => Some(full.clone()),
        };
        let Some(fuller) = fuller else { return false };
        if rule != FusionRule::Recompute {
            self.full.insert(anchor, fuller);
        }
        *fused_ops += 1;
        self.anchors.fused_ops.insert((anchor, fused), rule);
        true
    }
}
