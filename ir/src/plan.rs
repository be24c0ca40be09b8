//! What the runtime sees: plain data, no graph.
//!
//! A plan names buffers and the launches that fill them, in order. The compiler writes it, the artifact holds
//! it as JSON, and the runtime checks it ([`Plan::check`]) before anything runs. Kernels and transfers of each device
//! are queues of their own, which run beside each other; [`crate::order`] says what waits for what.

use crate::types::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of this format; a loader refuses any other.
pub const VERSION: u32 = 4;

/// The training step's learning rate: an f32 scalar input that the driver sets every step.
pub const LEARNING_RATE: &str = "train.learning_rate";
/// Seed and step number: an i64 `[2]` input that the driver sets every step; random operations read it.
pub const RANDOM_STATE: &str = "train.random_state";
/// The class of every sample: an i64 `[N]` input of training plans.
pub const LABELS: &str = "labels";
/// The mean loss over the batch: an f32 scalar output of training plans.
pub const LOSS: &str = "loss";

/// In [`Plan::devices`]: host objects, which processors run.
pub const CPU: &str = "cpu";
/// In [`Plan::devices`]: PTX, which GPUs and their emulator run.
pub const PTX: &str = "ptx";

/// A program for one or more devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// The model's name.
    pub model: String,
    /// What one run does.
    pub mode: Mode,
    /// The number of samples of one run.
    pub batch: usize,
    /// The code that each device runs: [`CPU`] or [`PTX`]; launches refer to them by position.
    pub devices: Vec<String>,
    /// Bytes of the arena that [`Allocation::Arena`] buffers of each device share.
    pub arena_bytes: Vec<u64>,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All kernels.
    pub kernels: Vec<CompiledKernel>,
    /// Run once after parameters were set from outside: packs weights that stay constant.
    pub prepack: Vec<Command>,
    /// One run, in order.
    pub step: Vec<Command>,
    /// Floating-point operations of one run (multiply and add are two), by the model's own count.
    pub flops: u64,
}

/// What one run of a plan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Inputs to outputs.
    Infer,
    /// One step: forward, loss, backward, update.
    Train,
    /// Inputs and labels to the loss and the gradient of every parameter.
    Gradients,
}

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// For messages and profiles; named buffers of the interface are found by it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Bytes, padding for layout included.
    pub bytes: u64,
    /// The device that holds it.
    pub device: usize,
    /// What it is for.
    pub role: Role,
    /// Where it lies.
    pub allocation: Allocation,
    /// Of the interface: which part of the tensor it holds, if not all of it. Buffers of one name are parts or copies
    /// of one tensor, at most one on each device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Region>,
}

/// A hyper-rectangle of a tensor: a range of each dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The first element of each dimension.
    pub offset: Vec<usize>,
    /// Elements of each dimension.
    pub shape: Vec<usize>,
}

impl Region {
    /// All of a tensor.
    pub fn whole(shape: &[usize]) -> Region {
        Region {
            offset: vec![0; shape.len()],
            shape: shape.to_vec(),
        }
    }

    /// Whether it lies within a tensor of this shape.
    pub fn lies_in(&self, shape: &[usize]) -> bool {
        let mut sides = self.offset.iter().zip(&self.shape).zip(shape);
        self.offset.len() == shape.len()
            && self.shape.len() == shape.len()
            && sides.all(|((from, count), all)| from.checked_add(*count).is_some_and(|to| to <= *all))
    }

    /// Whether every element of a tensor is in one of its parts. The parts' ends cut it into cells that lie in a part or
    /// outside of it as wholes.
    pub fn cover(parts: &[&Region], shape: &[usize]) -> bool {
        let starts = |d: usize| -> Vec<usize> {
            let ends = parts
                .iter()
                .flat_map(|part| [part.offset[d], part.offset[d] + part.shape[d]]);
            let starts: BTreeSet<usize> = ends.chain([0]).filter(|&at| at < shape[d]).collect();
            starts.into_iter().collect()
        };
        let mut cells: Vec<Vec<usize>> = vec![vec![]];
        for d in 0..shape.len() {
            let starts = starts(d);
            let longer = |cell: Vec<usize>| {
                starts
                    .iter()
                    .map(move |&at| [&cell[..], &[at]].concat())
                    .collect::<Vec<_>>()
            };
            cells = cells.into_iter().flat_map(longer).collect();
            // Parts are of a few devices and cut few dimensions; a plan that says otherwise is not worth the memory.
            if cells.len() > 1 << 16 {
                return false;
            }
        }
        cells
            .iter()
            .all(|cell| parts.iter().any(|part| part.contains(cell)))
    }

    /// Whether an element of the tensor is in it.
    pub(crate) fn contains(&self, element: &[usize]) -> bool {
        let mut sides = self.offset.iter().zip(&self.shape).zip(element);
        sides.all(|((from, count), at)| at >= from && at - from < *count)
    }
}

