//! The kernels of an e-graph as a problem of selection.

use super::Limits;
use super::extract::{Kernel as Host, Member, Need, Problem, Selection, Taken, ValueIx, greedy, integer};
use super::kernel::{self, EPILOGUE, Kernel, RECOMPUTED, can_recompute};
use super::language::{Tensors, value_type};
use super::report::Report;
use crate::cost::{Candidate, Costs, Stored};
use crate::error::PassError;
use crate::winograd;
use egg::Id;
use ir::plan::Mode;
use ir::program::Algorithm;
use ir::{DType, Graph};
use std::collections::{BTreeMap, HashMap};

/// The most outputs of a kernel, so that its pointers stay in registers.
const OUTPUTS: usize = 6;

/// A problem, and what its numbers stand for.
pub(super) struct Extraction {
    pub problem: Problem,
    /// Of each kernel the class of each member.
    pub members: Vec<Vec<Id>>,
    /// The class of each value.
    pub values: Vec<Id>,
    /// Of each class of kernels the seconds of arithmetic by each algorithm, the fastest first.
    pub algorithms: BTreeMap<Id, Vec<(Algorithm, f64)>>,
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
        let mut kernels = Kernels::new(egraph, mode, costs);
        let mut members = vec![];
        for host in kernel::kernels(egraph) {
            let guests = Guest::all(egraph, host);
            let made = kernels.host(&guests, costs.profile.launch_us * 1e-6, &mut values);
            problem.kernels.push(made);
            members.push(guests.into_iter().map(|guest| guest.class).collect());
        }
        problem.traffic = values
            .classes
            .iter()
            .map(|&class| {
                let ty = value_type(egraph, class);
                costs.traffic_us((ty.elements() * ty.dtype.bytes()) as f64) * 1e-6
            })
            .collect();
        Extraction {
            problem,
            members,
            values: values.classes,
            algorithms: kernels.algorithms,
        }
    }
}

impl Extraction {
    /// The cheapest kernels in the order they run. Members that turn out not to fit together are forbidden, and the search
    /// goes on; where the solver finds nothing, the greedy selection is used and the report says so.
    pub fn kernels(
        &mut self,
        egraph: &Tensors,
        limits: &Limits,
        report: &mut Report,
    ) -> Result<(Selection, Vec<Kernel>), PassError> {
        report.kernels = self.problem.kernels.len();
        let mut search = integer::Search::default();
        loop {
            let selected = match report.fallback {
                None => search.select(&self.problem, &limits.extraction),
                Some(_) => greedy::select(&self.problem),
            };
            report.effort = search.effort;
            let selection = match (selected, &report.fallback) {
                (Ok(selection), _) => selection,
                // The program without the solver is as right, only dearer; the report says which it is.
                (Err(error), None) => {
                    report.fallback = Some(error.to_string());
                    continue;
                }
                (Err(error), Some(_)) => return Err(broken(error.to_string())),
            };
            self.problem.verify(&selection).map_err(broken)?;
            let mut kernels = vec![];
            for taken in &selection.taken {
                match self.assemble(egraph, taken) {
                    Some(kernel) => kernels.push(kernel),
                    None => {
                        let members = taken.members.iter().copied().collect();
                        self.problem.impossible.push((taken.kernel, members));
                    }
                }
            }
            if kernels.len() == selection.taken.len() {
                return Ok((selection, kernels));
            }
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
    rule: &'static str,
}

impl Guest {
    fn all(egraph: &Tensors, host: Id) -> Vec<Guest> {
        let itself = Guest {
            class: host,
            rule: "",
        };
        let guests = egraph.analysis.hosts.guests.range((host, Id::from(0))..);
        let guests = guests.take_while(|((h, _), _)| *h == host);
        let guests = guests.map(|(&(_, class), &rule)| Guest { class, rule });
        [itself].into_iter().chain(guests).collect()
    }
}

/// Kernels alone, and which map can be recomputed in which.
struct Kernels<'a> {
    egraph: &'a Tensors,
    alone: HashMap<Id, Kernel>,
    recomputed: HashMap<(Id, Id), bool>,
    algorithms: BTreeMap<Id, Vec<(Algorithm, f64)>>,
}

impl Kernels<'_> {
    fn new<'a>(egraph: &'a Tensors, mode: Mode, costs: &Costs) -> Kernels<'a> {
        let classes = kernel::kernels(egraph).into_iter();
        Kernels {
            egraph,
            recomputed: HashMap::new(),
            algorithms: classes
                .clone()
                .map(|class| (class, algorithms(egraph, class, mode, costs)))
                .collect(),
            alone: classes.map(|class| (class, Kernel::of(egraph, class))).collect(),
        }
    }

    fn host(&mut self, guests: &[Guest], launch: f64, values: &mut Values) -> Host {
        let mut members: Vec<Member> = vec![];
        for (m, guest) in guests.iter().enumerate() {
            let mut needs = vec![];
            for value in self.alone[&guest.class].operands() {
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
            let is_stored = guest.rule != RECOMPUTED;
            // What it is computed with is nobody else's matter: the fastest algorithm is always the best.
            let compute = self.algorithms[&guest.class][0].1;
            members.push(Member {
                makes,
                is_stored,
                needs,
                compute,
            });
        }
        // What is recomputed is computed at every point of its reader.
        for m in (0..guests.len()).filter(|&m| guests[m].rule == RECOMPUTED) {
            let points = |guest: &Guest| self.alone[&guest.class].nest.points().max(1);
            let reads = |r: &Member| r.needs.iter().any(|n| n.inside.contains(&m));
            let readers = members.iter().zip(guests).filter(|(r, _)| reads(r));
            let own = points(&guests[m]);
            let times = readers.map(|(_, reader)| points(reader)).max().unwrap_or(own) as f64 / own as f64;
            members[m].compute *= times;
        }
        Host { members, launch }
    }

    /// Whether `reader` can take a value from `guest` where both are in one kernel.
    fn provides(&mut self, guest: &Guest, value: Id, reader: &Guest) -> bool {
        if !self.alone[&guest.class].results.contains(&value) {
            return false;
        }
        if guest.rule != RECOMPUTED {
            return reader.rule == EPILOGUE;
        }
        let (egraph, alone) = (self.egraph, &self.alone);
        let recompute = || can_recompute(egraph, &alone[&reader.class], &alone[&guest.class]);
        *self
            .recomputed
            .entry((reader.class, guest.class))
            .or_insert_with(recompute)
    }
}

/// Seconds of a kernel's arithmetic by each of its algorithms, the fastest first.
fn algorithms(egraph: &Tensors, class: Id, mode: Mode, costs: &Costs) -> Vec<(Algorithm, f64)> {
    let (nest, operands) = kernel::nest_of(egraph, class);
    let types: Vec<(DType, Vec<usize>)> = operands
        .iter()
        .map(|&id| value_type(egraph, id))
        .map(|ty| (ty.dtype, ty.extents()))
        .collect();
    let stored = |(dtype, extents)| Stored {
        dtype,
        extents,
        layout: None,
    };
    let operands = types.iter().map(|(dtype, extents)| stored((*dtype, extents)));
    let direct = costs.compute_us(&Candidate::free(nest, operands.collect())) * 1e-6;
    let known = kernel::algorithms(egraph, class).into_iter();
    let seconds = |algorithm| direct * winograd::share(nest, mode, Some(algorithm));
    let mut all: Vec<(Algorithm, f64)> = known.map(|algorithm| (algorithm, seconds(algorithm))).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all
}
