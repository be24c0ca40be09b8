//! A selection of kernels as a program.

use super::extract::{Taken, ValueIx};
use super::language::{Node, Tensors, origin, value_name, value_type};
use crate::error::PassError;
use crate::fuse::{fold_copies, retain};
use crate::lower::{Lowered, lowered};
use crate::substitute::normalize;
use egg::Id;
use ir::Graph;
use ir::layout::Layout;
use ir::nest::{Nest, Source};
use ir::plan::{Mode, Place, Role};
use ir::program::{KernelCall, Program, Value, ValueId};
use std::collections::HashMap;

/// The selected kernels over the interface of the graph that the e-graph was made from.
///
/// `classes` are those of the graph's nodes, `kernels` the class of each candidate, `values` that of each value.
pub(super) struct Making<'a> {
    pub egraph: &'a Tensors,
    pub graph: &'a Graph,
    pub classes: &'a [Id],
    pub kernels: &'a [Id],
    pub values: &'a [Id],
}

impl Making<'_> {
    pub fn program(&self, mode: Mode, batch: usize, taken: &[Taken]) -> Result<Program, PassError> {
        let Lowered {
            mut program,
            values,
            copies,
        } = lowered(self.graph, mode, batch)?;
        let finishing = program.kernels.split_off(copies);
        program.kernels.clear();

        // A class lies where its interface value does, if it has one.
        let mut places: HashMap<Id, ValueId> = HashMap::new();
        let mut again: Vec<(ValueId, Id)> = vec![];
        for node in self.graph.ids() {
            let (value, class) = (values[&node], self.class(node.index()));
            let kept = match places.get(&class) {
                None => true,
                Some(&other) => is_interface(&program, value) && !is_interface(&program, other),
            };
            if let Some(other) = places.get(&class).copied().filter(|_| !kept)
                && is_interface(&program, value)
                && other != value
            {
                again.push((value, class));
            }
            if kept {
                places.insert(class, value);
            }
        }
        for taken in taken {
            let call = self.call(&mut program, &mut places, taken);
            program.kernels.push(call);
        }
        for (value, class) in again {
            let Value { name, dtype, extents, .. } = program.value(value).clone();
            program.kernels.push(KernelCall {
                label: name,
                nest: Nest::copy(dtype, &extents),
                operands: vec![places[&class]],
                results: vec![value],
                prepare: false,
            });
        }
        // The finishing copies read values of nodes, which may lie in the place of an equal one.
        let equal: HashMap<ValueId, ValueId> = self
            .graph
            .ids()
            .map(|node| (values[&node], places[&self.class(node.index())]))
            .collect();
        for mut call in finishing {
            for operand in &mut call.operands {
                *operand = equal.get(operand).copied().unwrap_or(*operand);
            }
            program.kernels.push(call);
        }
        fold_copies(&mut program);
        Ok(program)
    }

    fn class(&self, node: usize) -> Id {
        self.egraph.find(self.classes[node])
    }

    fn call(&self, program: &mut Program, places: &mut HashMap<Id, ValueId>, taken: &Taken) -> KernelCall {
        let kernel = self.kernels[taken.candidate];
        let (nest, operands) = nest_of(self.egraph, kernel);
        let mut nest = nest.clone();
        let results: Vec<Id> = results_of(self.egraph, kernel);
        let stored = |class: &Id| {
            let ValueIx(value) = *taken
                .stores
                .iter()
                .find(|v| self.egraph.find(self.values[v.0]) == *class)?;
            Some(value)
        };
        let mut keep: Vec<bool> = results.iter().map(|class| stored(class).is_some()).collect();
        // A value may be offered twice by one kernel.
        for i in 0..keep.len() {
            keep[i] &= !results[..i].contains(&results[i]);
        }
        retain(&mut nest.outputs, &keep);
        let mut results = results;
        retain(&mut results, &keep);
        let mut nest = normalize(nest);
        let mut place = |class: Id| {
            *places
                .entry(class)
                .or_insert_with(|| add_value(program, self.egraph, class))
        };
        let results: Vec<ValueId> = results.into_iter().map(&mut place).collect();
        let mut used: Vec<ValueId> = vec![];
        for read in &mut nest.reads {
            let Source::Operand(i) = read.source else {
                unreachable!("kernels read operands")
            };
            let value = place(self.egraph.find(operands[i]));
            let position = used.iter().position(|&v| v == value).unwrap_or_else(|| {
                used.push(value);
                used.len() - 1
            });
            read.source = Source::Operand(position);
        }
        KernelCall {
            label: origin(self.egraph, kernel).label.clone(),
            nest,
            operands: used,
            results,
            prepare: false,
        }
    }
}

/// The nest of a class of kernels, and its operands.
pub(super) fn nest_of(egraph: &Tensors, kernel: Id) -> (&Nest, &[Id]) {
    let node = egraph[kernel].nodes.iter().find_map(|node| match node {
        Node::Kernel(nest, operands) => Some((&egraph.analysis.nests[*nest], &operands[..])),
        _ => None,
    });
    node.expect("a class of kernels has a kernel")
}

/// The classes of a kernel's outputs.
pub(super) fn results_of(egraph: &Tensors, kernel: Id) -> Vec<Id> {
    let outputs = nest_of(egraph, kernel).0.outputs.len() as u32;
    let result = |i| egraph.lookup(Node::Result(i, [kernel]));
    (0..outputs)
        .map(|i| egraph.find(result(i).expect("the outputs of a kernel were added with it")))
        .collect()
}

fn is_interface(program: &Program, value: ValueId) -> bool {
    !matches!(program.value(value).role, Role::Temporary)
}

/// A place for a value that only rules know of.
fn add_value(program: &mut Program, egraph: &Tensors, class: Id) -> ValueId {
    let ty = value_type(egraph, class);
    let id = ValueId(program.values.len());
    let name = value_name(egraph, class).map_or_else(|| format!("value.{}", id.0), str::to_string);
    program.values.push(Value {
        name,
        dtype: ty.dtype,
        extents: ty.extents(),
        layout: Layout::row_major(ty.rank()),
        role: Role::Temporary,
        alias: None,
        place: Place::Own,
    });
    id
}