/// What a buffer is for. Interface buffers are row-major in their logical shape; a part of a tensor in the part's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Role {
    /// Set by the caller before each run.
    Input {
        /// Logical shape.
        shape: Vec<usize>,
    },
    /// Read by the caller after each run.
    Output {
        /// Logical shape.
        shape: Vec<usize>,
    },
    /// A parameter of the model: in the weights file.
    Parameter {
        /// Logical shape.
        shape: Vec<usize>,
        /// How it starts.
        init: Init,
    },
    /// State of the optimiser: in checkpoints, not in weights files.
    State {
        /// Logical shape.
        shape: Vec<usize>,
        /// How it starts.
        init: Init,
    },
    /// Written by [`Plan::prepack`], read by steps: weights in another layout.
    Packed,
    /// Lives within one run.
    Temporary,
}

impl Role {
    /// The logical shape, for buffers of the interface.
    pub fn shape(&self) -> Option<&[usize]> {
        match self {
            Role::Input { shape }
            | Role::Output { shape }
            | Role::Parameter { shape, .. }
            | Role::State { shape, .. } => Some(shape),
            Role::Packed | Role::Temporary => None,
        }
    }
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// Memory of its own.
    Dedicated,
    /// At this byte offset of its device's arena, shared with buffers that are not alive at the same time.
    Arena(u64),
}

/// The initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Independent normal draws with mean 0 and this standard deviation.
    Normal(f64),
}

/// A compiled function. On the CPU its symbol is called as `(arguments: *const *mut u8, begin: i64, end: i64)`
/// and does tasks `begin..end`; on a GPU it is an entry whose parameters are the arguments' addresses, and a task is
/// a block. Tasks are independent and write disjoint elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledKernel {
    /// Its symbol: letters, digits and `_`.
    pub symbol: String,
    /// How many tasks there are: on a GPU, blocks of a grid of one dimension.
    pub tasks: u64,
    /// On a GPU, threads of a block, in one dimension; 0 on the CPU.
    pub threads: u32,
    /// On a GPU, bytes of shared memory that a launch asks for beside what the kernel declares itself.
    pub shared_bytes: u32,
    /// Least bytes that each argument's buffer must have.
    pub argument_bytes: Vec<u64>,
    /// How many of the arguments, the first ones, are only read.
    pub operands: usize,
    /// Floating-point operations of all tasks.
    pub flops: u64,
    /// Bytes read and written at the least, by all tasks.
    pub bytes: u64,
}

/// One thing that a device does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What is computed or moved, for messages and profiles: the names of the nodes.
    pub label: String,
    /// Position in [`Plan::devices`]; of a transfer, where the bytes come to.
    pub device: usize,
    /// What is done.
    pub work: CommandKind,
    /// Earlier launches of the step that must be done, beside those before it in its own queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<usize>,
}

/// What a launch does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandKind {
    /// Runs a kernel.
    Kernel {
        /// Position in [`Plan::kernels`].
        kernel: usize,
        /// Positions in [`Plan::buffers`]; operands first, then results.
        arguments: Vec<usize>,
    },
    /// Copies a buffer of another device, byte by byte.
    Transfer {
        /// Position in [`Plan::buffers`].
        from: usize,
        /// Position in [`Plan::buffers`].
        to: usize,
    },
}

impl Command {
    /// A launch of a kernel that waits for nothing but its own queue.
    pub fn kernel(label: impl Into<String>, device: usize, kernel: usize, arguments: Vec<usize>) -> Command {
        Command {
            label: label.into(),
            device,
            work: CommandKind::Kernel { kernel, arguments },
            after: vec![],
        }
    }

    /// The position of the kernel in [`Plan::kernels`]; `None` for a transfer.
    pub fn kernel_position(&self) -> Option<usize> {
        match self.work {
            CommandKind::Kernel { kernel, .. } => Some(kernel),
            CommandKind::Transfer { .. } => None,
        }
    }

    /// The buffers that it reads or writes.
    pub fn buffers(&self) -> Vec<usize> {
        match &self.work {
            CommandKind::Kernel { arguments, .. } => arguments.clone(),
            CommandKind::Transfer { from, to } => vec![*from, *to],
        }
    }
}

/// A plan that must not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan is not sound: {0}. The artifact is damaged or was not written by alexc; compile it again")]
pub struct PlanError(pub String);

impl Plan {
    /// The buffers of the interface with this name: one, or its parts and copies on several devices.
    pub fn find_all<'p>(&'p self, name: &'p str) -> impl Iterator<Item = usize> + 'p {
        let named = move |b: &Buffer| b.name == name && b.role.shape().is_some();
        (0..self.buffers.len()).filter(move |&i| named(&self.buffers[i]))
    }

    /// The first buffer of the interface with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.find_all(name).next()
    }

    /// The tensors of the interface: the first buffer of each name.
    pub fn interface(&self) -> impl Iterator<Item = &Buffer> {
        let mut seen = BTreeSet::new();
        let tensors = self.buffers.iter().filter(|b| b.role.shape().is_some());
        tensors.filter(move |b| seen.insert(&b.name))
    }
}
