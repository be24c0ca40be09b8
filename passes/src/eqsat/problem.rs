//! The kernels of an e-graph as a problem of selection.

use super::Limits;
use super::extract::{
    ClassValueId, ExtractionProblem, FusedOp, FusionGroup, Need, Selection, Taken, greedy, integer,
};
use super::fusion_rule::FusionRule;
use super::kernel::{self, ClassKernel, can_recompute, class_of};
use super::language::TensorEGraph;
use super::variants::{KernelVariant, original, traffic, variants};
use crate::cost::Costs;
use crate::error::PassError;
use egg::Id;
use ir::Graph;
use ir::ops::Op;
use ir::plan::Mode;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most outputs of a kernel, so that its pointers stay in registers.
const OUTPUTS: usize = 6;

/// A problem, and what its numbers stand for. Its kernels are anchors, each in one way to compute it; and, after all anchors, the
/// kernels that rearrange a value.
pub(super) struct Extraction {
    pub problem: ExtractionProblem,
    /// Of each kernel the class of each op.
    pub ops: Vec<Vec<Id>>,
    /// Of each anchor the way.
    pub anchors: Vec<KernelVariant>,
    /// The class of each value.
    pub values: Vec<Id>,
    /// Of each class of kernels the variants to compute it, the fastest first.
    pub variants: BTreeMap<Id, Vec<KernelVariant>>,
}

/// What was extracted.
pub(super) struct Extracted {
    pub selection: Selection,
    /// The kernels in the order they run, each with the variant to compute it.
    pub kernels: Vec<(ClassKernel, KernelVariant)>,
    /// How the solver came to its answer.
    pub effort: integer::SolveStats,
    /// Why the solver's answer was not used, if it was not.
    pub fallback: Option<String>,
}

#[derive(Default)]
struct Values {
    classes: Vec<Id>,
    positions: BTreeMap<Id, ClassValueId>,
}

impl Values {
    fn position(&mut self, class: Id) -> ClassValueId {
        *self.positions.entry(class).or_insert_with(|| {
            self.classes.push(class);
            ClassValueId(self.classes.len() - 1)
        })
    }
}

impl Extraction {
    /// `classes` are those of the graph's nodes.
    pub fn new(
        egraph: &TensorEGraph,
        graph: &Graph,
        mode: Mode,
        classes: &[Id],
        costs: &Costs,
    ) -> Extraction {
        let mut values = Values::default();
        let mut problem = ExtractionProblem {
            outputs: OUTPUTS,
            ..ExtractionProblem::default()
        };
        for id in graph.ids().filter(|&id| graph.node(id).op.is_leaf()) {
            problem
                .given
                .insert(values.position(egraph.find(classes[id.index()])));
        }
        let outputs = graph.outputs().iter().map(|(_, id)| id);
        let updates = graph.updates().iter().map(|(_, next)| next);
        for id in outputs.chain(updates) {
            problem
                .wanted
                .insert(values.position(egraph.find(classes[id.index()])));
        }
        let parameters = graph
            .ids()
            .filter(|&id| matches!(graph.node(id).op, Op::Parameter { .. }));
        let constant: BTreeSet<Id> = match mode {
            Mode::Infer => parameters.map(|id| egraph.find(classes[id.index()])).collect(),
            _ => BTreeSet::new(),
        };
        let launch = costs.profile.launch_us * 1e-6;
        let mut kernels = Kernels::new(egraph, |class| variants(egraph, class, mode, costs, &constant));
        let kept: BTreeMap<Id, Vec<KernelVariant>> = kernels.worthwhile();
        let (mut ops, mut anchors) = (vec![], vec![]);
        for anchor in kernel::kernels(egraph) {
            let fused_ops = FusableOp::all(egraph, anchor);
            for &variant in &kept[&anchor] {
                problem
                    .kernels
                    .push(kernels.anchor(&fused_ops, variant, launch, &mut values));
                ops.push(fused_ops.iter().map(|fused| fused.class).collect());
                anchors.push(variant);
            }
        }
        let relayouts: BTreeSet<Id> = anchors.iter().filter_map(|variant| variant.relayout).collect();
        for class in relayouts {
            let (made, from) = (values.position(class), original(egraph, class));
            // What never changes is rearranged once, not in every step.
            if constant.contains(&from) {
                problem.given.insert(made);
                continue;
            }
            let need = Need {
                value: values.position(from),
                inside: vec![],
            };
            let copy = FusedOp {
                makes: vec![made],
                is_stored: true,
                needs: vec![need],
                compute: 0.0,
            };
            problem.kernels.push(FusionGroup {
                ops: vec![copy],
                launch,
            });
            ops.push(vec![class]);
        }
        problem.traffic = values
            .classes
            .iter()
            .map(|&class| traffic(egraph, class, costs))
            .collect();
        let kept = problem.prune();
        for (ops, kept) in ops.iter_mut().zip(kept) {
            *ops = kept.into_iter().map(|m| ops[m]).collect();
        }
        Extraction {
            problem,
            ops,
            anchors,
            values: values.classes,
            variants: kernels.variants,
        }
    }

