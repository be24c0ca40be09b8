//! Operations become kernels, and kernels become fewer.
//!
//! A fused kernel offers every value that its parts stored, besides the new ones: whether a value is stored is up to the
//! extraction, which pays for it. So *dropping the store between a producer and its consumer* needs no rule of its own.
//! The compositions are those of [`crate::compose`], exact on nests; a rule only finds pairs of kernels for them.
//!
//! Each fused kernel is built in one way only, or their number would grow with the ways to put brackets: maps are recomputed
//! in a consumer first, one by one, and epilogues added after that, one by one.

use crate::compose;
use crate::eqsat::language::{Facts, Node, Origin, Tensors, add_kernel, attributes, origin, value_name, value_type};
use crate::fuse::{is_cheap, is_contracted, parts};
use crate::substitute::normalize;
use egg::{Id, Rewrite, SearchMatches, Searcher, Subst, Var};
use ir::nest::{Combine, Nest, Output, Source};
use std::collections::HashSet;
use std::sync::Mutex;

/// The most values that a kernel offers.
const OFFERED: usize = 8;
/// The most parts of an expression: beyond it a kernel would spill registers.
const EXPRESSION_PARTS: usize = 200;
/// A value that reads at most so many elements is generated anew by each of its users.
const GENERATOR_ELEMENTS: usize = 16;

/// A kernel over classes: `Source::Operand(n)` is the class with the number n.
#[derive(Clone)]
struct Kernel {
    class: Id,
    nest: Nest,
    results: Vec<Id>,
    origin: Origin,
}

/// How two kernels become one.
type Compose = fn(&Tensors, &Kernel, &Kernel) -> Option<(Nest, Vec<Id>)>;

/// The rules that join a producer and a consumer: the name, what it does, and the composition.
const RULES: [(&str, &str, Compose); 2] = [
    (EPILOGUE, "a map is done where what it reads is made", epilogue),
    ("recompute", "a map is computed again wherever it is read", recompute),
];

const EPILOGUE: &str = "epilogue";
/// The rule that joins kernels that stand side by side.
pub const SIBLINGS: &str = "siblings";
/// The rule that makes kernels of operations.
pub const LOWER: &str = "lower";

/// Every operation as a chain of kernels, one for each nest of its meaning.
pub fn lowering() -> Vec<Rewrite<Node, Facts>> {
    vec![Rewrite::new(LOWER, Operations, Lower).expect("the rule binds what it uses")]
}

/// Kernels joined along values.
pub fn fusion() -> Vec<Rewrite<Node, Facts>> {
    let rule = |&(name, _, compose): &(&'static str, &str, Compose)| {
        let tried = Mutex::new(HashSet::new());
        Rewrite::new(name, Consumers, Join { name, compose, tried }).expect("the rule binds what it uses")
    };
    RULES.iter().map(rule).collect()
}

/// Kernels joined side by side. Quadratic in their number: for one round.
pub fn siblings() -> Vec<Rewrite<Node, Facts>> {
    let tried = Mutex::new(HashSet::new());
    let join = Join {
        name: SIBLINGS,
        compose: merge,
        tried,
    };
    vec![Rewrite::new(SIBLINGS, Siblings, join).expect("the rule binds what it uses")]
}

fn variable(name: &str) -> Var {
    name.parse().expect("variables begin with ?")
}

// --- operations to kernels ------------------------------------------------------------------------------

/// Finds classes that are computed by operations.
struct Operations;

impl Searcher<Node, Facts> for Operations {
    fn search_eclass_with_limit(
        &self,
        egraph: &Tensors,
        class: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        let found = egraph[class].nodes.iter().any(|node| matches!(node, Node::Apply(..)));
        found.then(|| matches(class, vec![Subst::default()]))
    }

    fn vars(&self) -> Vec<Var> {
        vec![]
    }
}

fn matches(eclass: Id, substs: Vec<Subst>) -> SearchMatches<'static, Node> {
    SearchMatches {
        eclass,
        substs,
        ast: None,
    }
}

struct Lower;

impl egg::Applier<Node, Facts> for Lower {
    fn apply_one(
        &self,
        egraph: &mut Tensors,
        class: Id,
        _: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let mut changed = vec![];
        for node in egraph[class].nodes.clone() {
            let Node::Apply(_, children) = node else { continue };
            let result = lower(egraph, class, &children);
            if egraph.union_trusted(class, result, rule) {
                changed.push(class);
            }
        }
        changed
    }
}

/// Adds the kernels of an operation and gives the value of the last one.
fn lower(egraph: &mut Tensors, class: Id, children: &[Id]) -> Id {
    let op = attributes(egraph, children[0]).clone();
    let mut values: Vec<Id> = children[1..].to_vec();
    let operands = values.len();
    let types: Vec<_> = values.iter().map(|&id| value_type(egraph, id)).collect();
    let nests = op.meaning(&types, value_type(egraph, class));
    let label = value_name(egraph, class).unwrap_or(op.mnemonic()).to_string();
    for mut nest in nests {
        for read in &mut nest.reads {
            if let Source::Stage(stage) = read.source {
                read.source = Source::Operand(operands + stage);
            }
        }
        let origin = Origin {
            label: label.clone(),
            rule: LOWER,
            from: vec![],
        };
        let results = add(egraph, normalize(nest), |operand| values[operand], origin);
        values.push(results[0]);
    }
    *values.last().expect("operations have a meaning, except leaves")
}

