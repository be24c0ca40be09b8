//! The kernels of an e-graph as a problem of selection.

use super::Limits;
use super::extract::{Kernel as Host, Member, Need, Problem, Selection, Taken, ValueIx, greedy, integer};
use super::kernel::{self, FusionRule, Kernel, can_recompute, class_of};
use super::language::Tensors;
use super::report::Report;
use super::ways::{Way, original, traffic, ways};
use crate::cost::Costs;
use crate::error::PassError;
use egg::Id;
use ir::Graph;
use ir::ops::Op;
use ir::plan::Mode;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most outputs of a kernel, so that its pointers stay in registers.
const OUTPUTS: usize = 6;

/// A problem, and what its numbers stand for. Its kernels are hosts, each in one way to compute it; and, after all hosts, the
/// kernels that rearrange a value.
pub(super) struct Extraction {
    pub problem: Problem,
    /// Of each kernel the class of each member.
    pub members: Vec<Vec<Id>>,
    /// Of each host the way.
    pub hosts: Vec<Way>,
    /// The class of each value.
    pub values: Vec<Id>,
    /// Of each class of kernels the ways to compute it, the fastest first.
    pub ways: BTreeMap<Id, Vec<Way>>,
}

#[derive(Default)]
struct Values {
    classes: Vec<Id>,
    positions: BTreeMap<Id, ValueIx>,
}

impl Values {
    fn position(&mut self, class: Id) -> ValueIx {
        *self.positions.entry(class).or_insert_with(|| {
            self.classes.push(class);
            ValueIx(self.classes.len() - 1)
        })
    }
}

impl Extraction {
    /// `classes` are those of the graph's nodes.
    pub fn new(egraph: &Tensors, graph: &Graph, mode: Mode, classes: &[Id], costs: &Costs) -> Extraction {
        let mut values = Values::default();
        let mut problem = Problem {
            outputs: OUTPUTS,
            ..Problem::default()
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
        let mut kernels = Kernels::new(egraph, |class| ways(egraph, class, mode, costs, &constant));
        let kept: BTreeMap<Id, Vec<Way>> = kernels.worthwhile();
        let (mut members, mut hosts) = (vec![], vec![]);
        for host in kernel::kernels(egraph) {
            let guests = Guest::all(egraph, host);
            for &way in &kept[&host] {
                problem
                    .kernels
                    .push(kernels.host(&guests, way, launch, &mut values));
                members.push(guests.iter().map(|guest| guest.class).collect());
                hosts.push(way);
            }
        }
        let rearranged: BTreeSet<Id> = hosts.iter().filter_map(|way| way.rearranged).collect();
        for class in rearranged {
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
            let copy = Member {
                makes: vec![made],
                is_stored: true,
                needs: vec![need],
                compute: 0.0,
            };
            problem.kernels.push(Host {
                members: vec![copy],
                launch,
            });
            members.push(vec![class]);
        }
        problem.traffic = values
            .classes
            .iter()
            .map(|&class| traffic(egraph, class, costs))
            .collect();
        let kept = problem.prune();
        for (members, kept) in members.iter_mut().zip(kept) {
            *members = kept.into_iter().map(|m| members[m]).collect();
        }
        Extraction {
            problem,
            members,
            hosts,
            values: values.classes,
            ways: kernels.ways,
        }
    }

    /// The kernels of a selection that compute: what others rearrange is the business of those that read it.
    pub fn computing<'s>(&self, selection: &'s Selection) -> impl Iterator<Item = &'s Taken> {
        let hosts = self.hosts.len();
        selection.taken.iter().filter(move |taken| taken.kernel < hosts)
    }

    /// The cheapest kernels in the order they run, each with the way to compute it. Members that turn out not to fit together
    /// are forbidden, and the search goes on; where the solver finds nothing, the greedy selection is used and the report says
    /// so.
    pub fn kernels(
        &mut self,
        egraph: &Tensors,
        limits: &Limits,
        report: &mut Report,
    ) -> Result<(Selection, Vec<(Kernel, Way)>), PassError> {
        report.kernels = self.problem.kernels.len();
        let mut search = integer::Search::default();
        loop {
            let selected = match (&limits.extraction, &report.fallback) {
                (Some(limits), None) => search.select(&self.problem, limits),
                _ => greedy::select(&self.problem),
            };
            report.effort = search.effort;
            let selection = match (selected, &report.fallback) {
                (Ok(selection), _) => selection,
                // The program without the solver is as right, only dearer; the report says which it is.
                (Err(error), None) if limits.extraction.is_some() => {
                    report.fallback = Some(error.to_string());
                    continue;
                }
                (Err(error), _) => return Err(broken(error.to_string())),
            };
            self.problem.verify(&selection).map_err(broken)?;
            let (mut kernels, mut impossible) = (vec![], vec![]);
            for taken in self.computing(&selection) {
                match self.assemble(egraph, taken) {
                    Some(kernel) => kernels.push((kernel, self.hosts[taken.kernel])),
                    None => {
                        let members = taken.members.iter().copied().collect();
                        impossible.push((taken.kernel, members));
                    }
                }
            }
            if impossible.is_empty() {
                return Ok((selection, kernels));
            }
            self.problem.impossible.extend(impossible);
        }
    }

    fn assemble(&self, egraph: &Tensors, taken: &Taken) -> Option<Kernel> {
        let members = &self.members[taken.kernel];
        let guests: Vec<Id> = taken
            .members
            .iter()
            .filter(|m| **m != 0)
            .map(|&m| members[m])
            .collect();
        let stores: Vec<Id> = taken.stores.iter().map(|v| self.values[v.0]).collect();
        kernel::assemble(egraph, members[0], &guests, &stores)
    }
}

