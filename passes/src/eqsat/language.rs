//! What the e-graph holds: operations as the graph has them, kernels that compute several values at once, and values.
//!
//! ```text
//! (conv2d ?attributes ?x ?w)    an operation: its attributes are a leaf, so that patterns bind and rules read them
//! (kernel#12 ?x ?w ?b)          a nest over stored values; what it makes is a tuple
//! (kernel#12:winograd6 …)       the same by another algorithm: equal to it
//! (innermost#0 ?w)                a tensor rearranged, so that dimension 0 runs fastest in memory: a class of its own
//! (kernel#12:vectors1.0 …)      the same, reading its second factor in vectors along dimension 0: equal to it
//! (result#0 ?kernel)            one value of a tuple: equal to the operation that means the same
//! conv1.weight                  an input or a parameter
//! ```
//!
//! A class of values is one tensor in one order, however it is computed: that of the interface for leaves, channels last for
//! images, row-major for all else. Whether a value is *stored* is not in the e-graph: a kernel
//! offers every value it comes by, and the extraction pays for those that it writes to memory (see `extract`). So is a fused
//! kernel never a node of its own: it is an anchor with those of its possible fused ops that the extraction lets in. Their number
//! grows with the pairs, where that of fused kernels would grow with the subsets.

use super::fusion_rule::Anchors;
use super::interner::{Interner, NestId, OpId};
use egg::{DidMerge, EGraph, FromOp, Id, Language};
use ir::layout::Layout;
use ir::nest::Nest;
use ir::ops::{MNEMONICS, Op};
use ir::program::{Algorithm, Vectors};
use ir::types::{Dim, Type};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// An input or a parameter, by its name.
    Leaf(egg::Symbol),
    /// Attributes of an operation.
    Attributes(OpId),
    /// An operation by its mnemonic: its attributes, then its operands.
    Apply(&'static str, Box<[Id]>),
    /// A nest over values, computed by an algorithm: `Source::Operand(i)` is child `i`.
    Kernel(NestId, Algorithm, Box<[Id]>),
    /// A contraction over values, one factor of which is read in vectors. That child runs fastest along these.
    Vectors(NestId, Vectors, Box<[Id]>),
    /// A value with another dimension fastest.
    Innermost(u32, [Id; 1]),
    /// One output of a kernel.
    Result(u32, [Id; 1]),
}

/// What nodes have in common when only their children differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A leaf.
    Leaf(egg::Symbol),
    /// Attributes.
    Attributes(OpId),
    /// An operation.
    Apply(&'static str),
    /// A kernel.
    Kernel(NestId, Algorithm),
    /// A kernel with a factor in vectors.
    Vectors(NestId, Vectors),
    /// A value in another order.
    Innermost(u32),
    /// An output.
    Result(u32),
}

impl Language for Node {
    type Discriminant = Kind;

    fn discriminant(&self) -> Kind {
        match self {
            Node::Leaf(name) => Kind::Leaf(*name),
            Node::Attributes(op) => Kind::Attributes(*op),
            Node::Apply(mnemonic, _) => Kind::Apply(mnemonic),
            Node::Kernel(nest, algorithm, _) => Kind::Kernel(*nest, *algorithm),
            Node::Vectors(nest, vectors, _) => Kind::Vectors(*nest, *vectors),
            Node::Innermost(dimension, _) => Kind::Innermost(*dimension),
            Node::Result(i, _) => Kind::Result(*i),
        }
    }

    fn matches(&self, other: &Node) -> bool {
        self.discriminant() == other.discriminant() && self.children().len() == other.children().len()
    }

    fn children(&self) -> &[Id] {
        match self {
            Node::Leaf(_) | Node::Attributes(_) => &[],
            Node::Apply(_, children) | Node::Kernel(_, _, children) | Node::Vectors(_, _, children) => {
                children
            }
            Node::Result(_, one) | Node::Innermost(_, one) => one,
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Leaf(_) | Node::Attributes(_) => &mut [],
            Node::Apply(_, children) | Node::Kernel(_, _, children) | Node::Vectors(_, _, children) => {
                children
            }
            Node::Result(_, one) | Node::Innermost(_, one) => one,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Node::Leaf(name) => write!(f, "{name}"),
            Node::Attributes(op) => write!(f, "attributes#{}", op.0),
            Node::Apply(mnemonic, _) => f.write_str(mnemonic),
            Node::Kernel(nest, Algorithm::Direct, _) => write!(f, "kernel#{}", nest.0),
            Node::Kernel(nest, Algorithm::Winograd(products), _) => {
                write!(f, "kernel#{}:winograd{products}", nest.0)
            }
            Node::Vectors(nest, Vectors { factor, dimension }, _) => {
                write!(f, "kernel#{}:vectors{factor}.{dimension}", nest.0)
            }
            Node::Innermost(dimension, _) => write!(f, "innermost#{dimension}"),
            Node::Result(i, _) => write!(f, "result#{i}"),
        }
    }
}

