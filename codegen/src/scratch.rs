//! Where the scratch memory of kernels lies: between what is alive while they run, or else at the arena's end.

use ir::DType;
use ir::live::{LiveRange, liveness};
use ir::plan::{Allocation, Buffer, Role};
use ir::program::Program;

/// Alignment of buffers in bytes.
const ALIGNMENT: u64 = 64;

/// The scratch memory of a program's kernels.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    /// Where the values of the arena are alive.
    live: Vec<LiveRange>,
    /// Buffers of a plan before these.
    before: usize,
    /// One for every kernel that has some.
    pub(crate) buffers: Vec<Buffer>,
    /// Bytes of each device's arena, scratch memory included.
    pub(crate) arena_bytes: Vec<u64>,
}

impl Scratch {
    /// None yet, after so many buffers.
    pub(crate) fn new(program: &Program, before: usize) -> Scratch {
        Scratch {
            live: liveness(program),
            before,
            buffers: vec![],
            arena_bytes: program.arena_bytes.clone(),
        }
    }

    /// Adds that of kernel `k`; the position of its buffer in the plan.
    pub(crate) fn add(&mut self, program: &Program, k: usize, bytes: u64) -> usize {
        let device = program.device_of(&program.kernels[k]);
        let here = self.live.iter().filter(|live| live.at(k));
        let taken = here.filter_map(|live| {
            let value = program.value(live.value);
            match value.allocation {
                Allocation::Arena(from) if value.device == device => Some((from, from + live.bytes)),
                _ => None,
            }
        });
        let mut taken: Vec<(u64, u64)> = taken.collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (from, to) in taken {
            if from >= offset + bytes {
                break;
            }
            offset = offset.max(to);
        }
        let arena = &mut self.arena_bytes[device.0];
        *arena = (*arena).max((offset + bytes).next_multiple_of(ALIGNMENT));
        self.buffers.push(Buffer {
            name: "scratch".to_string(),
            dtype: DType::F32,
            bytes,
            device: device.0,
            role: Role::Temporary,
            allocation: Allocation::Arena(offset),
            shard: None,
        });
        self.before + self.buffers.len() - 1
    }
}