    /// The kernels of a selection that compute: what others rearrange is the business of those that read it.
    pub fn computing<'s>(&self, selection: &'s Selection) -> impl Iterator<Item = &'s Taken> {
        let anchors = self.anchors.len();
        selection.taken.iter().filter(move |taken| taken.kernel < anchors)
    }

    /// The cheapest kernels in the order they run, each with the variant to compute it. Ops that turn out not to fit together
    /// are forbidden, and the search goes on; where the solver finds nothing, the greedy selection is used and the result says
    /// so.
    pub fn kernels(&mut self, egraph: &TensorEGraph, limits: &Limits) -> Result<Extracted, PassError> {
        let mut fallback: Option<String> = None;
        let mut search = integer::Search::default();
        loop {
            let selected = match (&limits.extraction, &fallback) {
                (Some(limits), None) => search.select(&self.problem, limits),
                _ => greedy::select(&self.problem),
            };
            let selection = match (selected, &fallback) {
                (Ok(selection), _) => selection,
                // The program without the solver is as right, only dearer; the report says which it is.
                (Err(error), None) if limits.extraction.is_some() => {
                    fallback = Some(error.to_string());
                    continue;
                }
                (Err(error), _) => return Err(broken(error.to_string())),
            };
            self.problem.verify(&selection).map_err(broken)?;
            let (mut kernels, mut impossible) = (vec![], vec![]);
            for taken in self.computing(&selection) {
                match self.assemble(egraph, taken) {
                    Some(kernel) => kernels.push((kernel, self.anchors[taken.kernel])),
                    None => {
                        let ops = taken.ops.iter().copied().collect();
                        impossible.push((taken.kernel, ops));
                    }
                }
            }
            if impossible.is_empty() {
                return Ok(Extracted {
                    selection,
                    kernels,
                    effort: search.effort,
                    fallback,
                });
            }
            self.problem.impossible.extend(impossible);
        }
    }

    fn assemble(&self, egraph: &TensorEGraph, taken: &Taken) -> Option<ClassKernel> {
        let ops = &self.ops[taken.kernel];
        let fused_ops: Vec<Id> = taken.ops.iter().filter(|m| **m != 0).map(|&m| ops[m]).collect();
        let stores: Vec<Id> = taken.stores.iter().map(|v| self.values[v.0]).collect();
        kernel::assemble(egraph, ops[0], &fused_ops, &stores)
    }
}

fn broken(fault: String) -> PassError {
    PassError::Broken {
        pass: "search",
        faults: vec![fault],
    }
}

/// An op of a kernel: the anchor itself, without a rule, or a fused op.
struct FusableOp {
    class: Id,
    rule: Option<FusionRule>,
}

impl FusableOp {
    fn all(egraph: &TensorEGraph, anchor: Id) -> Vec<FusableOp> {
        let itself = FusableOp {
            class: anchor,
            rule: None,
        };
        let fused_ops = egraph.analysis.anchors.fused_ops.range((anchor, Id::from(0))..);
        let fused_ops = fused_ops.take_while(|((h, _), _)| *h == anchor);
        let fused_ops = fused_ops.map(|(&(_, class), &rule)| FusableOp {
            class,
            rule: Some(rule),
        });
        [itself].into_iter().chain(fused_ops).collect()
    }
}

/// Kernels alone, and which map can be recomputed in which.
struct Kernels<'a> {
    egraph: &'a TensorEGraph,
    alone: HashMap<Id, ClassKernel>,
    recomputed: HashMap<(Id, Id), bool>,
    variants: BTreeMap<Id, Vec<KernelVariant>>,
}