/// Patterns name operations only: kernels are matched by rules written in Rust.
impl FromOp for Node {
    type Error = String;

    fn from_op(op: &str, children: Vec<Id>) -> Result<Node, String> {
        match MNEMONICS.iter().find(|mnemonic| **mnemonic == op) {
            Some(mnemonic) => Ok(Node::Apply(mnemonic, children.into())),
            None => Err(format!("{op} is no operation")),
        }
    }
}

/// An e-graph of tensors.
pub type TensorEGraph = EGraph<Node, TensorAnalysis>;

/// What is known of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassData {
    /// A tensor of this type in its natural order; the name is that of a node of the graph, if one stands for it.
    Value(Type, Option<String>),
    /// A tensor of this type of which another dimension runs fastest.
    Relayout(Type, u32),
    /// The outputs of a kernel, and the node of the graph that it computes.
    Kernel(Vec<Type>, String),
    /// Attributes.
    Attributes(OpId),
}

/// The analysis: types by the operations' own rules, and the tables that nodes refer to.
#[derive(Clone, Debug, Default)]
pub struct TensorAnalysis {
    /// Operations, for [`Node::Attributes`].
    pub ops: Interner<OpId, Op>,
    /// Nests, for [`Node::Kernel`].
    pub nests: Interner<NestId, Nest>,
    /// Types of leaves.
    pub leaves: HashMap<egg::Symbol, Type>,
    /// What may be computed inside of which kernel.
    pub anchors: Anchors,
    /// Which rule of algebra made an operation; those of the graph itself have none.
    pub made_by: HashMap<Node, &'static str>,
    /// The same of a kernel, by its class.
    pub kernels_by: BTreeMap<Id, &'static str>,
}

impl egg::Analysis<Node> for TensorAnalysis {
    type Data = ClassData;

    fn make(egraph: &mut TensorEGraph, node: &Node, _: Id) -> ClassData {
        let value = |id: Id| match &egraph[id].data {
            ClassData::Value(ty, _) => ty,
            other => panic!("an operand is a value: {other:?}"),
        };
        match node {
            Node::Leaf(name) => ClassData::Value(egraph.analysis.leaves[name].clone(), None),
            Node::Attributes(op) => ClassData::Attributes(*op),
            Node::Apply(mnemonic, children) => {
                let op = attributes(egraph, children[0]);
                assert_eq!(op.mnemonic(), *mnemonic, "attributes belong to their operation");
                let operands: Vec<&Type> = children[1..].iter().map(|&id| value(id)).collect();
                let ty = op
                    .infer_type(&operands)
                    .unwrap_or_else(|error| panic!("a rule made an ill-typed {mnemonic}: {error}"));
                ClassData::Value(ty, None)
            }
            Node::Innermost(dimension, [id]) => ClassData::Relayout(value(*id).clone(), *dimension),
            Node::Kernel(nest, ..) | Node::Vectors(nest, ..) => {
                let outputs = &egraph.analysis.nests[*nest].outputs;
                ClassData::Kernel(outputs.iter().map(output_type).collect(), String::new())
            }
            Node::Result(i, [kernel]) => match &egraph[*kernel].data {
                ClassData::Kernel(types, _) => ClassData::Value(types[*i as usize].clone(), None),
                other => panic!("results are of kernels: {other:?}"),
            },
        }
    }

    fn merge(&mut self, into: &mut ClassData, from: ClassData) -> DidMerge {
        match (into, from) {
            (ClassData::Value(ty, name), ClassData::Value(other, second)) => {
                assert_eq!(*ty, other, "equal values have one type: {name:?}, {second:?}");
                // The earlier name stays: names of nodes are given in the graph's order.
                let took = name.is_none() && second.is_some();
                let differs = *name != second;
                if took {
                    *name = second;
                }
                DidMerge(took, differs && !took)
            }
            (ClassData::Kernel(types, label), ClassData::Kernel(others, second)) => {
                assert_eq!(*types, others, "equal kernels have the same outputs");
                let took = label.is_empty() && !second.is_empty();
                let differs = *label != second;
                if took {
                    *label = second;
                }
                DidMerge(took, differs && !took)
            }
            (ClassData::Relayout(ty, d), ClassData::Relayout(other, second)) => {
                assert_eq!((&*ty, *d), (&other, second), "equal values lie in the same order");
                DidMerge(false, false)
            }
            (ClassData::Attributes(a), ClassData::Attributes(b)) => {
                assert_eq!(*a, b, "attributes are equal to none but themselves");
                DidMerge(false, false)
            }
            (a, b) => panic!("a rule joined different kinds: {a:?} and {b:?}"),
        }
    }
}

