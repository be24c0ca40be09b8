//! What the runtime sees: plain data, no graph.
//!
//! A plan names buffers and the launches that fill them, in order. The compiler writes it, the artifact holds
//! it as JSON, and the runtime checks it ([`Plan::check`]) before anything runs.

use crate::types::DType;
use serde::{Deserialize, Serialize};

/// The version of this format; a loader refuses any other.
pub const VERSION: u32 = 2;

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
    /// Bytes of the arena that [`Place::Arena`] buffers of each device share.
    pub arena_bytes: Vec<u64>,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// All kernels.
    pub kernels: Vec<Kernel>,
    /// Run once after parameters were set from outside: packs weights that stay constant.
    pub prepare: Vec<Launch>,
    /// One run, in order.
    pub step: Vec<Launch>,
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
    pub place: Place,
}

/// What a buffer is for. Interface buffers are row-major in their logical shape.
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
    /// Written by [`Plan::prepare`], read by steps: weights in another layout.
    Prepared,
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
            Role::Prepared | Role::Temporary => None,
        }
    }
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// An allocation of its own.
    Own,
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
pub struct Kernel {
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
    /// Floating-point operations of all tasks.
    pub flops: u64,
    /// Bytes read and written at the least, by all tasks.
    pub bytes: u64,
}

/// One execution of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// What is computed, for messages and profiles: the names of the nodes.
    pub label: String,
    /// Position in [`Plan::kernels`].
    pub kernel: usize,
    /// Position in [`Plan::devices`].
    pub device: usize,
    /// Positions in [`Plan::buffers`]; operands first, then results.
    pub arguments: Vec<usize>,
}

/// A plan that must not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan is not sound: {0}. The artifact is damaged or was not written by alexc; compile it again")]
pub struct PlanError(pub String);

impl Plan {
    /// Checks every reference and bound, so that running the plan touches only its own buffers.
    pub fn check(&self) -> Result<(), PlanError> {
        let fail = |what: String| Err(PlanError(what));
        if self.version != VERSION {
            return fail(format!("format version {} instead of {VERSION}", self.version));
        }
        if self.devices.is_empty() || self.arena_bytes.len() != self.devices.len() {
            return fail(format!(
                "{} devices with {} arenas",
                self.devices.len(),
                self.arena_bytes.len()
            ));
        }
        for buffer in &self.buffers {
            let (name, device) = (&buffer.name, buffer.device);
            let Some(&arena) = self.arena_bytes.get(device) else {
                return fail(format!(
                    "buffer {name} lies on device {device} of {}",
                    self.devices.len()
                ));
            };
            if let Place::Arena(offset) = buffer.place {
                if offset % 64 != 0 || offset.checked_add(buffer.bytes).is_none_or(|end| end > arena) {
                    return fail(format!(
                        "buffer {name} lies at {offset} in an arena of {arena} bytes"
                    ));
                }
                if !matches!(buffer.role, Role::Temporary) {
                    return fail(format!("buffer {name} outlives a run but lies in the arena"));
                }
            }
            if let Some(shape) = buffer.role.shape() {
                let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
                let bytes = elements.and_then(|n| n.checked_mul(buffer.dtype.bytes() as u64));
                if bytes != Some(buffer.bytes) {
                    return fail(format!(
                        "buffer {name} of shape {shape:?} has {} bytes",
                        buffer.bytes
                    ));
                }
            }
        }
        for kernel in &self.kernels {
            let symbol = &kernel.symbol;
            if symbol.is_empty() || !symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return fail(format!("{symbol:?} is no kernel symbol"));
            }
        }
        for launch in self.prepare.iter().chain(&self.step) {
            let label = &launch.label;
            let Some(kernel) = self.kernels.get(launch.kernel) else {
                return fail(format!(
                    "launch {label} names kernel {} of {}",
                    launch.kernel,
                    self.kernels.len()
                ));
            };
            if launch.device >= self.devices.len() {
                return fail(format!(
                    "launch {label} names device {} of {}",
                    launch.device,
                    self.devices.len()
                ));
            }
            if launch.arguments.len() != kernel.argument_bytes.len() {
                return fail(format!(
                    "launch {label} passes {} arguments",
                    launch.arguments.len()
                ));
            }
            for (&argument, &least) in launch.arguments.iter().zip(&kernel.argument_bytes) {
                match self.buffers.get(argument) {
                    Some(buffer) if buffer.bytes >= least && buffer.device == launch.device => {}
                    Some(buffer) => {
                        let (name, bytes) = (&buffer.name, buffer.bytes);
                        return fail(format!(
                            "launch {label} needs {least} bytes in {name}, which has {bytes}"
                        ));
                    }
                    None => return fail(format!("launch {label} names buffer {argument}")),
                }
            }
        }
        Ok(())
    }

    /// The buffer of the interface with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.buffers
            .iter()
            .position(|b| b.name == name && b.role.shape().is_some())
    }
}