impl Kernels<'_> {
    fn new(egraph: &TensorEGraph, variants: impl Fn(Id) -> Vec<KernelVariant>) -> Kernels<'_> {
        let classes = kernel::kernels(egraph).into_iter();
        Kernels {
            egraph,
            recomputed: HashMap::new(),
            variants: classes.clone().map(|class| (class, variants(class))).collect(),
            alone: classes
                .map(|class| (class, ClassKernel::of(egraph, class)))
                .collect(),
        }
    }

    /// The ways that can be part of the cheapest selection. What a kernel is computed with is nobody else's matter, so that
    /// is its fastest; but for those that would be faster if others pay for what they want rearranged.
    fn worthwhile(&self) -> BTreeMap<Id, Vec<KernelVariant>> {
        let mut wanted: BTreeMap<Id, usize> = BTreeMap::new();
        for variants in self.variants.values() {
            let classes: BTreeSet<Id> = variants.iter().filter_map(|variant| variant.relayout).collect();
            classes
                .into_iter()
                .for_each(|class| *wanted.entry(class).or_default() += 1);
        }
        let is_shared = |variant: &KernelVariant| variant.relayout.is_some_and(|class| wanted[&class] > 1);
        let keep = |variants: &Vec<KernelVariant>| {
            let best = variants[0].seconds();
            let others = variants[1..]
                .iter()
                .filter(|variant| is_shared(variant) && variant.compute < best);
            variants[..1].iter().chain(others).copied().collect()
        };
        self.variants
            .iter()
            .map(|(&class, variants)| (class, keep(variants)))
            .collect()
    }

    fn anchor(
        &mut self,
        fused_ops: &[FusableOp],
        variant: KernelVariant,
        launch: f64,
        values: &mut Values,
    ) -> FusionGroup {
        let mut ops: Vec<FusedOp> = vec![];
        for (m, fused) in fused_ops.iter().enumerate() {
            let variant = if m == 0 {
                variant
            } else {
                self.variants[&fused.class][0]
            };
            let mut needs = vec![];
            for value in self.read(fused.class, variant) {
                let providers = (0..fused_ops.len()).filter(|&p| p != m);
                needs.push(Need {
                    value: values.position(value),
                    inside: providers
                        .filter(|&p| self.provides(&fused_ops[p], value, fused))
                        .collect(),
                });
            }
            let ClassKernel { results, .. } = &self.alone[&fused.class];
            let makes = results.iter().map(|&v| values.position(v)).collect();
            let is_stored = fused.rule != Some(FusionRule::Recompute);
            ops.push(FusedOp {
                makes,
                is_stored,
                needs,
                compute: variant.compute,
            });
        }
        // What is recomputed is computed at every point of its reader.
        for m in (0..fused_ops.len()).filter(|&m| fused_ops[m].rule == Some(FusionRule::Recompute)) {
            let points = |fused: &FusableOp| self.alone[&fused.class].nest.points().max(1);
            let reads = |r: &FusedOp| r.needs.iter().any(|n| n.inside.contains(&m));
            let readers = ops.iter().zip(fused_ops).filter(|(r, _)| reads(r));
            let own = points(&fused_ops[m]);
            let times = readers.map(|(_, reader)| points(reader)).max().unwrap_or(own) as f64 / own as f64;
            ops[m].compute *= times;
        }
        FusionGroup { ops, launch }
    }

    /// The values that a kernel reads, each once, one of them rearranged if it wants that.
    fn read(&self, class: Id, variant: KernelVariant) -> BTreeSet<Id> {
        let reads = self.alone[&class].nest.reads.iter().enumerate();
        let value = |(i, read): (usize, &ir::nest::Read)| match variant.vectors {
            Some((_, panel)) if i == panel => variant.relayout.unwrap_or(class_of(read.source)),
            _ => class_of(read.source),
        };
        reads.map(value).collect()
    }

    /// Whether `reader` can take a value from `fused` where both are in one kernel.
    fn provides(&mut self, fused: &FusableOp, value: Id, reader: &FusableOp) -> bool {
        if !self.alone[&fused.class].results.contains(&value) {
            return false;
        }
        if fused.rule != Some(FusionRule::Recompute) {
            return reader.rule == Some(FusionRule::Epilogue);
        }
        let (egraph, alone) = (self.egraph, &self.alone);
        let pair = (reader.class, fused.class);
        let known = egraph.analysis.anchors.recomputes.get(&pair).copied();
        let recompute = || can_recompute(egraph, &alone[&pair.0], &alone[&pair.1]);
        known.unwrap_or_else(|| *self.recomputed.entry(pair).or_insert_with(recompute))
    }
}
