//! Graph to program: every nest of every node's meaning becomes a kernel, every value is stored.
//!
//! Nothing is decided here. What leaves the program gets its role: a graph output that is no leaf is stored
//! straight into its buffer, everything else that must appear in a particular buffer is copied there. So an
//! updated parameter is a copy at the end, into a value that shares the parameter's buffer; `fuse` lets the
//! kernel that makes the value write it there.

use crate::error::PassError;
use crate::training::is_state;
use ir::nest::{Nest, Source};
use ir::ops::Op;
use ir::plan::{Allocation, Mode, Role};
use ir::program::{DeviceId, Kernel, Program, Value, ValueId};
use ir::types::{DType, Real};
use ir::{Graph, NodeId};
use std::collections::HashMap;

/// A program beside the graph that it was made from.
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// The value of every node.
    pub values: HashMap<NodeId, ValueId>,
    /// Kernels from this one on copy finished values to where the interface wants them.
    pub copies: usize,
}

/// The program of a bound graph, in the graph's order, without any fusion.
pub fn lower(graph: &Graph, mode: Mode, batch: usize) -> Result<Program, PassError> {
    Ok(lowered(graph, mode, batch)?.program)
}

/// The same, with the value of every node.
pub fn lowered(graph: &Graph, mode: Mode, batch: usize) -> Result<Lowered, PassError> {
    let program = Program {
        model: graph.name().to_string(),
        mode,
        batch,
        values: vec![],
        kernels: vec![],
        arena_bytes: vec![0],
        flops: 0,
    };
    let mut lowering = Lowering {
        graph,
        program,
        values: HashMap::new(),
    };
    for id in graph.ids() {
        lowering.node(id)?;
    }
    let copies = lowering.program.kernels.len();
    lowering.outputs()?;
    lowering.updates();
    let Lowering { program, values, .. } = lowering;
    Ok(Lowered {
        program,
        values,
        copies,
    })
}

/// Multiplications and additions of a contraction, the points where a stride does not divide left out.
fn flops(nest: &Nest) -> u64 {
    let Some((a, b)) = nest.contraction() else {
        return 0;
    };
    let divisors: u64 = [a, b]
        .iter()
        .flat_map(|&r| &nest.reads[r].index)
        .map(|index| index.divisor as u64)
        .product();
    2 * nest.points() / divisors
}

struct Lowering<'a> {
    graph: &'a Graph,
    program: Program,
    values: HashMap<NodeId, ValueId>,
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), PassError> {
        let node = self.graph.node(id);
        let extents = node.ty.extents();
        if node.op.is_leaf() {
            let role = self.leaf_role(id, &node.op, extents.clone());
            let value = self.value(&node.name, node.ty.dtype, extents, role);
            self.values.insert(id, value);
            return Ok(());
        }
        let operands: Vec<ValueId> = self.graph.operands(id).iter().map(|o| self.values[o]).collect();
        let nests = node.op.semantics(&self.graph.operand_types(id), &node.ty);
        let last = nests.len().checked_sub(1).ok_or_else(|| PassError::Node {
            pass: "lower",
            node: node.name.clone(),
            fault: format!("{} has no meaning as a nest", node.op.mnemonic()),
        })?;
        let mut stages = vec![];
        for (stage, mut nest) in nests.into_iter().enumerate() {
            self.program.flops += flops(&nest);
            let output = &nest.outputs[0];
            let (name, role) = match self.graph.outputs().iter().find(|o| o.1 == id) {
                _ if stage != last => (format!("{}.stage{stage}", node.name), Role::Temporary),
                Some((name, _)) => (
                    name.clone(),
                    Role::Output {
                        shape: extents.clone(),
                    },
                ),
                None => (node.name.clone(), Role::Temporary),
            };
            let result = self.value(&name, output.dtype, output.extents.clone(), role);
            // Operands of the kernel: those of the node, then the earlier stages.
            for read in &mut nest.reads {
                if let Source::Intermediate(s) = read.source {
                    read.source = Source::Operand(operands.len() + s);
                }
            }
            self.program.kernels.push(Kernel::new(
                node.name.clone(),
                nest,
                operands.iter().chain(&stages).copied().collect(),
                vec![result],
            ));
            stages.push(result);
        }
        self.values.insert(id, stages[last]);
        Ok(())
    }

    fn leaf_role(&self, id: NodeId, op: &Op, shape: Vec<usize>) -> Role {
        let Op::Parameter(parameter) = op else {
            return Role::Input { shape };
        };
        let init = match parameter.init {
            ir::ops::Init::Constant(Real(value)) => ir::plan::Init::Constant(value),
            ir::ops::Init::Normal(Real(std)) => ir::plan::Init::Normal(std),
        };
        if is_state(self.graph, id) {
            Role::State { shape, init }
        } else {
            Role::Parameter { shape, init }
        }
    }

    fn value(&mut self, name: &str, dtype: DType, extents: Vec<usize>, role: Role) -> ValueId {
        let (layout, name) = (ir::layout::Layout::row_major(extents.len()), name.to_string());
        let allocation = Allocation::Dedicated;
        self.program.values.push(Value {
            name,
            dtype,
            extents,
            layout,
            role,
            alias: None,
            batch_slice: false,
            allocation,
            device: DeviceId::default(),
            shard: None,
        });
        ValueId(self.program.values.len() - 1)
    }

    fn copy(&mut self, from: ValueId, name: &str, role: Role) -> ValueId {
        let Value { dtype, extents, .. } = self.program.value(from).clone();
        let nest = Nest::copy(dtype, &extents);
        let result = self.value(name, dtype, extents, role);
        let label = name.to_string();
        let call = Kernel::new(label, nest, vec![from], vec![result]);
        self.program.kernels.push(call);
        result
    }

    /// Copies outputs that are leaves, or that have several names.
    fn outputs(&mut self) -> Result<(), PassError> {
        let graph = self.graph;
        for (name, id) in graph.outputs() {
            if graph.find(name).is_some_and(|leaf| graph.node(leaf).op.is_leaf()) {
                return Err(PassError::Node {
                    pass: "lower",
                    node: name.clone(),
                    fault: "an input or parameter and an output share this name; rename the output".into(),
                });
            }
            let value = self.values[id];
            let stored = self.program.value(value);
            if stored.name != *name || !matches!(stored.role, Role::Output { .. }) {
                let shape = stored.extents.clone();
                self.copy(value, name, Role::Output { shape });
            }
        }
        Ok(())
    }

    /// Copies next values into the buffers of their parameters, after everything else.
    fn updates(&mut self) {
        let graph = self.graph;
        let mut pending = vec![];
        for &(state, next) in graph.updates().iter().filter(|(state, next)| state != next) {
            let name = format!("{}.next", graph.node(state).name);
            let mut value = self.values[&next];
            if graph.node(next).op.is_leaf() {
                // The other parameter may be overwritten itself before this one is.
                value = self.copy(value, &format!("{name}.kept"), Role::Temporary);
            }
            pending.push((state, value, name));
        }
        for (state, value, name) in pending {
            let result = self.copy(value, &name, Role::Temporary);
            self.program.values[result.0].alias = Some(self.values[&state]);
        }
    }
}