/// Adds a kernel whose sources are named by numbers that `class_of` knows; operands in the order of first use.
fn add(egraph: &mut Tensors, mut nest: Nest, class_of: impl Fn(usize) -> Id, origin: Origin) -> Vec<Id> {
    let mut operands: Vec<Id> = vec![];
    for read in &mut nest.reads {
        let Source::Operand(number) = read.source else {
            unreachable!("stages became operands")
        };
        let class = egraph.find(class_of(number));
        let position = operands.iter().position(|&known| known == class);
        read.source = Source::Operand(position.unwrap_or(operands.len()));
        if position.is_none() {
            operands.push(class);
        }
    }
    add_kernel(egraph, nest, &operands, origin)
}

// --- pairs of kernels -----------------------------------------------------------------------------------

/// Finds kernels with the kernels that make what they read: `?a` makes, `?b` reads.
struct Consumers;

impl Searcher<Node, Facts> for Consumers {
    fn search_eclass_with_limit(
        &self,
        egraph: &Tensors,
        class: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        let mut pairs: Vec<Id> = vec![];
        for node in &egraph[class].nodes {
            let Node::Kernel(_, operands) = node else { continue };
            for &operand in operands {
                for made in &egraph[operand].nodes {
                    if let Node::Result(_, [producer]) = made {
                        pairs.push(egraph.find(*producer));
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        (!pairs.is_empty()).then(|| matches(class, pairs.iter().map(|&a| pair(a, class)).collect()))
    }

    fn vars(&self) -> Vec<Var> {
        vec![variable("?a"), variable("?b")]
    }
}

fn pair(a: Id, b: Id) -> Subst {
    let mut subst = Subst::with_capacity(2);
    subst.insert(variable("?a"), a);
    subst.insert(variable("?b"), b);
    subst
}

/// Finds kernels over the same loops that share an operand; each pair once.
struct Siblings;

impl Searcher<Node, Facts> for Siblings {
    fn search_eclass_with_limit(
        &self,
        egraph: &Tensors,
        class: Id,
        _: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        let mut pairs: Vec<Id> = vec![];
        for node in &egraph[class].nodes {
            let Node::Kernel(nest, operands) = node else { continue };
            let nest = &egraph.analysis.nests[*nest];
            for other in egraph.classes().filter(|other| other.id < class) {
                for candidate in &other.nodes {
                    let Node::Kernel(second, shared) = candidate else { continue };
                    let second = &egraph.analysis.nests[*second];
                    let alike = nest.parallel == second.parallel && nest.reduction == second.reduction;
                    if alike && shared.iter().any(|s| operands.contains(s)) {
                        pairs.push(other.id);
                    }
                }
            }
        }
        (!pairs.is_empty()).then(|| matches(class, pairs.iter().map(|&a| pair(a, class)).collect()))
    }

    fn vars(&self) -> Vec<Var> {
        vec![variable("?a"), variable("?b")]
    }
}

struct Join {
    name: &'static str,
    compose: Compose,
    /// Pairs that were tried, whether or not they could be joined.
    tried: Mutex<HashSet<(Id, Id)>>,
}

impl egg::Applier<Node, Facts> for Join {
    fn apply_one(
        &self,
        egraph: &mut Tensors,
        _: Id,
        subst: &Subst,
        _: Option<&egg::PatternAst<Node>>,
        rule: egg::Symbol,
    ) -> Vec<Id> {
        let (a, b) = (subst[variable("?a")], subst[variable("?b")]);
        let new = self.tried.lock().expect("rules do not panic").insert((a, b));
        let (Some(first), Some(second)) = (kernel(egraph, a), kernel(egraph, b)) else {
            return vec![];
        };
        if !new {
            return vec![];
        }
        let Some((nest, values)) = (self.compose)(egraph, &first, &second) else {
            return vec![];
        };
        if !is_small(&nest) {
            return vec![];
        }
        let label = match crate::fuse::is_copy(&second.nest) {
            true => first.origin.label.clone(),
            false => format!("{}+{}", first.origin.label, second.origin.label),
        };
        let origin = Origin {
            label,
            rule: self.name,
            from: vec![a, b],
        };
        let (nest, values) = in_order(egraph, nest, values);
        let results = add(egraph, nest, Id::from, origin);
        let mut changed = vec![];
        for (value, result) in values.into_iter().zip(results) {
            if egraph.union_trusted(value, result, rule) {
                changed.push(value);
            }
        }
        changed
    }

    fn vars(&self) -> Vec<Var> {
        vec![variable("?a"), variable("?b")]
    }
}

/// The nest with its outputs in the order of their classes, each once: so equal kernels are one.
fn in_order(egraph: &Tensors, mut nest: Nest, values: Vec<Id>) -> (Nest, Vec<Id>) {
    let mut pairs: Vec<(Id, Output)> = values.iter().map(|&v| egraph.find(v)).zip(nest.outputs).collect();
    pairs.sort_by_key(|pair| pair.0);
    pairs.dedup_by_key(|pair| pair.0);
    let (values, outputs) = pairs.into_iter().unzip();
    nest.outputs = outputs;
    (normalize(nest), values)
}

/// The kernel of a class of kernels.
fn kernel(egraph: &Tensors, class: Id) -> Option<Kernel> {
    let class = egraph.find(class);
    let (nest, operands) = egraph[class].nodes.iter().find_map(|node| match node {
        Node::Kernel(nest, operands) => Some((*nest, operands)),
        _ => None,
    })?;
    let mut nest = egraph.analysis.nests[nest].clone();
    for read in &mut nest.reads {
        let Source::Operand(i) = read.source else {
            unreachable!("kernels read operands")
        };
        read.source = Source::Operand(usize::from(egraph.find(operands[i])));
    }
    let result = |i| egraph.lookup(Node::Result(i, [class]));
    let results = (0..nest.outputs.len() as u32)
        .map(|i| Some(egraph.find(result(i)?)))
        .collect::<Option<_>>()?;
    let origin = origin(egraph, class).clone();
    Some(Kernel {
        class,
        nest,
        results,
        origin,
    })
}

fn is_small(nest: &Nest) -> bool {
    let expressions = nest.outputs.iter().map(|o| &o.value).chain([&nest.body]);
    nest.outputs.len() <= OFFERED && expressions.into_iter().all(|e| parts(e) <= EXPRESSION_PARTS)
}

/// Whether a nest reads a value.
fn reads(nest: &Nest, value: Id) -> bool {
    nest.reads.iter().any(|r| r.source == source(value))
}

fn source(value: Id) -> Source {
    Source::Operand(usize::from(value))
}

// --- compositions ---------------------------------------------------------------------------------------

/// The producer's outputs, then those of the consumer that are new.
fn epilogue(_: &Tensors, producer: &Kernel, consumer: &Kernel) -> Option<(Nest, Vec<Id>)> {
    if consumer.origin.rule == EPILOGUE {
        return None;
    }
    // A kernel that reads its own result would never end.
    let circular = producer.class == consumer.class
        || consumer.results.iter().any(|&r| reads(&producer.nest, r) || producer.results.contains(&r));
    if circular {
        return None;
    }
    let stored: Vec<Source> = producer.results.iter().map(|&r| source(r)).collect();
    let keep = vec![true; stored.len()];
    let nest = compose::epilogue(&producer.nest, &stored, &keep, &consumer.nest)?;
    Some((nest, [&producer.results[..], &consumer.results].concat()))
}

fn recompute(egraph: &Tensors, producer: &Kernel, consumer: &Kernel) -> Option<(Nest, Vec<Id>)> {
    let one_by_one = producer.origin.rule == LOWER && consumer.origin.rule != EPILOGUE;
    if producer.class == consumer.class || producer.nest.combine != Combine::None || !one_by_one {
        return None;
    }
    let position = producer.results.iter().position(|&r| reads(&consumer.nest, r))?;
    let value = producer.results[position];
    let mut nest = producer.nest.clone();
    nest.outputs = vec![nest.outputs.swap_remove(position)];
    let nest = normalize(nest);
    let elements = |source: Source| match source {
        Source::Operand(n) | Source::Stage(n) => value_type(egraph, Id::from(n)).elements(),
    };
    let read: usize = nest.reads.iter().map(|r| elements(r.source)).sum();
    let pays = match consumer.nest.combine {
        Combine::None => consumer.nest.points() <= nest.points(),
        _ => is_cheap(&nest),
    };
    let circular = consumer.results.iter().any(|&r| reads(&nest, r));
    if circular || is_contracted(&consumer.nest, source(value)) || !(pays || read <= GENERATOR_ELEMENTS) {
        return None;
    }
    let extents = |source: Source| match source {
        Source::Operand(n) | Source::Stage(n) => value_type(egraph, Id::from(n)).extents(),
    };
    let nest = compose::inline(&consumer.nest, source(value), &nest, &extents)?;
    Some((nest, consumer.results.clone()))
}

fn merge(_: &Tensors, a: &Kernel, b: &Kernel) -> Option<(Nest, Vec<Id>)> {
    let depends = |a: &Kernel, b: &Kernel| a.results.iter().any(|&r| reads(&b.nest, r) || b.results.contains(&r));
    if a.class == b.class || depends(a, b) || depends(b, a) {
        return None;
    }
    let nest = compose::merge(&a.nest, &b.nest)?;
    Some((nest, [&a.results[..], &b.results].concat()))
}
