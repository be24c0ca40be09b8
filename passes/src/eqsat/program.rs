//! A selection of kernels as a program.

use super::kernel::{ClassKernel, class_of};
use super::language::{TensorEGraph, value_name, value_type};
use super::variants::KernelVariant;
use crate::copies::fold_copies;
use crate::error::PassError;
use crate::lower::{Lowered, lowered};
use egg::Id;
use ir::Graph;
use ir::layout::Layout;
use ir::nest::{Nest, Source};
use ir::plan::{Allocation, Mode, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};
use std::collections::HashMap;

/// Kernels over the interface of the graph that the e-graph was made from.
pub(super) struct Making<'a> {
    pub egraph: &'a TensorEGraph,
    pub graph: &'a Graph,
    /// The classes of the graph's nodes.
    pub classes: &'a [Id],
}

impl Making<'_> {
    /// The program of kernels in the order they run, each with the way in which it is computed and its label.
    pub fn program(
        &self,
        mode: Mode,
        batch: usize,
        kernels: Vec<((ClassKernel, KernelVariant), String)>,
    ) -> Result<Program, PassError> {
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
        for ((kernel, variant), label) in kernels {
            let call = self.call(&mut program, &mut places, kernel, label);
            program.kernels.push(Kernel {
                algorithm: Some(variant.algorithm),
                vectors: variant.vectors.map(|(vectors, _)| vectors),
                ..call
            });
        }
        for (value, class) in again {
            let Value {
                name, dtype, extents, ..
            } = program.value(value).clone();
            program.kernels.push(Kernel::new(
                name,
                Nest::copy(dtype, &extents),
                vec![places[&class]],
                vec![value],
            ));
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

    fn call(
        &self,
        program: &mut Program,
        places: &mut HashMap<Id, ValueId>,
        kernel: ClassKernel,
        label: String,
    ) -> Kernel {
        let ClassKernel {
            mut nest, results, ..
        } = kernel;
        let mut place = |class: Id| {
            *places
                .entry(class)
                .or_insert_with(|| add_value(program, self.egraph, class))
        };
        let results: Vec<ValueId> = results.into_iter().map(&mut place).collect();
        let mut operands: Vec<ValueId> = vec![];
        for read in &mut nest.reads {
            let value = place(class_of(read.source));
            let position = operands.iter().position(|&v| v == value).unwrap_or_else(|| {
                operands.push(value);
                operands.len() - 1
            });
            read.source = Source::Operand(position);
        }
        Kernel::new(label, nest, operands, results)
    }
}

fn is_interface(program: &Program, value: ValueId) -> bool {
    !matches!(program.value(value).role, Role::Temporary)
}

/// A place for a value that only rules know of.
fn add_value(program: &mut Program, egraph: &TensorEGraph, class: Id) -> ValueId {
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
        batch_slice: false,
        allocation: Allocation::Dedicated,
        device: DeviceId::default(),
        shard: None,
    });
    id
}
