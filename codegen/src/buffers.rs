//! Where in a plan the values of a program lie.

use crate::operand;
use ir::plan::{Allocation, Buffer, Role};
use ir::program::{Program, ValueId};
use std::collections::HashSet;

/// The buffers of a program's values: one a value that is no alias and is touched, then one a micro-batch of every batch slice.
#[derive(Clone, Debug)]
pub struct Buffers {
    list: Vec<Buffer>,
    /// The buffer of each value; of a batch slice, that of the first micro-batch.
    of: Vec<usize>,
    /// How far a value moves with every micro-batch.
    step: Vec<usize>,
}

impl Buffers {
    /// Those of a program.
    pub fn new(program: &Program) -> Buffers {
        let all = || (0..program.values.len()).map(ValueId);
        let mut buffers = Buffers {
            list: vec![],
            of: vec![usize::MAX; program.values.len()],
            step: vec![0; program.values.len()],
        };
        let touched: HashSet<ValueId> = program
            .kernels
            .iter()
            .flat_map(|call| call.operands.iter().chain(&call.results))
            .map(|&id| program.owner(id))
            .collect();
        let stays = |id: ValueId| program.value(id).role != Role::Temporary || touched.contains(&id);
        for id in all().filter(|&id| program.owner(id) == id && stays(id)) {
            buffers.of[id.0] = buffers.list.len();
            let value = program.value(id);
            buffers.list.push(Buffer {
                name: value.name.clone(),
                dtype: value.dtype,
                bytes: operand(program, id).bytes(),
                device: value.device.0,
                role: value.role.clone(),
                allocation: value.allocation,
                shard: value.shard.clone(),
            });
        }
        for id in all().filter(|&id| program.owner(id) != id && stays(program.owner(id))) {
            let owner = buffers.of[program.owner(id).0];
            let value = program.value(id);
            if !value.batch_slice {
                buffers.of[id.0] = owner;
                continue;
            }
            let whole = buffers.list[owner].clone();
            let Allocation::Arena(first) = whole.allocation else {
                panic!(
                    "batch slices move over values of the arena, and {} is none",
                    whole.name
                );
            };
            let bytes = operand(program, id).bytes();
            buffers.of[id.0] = buffers.list.len();
            buffers.step[id.0] = 1;
            buffers
                .list
                .extend((0..whole.bytes / bytes).map(|micro_batch| Buffer {
                    bytes,
                    allocation: Allocation::Arena(first + micro_batch * bytes),
                    ..whole.clone()
                }));
        }
        buffers
    }

    /// All of them.
    pub(crate) fn list(&self) -> &[Buffer] {
        &self.list
    }

    /// The buffer of a value, by its position; of a batch slice, that of the first micro-batch.
    pub fn of(&self, id: ValueId) -> usize {
        self.of[id.0]
    }

    /// The buffer of a value at a micro-batch.
    pub(crate) fn at(&self, id: ValueId, micro_batch: usize) -> usize {
        self.of[id.0] + micro_batch * self.step[id.0]
    }
}