fn broken(fault: String) -> PassError {
    PassError::Broken {
        pass: "search",
        faults: vec![fault],
    }
}

/// A member of a kernel: the host itself, without a rule, or a guest.
struct Guest {
    class: Id,
    rule: Option<FusionRule>,
}

impl Guest {
    fn all(egraph: &Tensors, host: Id) -> Vec<Guest> {
        let itself = Guest {
            class: host,
            rule: None,
        };
        let guests = egraph.analysis.hosts.guests.range((host, Id::from(0))..);
        let guests = guests.take_while(|((h, _), _)| *h == host);
        let guests = guests.map(|(&(_, class), &rule)| Guest {
            class,
            rule: Some(rule),
        });
        [itself].into_iter().chain(guests).collect()
    }
}

/// Kernels alone, and which map can be recomputed in which.
struct Kernels<'a> {
    egraph: &'a Tensors,
    alone: HashMap<Id, Kernel>,
    recomputed: HashMap<(Id, Id), bool>,
    ways: BTreeMap<Id, Vec<Way>>,
}

impl Kernels<'_> {
    fn new(egraph: &Tensors, ways: impl Fn(Id) -> Vec<Way>) -> Kernels<'_> {
        let classes = kernel::kernels(egraph).into_iter();
        Kernels {
            egraph,
            recomputed: HashMap::new(),
            ways: classes.clone().map(|class| (class, ways(class))).collect(),
            alone: classes.map(|class| (class, Kernel::of(egraph, class))).collect(),
        }
    }

    /// The ways that can be part of the cheapest selection. What a kernel is computed with is nobody else's matter, so that
    /// is its fastest; but for those that would be faster if others pay for what they want rearranged.
    fn worthwhile(&self) -> BTreeMap<Id, Vec<Way>> {
        let mut wanted: BTreeMap<Id, usize> = BTreeMap::new();
        for ways in self.ways.values() {
            let classes: BTreeSet<Id> = ways.iter().filter_map(|way| way.rearranged).collect();
            classes
                .into_iter()
                .for_each(|class| *wanted.entry(class).or_default() += 1);
        }
        let is_shared = |way: &Way| way.rearranged.is_some_and(|class| wanted[&class] > 1);
        let keep = |ways: &Vec<Way>| {
            let best = ways[0].seconds();
            let others = ways[1..]
                .iter()
                .filter(|way| is_shared(way) && way.compute < best);
            ways[..1].iter().chain(others).copied().collect()
        };
        self.ways
            .iter()
            .map(|(&class, ways)| (class, keep(ways)))
            .collect()
    }

    fn host(&mut self, guests: &[Guest], way: Way, launch: f64, values: &mut Values) -> Host {
        let mut members: Vec<Member> = vec![];
        for (m, guest) in guests.iter().enumerate() {
            let way = if m == 0 { way } else { self.ways[&guest.class][0] };
            let mut needs = vec![];
            for value in self.read(guest.class, way) {
                let providers = (0..guests.len()).filter(|&p| p != m);
                needs.push(Need {
                    value: values.position(value),
                    inside: providers
                        .filter(|&p| self.provides(&guests[p], value, guest))
                        .collect(),
                });
            }
            let Kernel { results, .. } = &self.alone[&guest.class];
            let makes = results.iter().map(|&v| values.position(v)).collect();
            let is_stored = guest.rule != Some(FusionRule::Recompute);
            members.push(Member {
                makes,
                is_stored,
                needs,
                compute: way.compute,
            });
        }
        // What is recomputed is computed at every point of its reader.
        for m in (0..guests.len()).filter(|&m| guests[m].rule == Some(FusionRule::Recompute)) {
            let points = |guest: &Guest| self.alone[&guest.class].nest.points().max(1);
            let reads = |r: &Member| r.needs.iter().any(|n| n.inside.contains(&m));
            let readers = members.iter().zip(guests).filter(|(r, _)| reads(r));
            let own = points(&guests[m]);
            let times = readers.map(|(_, reader)| points(reader)).max().unwrap_or(own) as f64 / own as f64;
            members[m].compute *= times;
        }
        Host { members, launch }
    }

    /// The values that a kernel reads, each once, one of them rearranged if it wants that.
    fn read(&self, class: Id, way: Way) -> BTreeSet<Id> {
        let reads = self.alone[&class].nest.reads.iter().enumerate();
        let value = |(i, read): (usize, &ir::nest::Read)| match way.vectors {
            Some((_, panel)) if i == panel => way.rearranged.unwrap_or(class_of(read.source)),
            _ => class_of(read.source),
        };
        reads.map(value).collect()
    }

    /// Whether `reader` can take a value from `guest` where both are in one kernel.
    fn provides(&mut self, guest: &Guest, value: Id, reader: &Guest) -> bool {
        if !self.alone[&guest.class].results.contains(&value) {
            return false;
        }
        if guest.rule != Some(FusionRule::Recompute) {
            return reader.rule == Some(FusionRule::Epilogue);
        }
        let (egraph, alone) = (self.egraph, &self.alone);
        let pair = (reader.class, guest.class);
        let known = egraph.analysis.hosts.recomputes.get(&pair).copied();
        let recompute = || can_recompute(egraph, &alone[&pair.0], &alone[&pair.1]);
        known.unwrap_or_else(|| *self.recomputed.entry(pair).or_insert_with(recompute))
    }
}