fn output_type(output: &ir::nest::Output) -> Type {
    let shape: Vec<Dim> = output.extents.iter().map(|&n| Dim::Fixed(n)).collect();
    Type::new(output.dtype, shape)
}

/// The operation whose attributes a class is.
pub fn attributes(egraph: &TensorEGraph, id: Id) -> &Op {
    match &egraph[id].data {
        ClassData::Attributes(op) => &egraph.analysis.ops[*op],
        other => panic!("the first child of an operation is its attributes: {other:?}"),
    }
}

/// The type of a class of values.
pub fn value_type(egraph: &TensorEGraph, id: Id) -> &Type {
    match &egraph[id].data {
        ClassData::Value(ty, _) | ClassData::Relayout(ty, _) => ty,
        other => panic!("this class is a value: {other:?}"),
    }
}

/// The dimension of a class of values that runs fastest in memory; none of a scalar.
pub fn innermost(egraph: &TensorEGraph, id: Id) -> Option<usize> {
    let rank = match &egraph[id].data {
        ClassData::Relayout(_, dimension) => return Some(*dimension as usize),
        ClassData::Value(ty, _) => ty.rank(),
        other => panic!("this class is a value: {other:?}"),
    };
    let is_leaf = |node: &Node| matches!(node, Node::Leaf(_));
    match egraph[id].nodes.iter().any(is_leaf) {
        true => Layout::row_major(rank),
        false => Layout::channels_last(rank),
    }
    .innermost()
}

/// The name of a class of values, if a node of the graph stands for it.
pub fn value_name(egraph: &TensorEGraph, id: Id) -> Option<&str> {
    match &egraph[id].data {
        ClassData::Value(_, name) => name.as_deref(),
        _ => None,
    }
}

/// The node of the graph that a kernel computes.
pub fn label(egraph: &TensorEGraph, id: Id) -> &str {
    match &egraph[id].data {
        ClassData::Kernel(_, label) => label,
        other => panic!("this class is a kernel: {other:?}"),
    }
}

/// Notes that a rule made the e-nodes from number `first` on.
pub fn note_rule(egraph: &mut TensorEGraph, first: usize, rule: &'static str) {
    let made: Vec<Node> = egraph.nodes()[first..].to_vec();
    for node in made.into_iter().filter(|node| matches!(node, Node::Apply(..))) {
        egraph.analysis.made_by.entry(node).or_insert(rule);
    }
}

/// Brings the keys of notes up to date with the unions since.
pub fn canonicalize_rules(egraph: &mut TensorEGraph) {
    let notes = std::mem::take(&mut egraph.analysis.made_by);
    let settled = notes
        .into_iter()
        .map(|(node, rule)| (node.map_children(|id| egraph.find(id)), rule));
    egraph.analysis.made_by = settled.collect();
}

/// Adds an operation.
pub fn add_op(egraph: &mut TensorEGraph, op: &Op, operands: &[Id]) -> Id {
    let id = egraph.analysis.ops.intern(op.clone());
    let attributes = egraph.add(Node::Attributes(id));
    let children: Vec<Id> = [attributes].into_iter().chain(operands.iter().copied()).collect();
    egraph.add(Node::Apply(op.mnemonic(), children.into()))
}

/// Adds a kernel and gives its class and outputs; the label is kept if the kernel is new.
pub fn add_kernel(egraph: &mut TensorEGraph, nest: Nest, operands: &[Id], label: &str) -> (Id, Vec<Id>) {
    let outputs = nest.outputs.len() as u32;
    let nest = egraph.analysis.nests.intern(nest);
    let kernel = egraph.add(Node::Kernel(nest, Algorithm::Direct, operands.into()));
    if let ClassData::Kernel(types, known) = &egraph[kernel].data
        && known.is_empty()
    {
        let data = ClassData::Kernel(types.clone(), label.to_string());
        egraph.set_analysis_data(kernel, data);
    }
    let results = (0..outputs).map(|i| egraph.add(Node::Result(i, [kernel])));
    let results = results.collect();
    (kernel, results)
}
