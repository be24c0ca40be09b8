//! Kernels become fewer: which may be computed inside of which.
//!
//! A rule says of a pair that the guest's results are at hand, or can be had, where the host runs. Nothing is fused yet: a
//! host offers all that it and its guests make, and the extraction decides who is let in and what is stored. So *dropping the
//! store between a producer and its consumer* needs no rule of its own.

use super::matches;
use crate::eqsat::kernel::{EPILOGUE, Kernel, RECOMPUTED, SIBLING, admit, can_recompute, is_kernel, makers};
use crate::eqsat::language::{Facts, Node, Tensors, value_type};
use egg::{Id, Rewrite, SearchMatches, Searcher, Subst, Var};
use ir::nest::Combine;
use std::collections::HashSet;
use std::sync::Mutex;

/// The hosts that might take a kernel in.
type Find = fn(&Tensors, &Kernel) -> Vec<Id>;

/// The rules: what each says, and where it looks.
pub const RULES: [(&str, &str, Find); 3] = [
    (
        SIBLING,
        "kernels over the same loops and operands store their results together",
        siblings,
    ),
    (EPILOGUE, "a map is done where what it reads is made", producers),
    (RECOMPUTED, "a map is computed again wherever it is read", readers),
];

/// The rules, for egg.
pub fn rewrites() -> Vec<Rewrite<Node, Facts>> {
    let rewrite = |&(name, _, find): &(&'static str, &str, Find)| {
        let tried = Mutex::new(HashSet::new());
        Rewrite::new(name, Hosts { find }, Admit { name, tried }).expect("the rule binds what it uses")
    };
    RULES.iter().map(rewrite).collect()
}

fn host() -> Var {
    "?host".parse().expect("variables begin with ?")
}

/// Finds `?host` for every kernel.
struct Hosts {
    find: Find,
}

impl Searcher<Node, Facts> for Hosts {
    fn search_eclass_with_limit(
        &self,
        egraph: &Tensors,
        class: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        if !is_kernel(egraph, class) {
            return None;
        }
        let mut hosts = (self.find)(egraph, &Kernel::of(egraph, class));
        hosts.sort_unstable();
        hosts.dedup();
        let bind = |host_class: Id| {
            let mut subst = Subst::with_capacity(1);
            subst.insert(host(), host_class);
            subst
        };
        (!hosts.is_empty()).then(|| matches(class, hosts.into_iter().map(bind).collect()))
    }

    fn vars(&self) -> Vec<Var> {
        vec![host()]
    }
}

struct Admit {
    name: &'static str,
    /// Pairs that were tried, let in or not.
    tried: Mutex<HashSet<(Id, Id)>>,
}

impl egg::Applier<Node, Facts> for Admit {
    fn apply_one(
        &self,
        egraph: &mut Tensors,
        guest: Id,
        subst: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let pair = (egraph.find(subst[host()]), egraph.find(guest));
        let new = self.tried.lock().expect("rules do not panic").insert(pair);
        if !new || !admit(egraph, pair.0, pair.1, self.name) {
            return vec![];
        }
        let inside = egraph.add(Node::Inside([pair.0, pair.1]));
        egraph.union_trusted(pair.1, inside, rule);
        vec![pair.1]
    }

    fn vars(&self) -> Vec<Var> {
        vec![host()]
    }
}

/// Hosts at whose hands a map finds what it reads.
fn producers(egraph: &Tensors, map: &Kernel) -> Vec<Id> {
    if map.nest.combine != Combine::None {
        return vec![];
    }
    let mut found = vec![];
    for value in map.operands() {
        for maker in makers(egraph, value) {
            found.push(maker);
            found.extend(
                hosts_of(egraph, maker)
                    .filter(|(_, rule)| *rule != RECOMPUTED)
                    .map(|h| h.0),
            );
        }
    }
    found
}

/// Hosts that would read what a map makes.
fn readers(egraph: &Tensors, map: &Kernel) -> Vec<Id> {
    if map.nest.combine != Combine::None {
        return vec![];
    }
    let mut found = vec![];
    for node in map.results.iter().flat_map(|&r| egraph[r].parents()) {
        let reader = egraph.find(node);
        if !is_kernel(egraph, reader) || !can_recompute(egraph, &Kernel::of(egraph, reader), map) {
            continue;
        }
        found.push(reader);
        found.extend(hosts_of(egraph, reader).map(|h| h.0));
    }
    found
}

/// Earlier kernels over the same loops that read the same tensor, as large as the loops or nearly so.
fn siblings(egraph: &Tensors, kernel: &Kernel) -> Vec<Id> {
    let operands = kernel.operands();
    let large = |v: &&Id| 2 * value_type(egraph, **v).elements() as u64 >= kernel.nest.parallel_points();
    let mut found = vec![];
    for &value in operands.iter().filter(large) {
        for parent in egraph[value].parents() {
            let other = egraph.find(parent);
            if other < kernel.class && is_kernel(egraph, other) {
                let other = Kernel::of(egraph, other);
                let same = other.nest.parallel == kernel.nest.parallel
                    && other.nest.reduction == kernel.nest.reduction;
                let depends = kernel.results.iter().any(|r| other.operands().contains(r))
                    || other.results.iter().any(|r| operands.contains(r));
                if same && !depends {
                    found.push(other.class);
                }
            }
        }
    }
    found
}

/// The hosts that may take a kernel in, and the rules that say so.
fn hosts_of(egraph: &Tensors, guest: Id) -> impl Iterator<Item = (Id, &'static str)> {
    let guests = &egraph.analysis.hosts.guests;
    guests
        .iter()
        .filter(move |((_, g), _)| *g == guest)
        .map(|((h, _), rule)| (*h, *rule))
}
