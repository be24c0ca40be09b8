//! A scheduled graph: kernels over stored values, in the order they run.
//!
//! `passes` makes a program from a graph: it decides which values are *stored*, fuses the rest into the nests
//! of the kernels that need them, gives every stored value a layout and a place in memory. `codegen` turns
//! each kernel into code and the program into a [`crate::plan::Plan`].
//!
//! Every value lies on a device, and a kernel runs where its results lie. Only a *transfer* reads a value of another
//! device: a plain copy between two values of one layout.

pub mod text;

use crate::layout::Layout;
use crate::nest::{Nest, Source};
use crate::plan::{Allocation, Mode, Region, Role};
use crate::types::DType;

/// A stored value of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A device of a [`Program`]: a position in [`crate::plan::Plan::devices`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub usize);

/// A tensor that some kernel writes or the caller sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The node it came from.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Logical extents.
    pub extents: Vec<usize>,
    /// Where its elements lie.
    pub layout: Layout,
    /// What it is for; interface values are row-major.
    pub role: Role,
    /// Shares the buffer of another value of the same layout: of the same size (a parameter updated in place), or, if
    /// this one is a batch slice, of more samples.
    pub alias: Option<ValueId>,
    /// Is the micro-batch of `alias` that the kernels of a [`MicroBatchLoop`] are at: as many samples, one micro-batch after the other.
    pub batch_slice: bool,
    /// Where it lies, once memory is planned.
    pub allocation: Allocation,
    /// The device that holds it.
    pub device: DeviceId,
    /// Of the interface: which part of the tensor that `role` describes, if not all of it. Values of one name are
    /// parts or copies of one tensor.
    pub shard: Option<Region>,
}

/// A unit of work: one nest over stored values.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The nodes it computes, joined by `+`.
    pub label: String,
    /// What it computes; `Source::Operand(i)` is `operands[i]`, output `j` goes to `results[j]`.
    pub nest: Nest,
    /// Values read.
    pub operands: Vec<ValueId>,
    /// Values written, one an output of the nest. The kernel also writes zeros into their storage padding.
    pub results: Vec<ValueId>,
    /// Runs once after parameters are set, not every step.
    pub prepack: bool,
    /// Runs with its neighbours of the same micro-batch loop, on one micro-batch after the other.
    pub micro_batch_loop: Option<MicroBatchLoop>,
    /// How its sums are computed, once that is chosen.
    pub algorithm: Option<Algorithm>,
    /// Of a contraction on a processor, what it reads in vectors, once that is chosen.
    pub vectors: Option<Vectors>,
}

/// What a contraction reads in vectors: its layout has to let a dimension run fastest. The other factor's elements come
/// one by one, each for a whole vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vectors {
    /// Which of the two factors, as [`Nest::contraction`] gives them: 0 or 1.
    pub factor: usize,
    /// The dimension of its tensor that a vector lies along.
    pub dimension: usize,
}

/// How a kernel computes its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// As its nest says.
    Direct,
    /// By Winograd's algorithm with so many products along the dimension that has the most. A kernel of which nests of that
    /// algorithm were made keeps this on each of them.
    Winograd(usize),
}

/// Kernels that follow each other and together take `micro_batches` micro-batches, each on a micro-batch: an equal share of the batch.
///
/// What they hand to each other is as large as a micro-batch, and stays in caches if that is small. Of values that others
/// know too they read and write batch slices, which move on with every micro-batch; a value that they overwrite in place goes
/// through all micro-batches, and adds up what they find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroBatchLoop {
    /// Tells micro-batch loops of a program apart.
    pub number: usize,
    /// How often its kernels run in a step.
    pub micro_batches: usize,
}

impl Kernel {
    /// A kernel that runs in every step, about which nothing has been chosen yet.
    pub fn new(
        label: impl Into<String>,
        nest: Nest,
        operands: Vec<ValueId>,
        results: Vec<ValueId>,
    ) -> Kernel {
        Kernel {
            label: label.into(),
            nest,
            operands,
            results,
            prepack: false,
            micro_batch_loop: None,
            algorithm: None,
            vectors: None,
        }
    }

    /// How often it runs in a step.
    pub fn micro_batches(&self) -> usize {
        self.micro_batch_loop
            .map_or(1, |micro_batch_loop| micro_batch_loop.micro_batches)
    }
}

/// A scheduled graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The model's name.
    pub model: String,
    /// What one run does.
    pub mode: Mode,
    /// Samples of one run.
    pub batch: usize,
    /// Stored values.
    pub values: Vec<Value>,
    /// Kernels in the order they run.
    pub kernels: Vec<Kernel>,
    /// Bytes of the arena of each device.
    pub arena_bytes: Vec<u64>,
    /// Floating-point operations of one run by the model's own count.
    pub flops: u64,
}

impl Value {
    /// Bytes of its elements, storage padding included.
    pub fn bytes(&self) -> u64 {
        (self.layout.strides(&self.extents).elements * self.dtype.bytes()) as u64
    }
}

impl Program {
    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The value that owns the buffer of `id`: aliases followed to their end.
    pub fn owner(&self, id: ValueId) -> ValueId {
        self.value(id).alias.map_or(id, |other| self.owner(other))
    }

    /// The kernels of the program in order, those of a micro-batch loop together.
    pub fn kernel_sequences(&self) -> impl Iterator<Item = &[Kernel]> {
        let together =
            |a: &Kernel, b: &Kernel| a.micro_batch_loop.is_some() && a.micro_batch_loop == b.micro_batch_loop;
        self.kernels.chunk_by(together)
    }

    /// The device that a kernel runs on: that of its results.
    pub fn device_of(&self, kernel: &Kernel) -> DeviceId {
        let first = kernel.results.first();
        first.map_or(DeviceId::default(), |&id| self.value(id).device)
    }

    /// Whether a kernel brings a value from another device.
    pub fn is_transfer(&self, kernel: &Kernel) -> bool {
        let device = self.device_of(kernel);
        kernel.operands.iter().any(|&id| self.value(id).device != device)
    }

    /// Checks that devices exist, that a kernel stays on its own, and that what crosses is a transfer.
    fn verify_devices(&self) -> Result<(), String> {
        for value in &self.values {
            let (name, count) = (&value.name, self.arena_bytes.len());
            if value.device.0 >= count {
                return Err(format!("{name} lies on device {} of {count}", value.device.0));
            }
            let Some(shape) = value.role.shape() else { continue };
            let fits = match &value.shard {
                None => shape == value.extents,
                Some(part) => part.shape == value.extents && part.lies_in(shape),
            };
            if !fits {
                let (extents, part) = (&value.extents, &value.shard);
                return Err(format!("{name} of {extents:?} is no part {part:?} of {shape:?}"));
            }
        }
        for kernel in &self.kernels {
            let (label, device) = (&kernel.label, self.device_of(kernel));
            if kernel.results.iter().any(|&id| self.value(id).device != device) {
                return Err(format!("{label}: writes to several devices"));
            }
            if !self.is_transfer(kernel) {
                continue;
            }
            let ([from], [to]) = (&kernel.operands[..], &kernel.results[..]) else {
                return Err(format!("{label}: computes with values of several devices"));
            };
            let (from, to) = (self.value(*from), self.value(*to));
            if kernel.prepack || kernel.nest != Nest::copy(from.dtype, &from.extents) {
                return Err(format!("{label}: reads another device and is no plain copy"));
            }
            if from.layout != to.layout {
                return Err(format!(
                    "{label}: {} and {} are laid out differently",
                    from.name, to.name
                ));
            }
        }
        Ok(())
    }

    /// Checks that the kernels of a micro-batch loop follow each other, and that batch slices belong to micro-batch loops and move over all of a value.
    fn verify_micro_batch_loops(&self) -> Result<(), String> {
        let mut seen = vec![];
        for sequence in self.kernel_sequences() {
            let micro_batch_loop = sequence[0].micro_batch_loop;
            if let Some(micro_batch_loop) = micro_batch_loop
                && seen.contains(&micro_batch_loop.number)
            {
                return Err(format!(
                    "{}: apart from the others of its micro-batch loop",
                    sequence[0].label
                ));
            }
            seen.extend(micro_batch_loop.map(|micro_batch_loop| micro_batch_loop.number));
            for call in sequence {
                for &id in call.operands.iter().chain(&call.results) {
                    let (whole, slice) = (self.value(self.slice_base(id)), self.value(id));
                    if !slice.batch_slice {
                        continue;
                    }
                    let micro_batches = call.micro_batches();
                    let mut extents = slice.extents.clone();
                    extents[0] *= micro_batches;
                    // Samples must lie one after the other.
                    let apart = [whole, slice]
                        .iter()
                        .any(|value| value.layout.order[0] != 0 || value.layout.padding[0] != (0, 0));
                    if micro_batch_loop.is_none()
                        || extents != whole.extents
                        || whole.layout != slice.layout
                        || apart
                    {
                        return Err(format!(
                            "{}: {micro_batches} micro-batches of {} do not make {}",
                            call.label, slice.name, whole.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// The value that is written when this one is: all that a batch slice moves over, and else itself.
    pub fn slice_base(&self, id: ValueId) -> ValueId {
        let value = self.value(id);
        value.alias.filter(|_| value.batch_slice).unwrap_or(id)
    }

    /// Checks what every pass over programs must keep, and names the kernel at fault.
    pub fn verify(&self) -> Result<(), String> {
        self.verify_devices()?;
        self.verify_micro_batch_loops()?;
        let mut written: Vec<bool> = self.values.iter().map(|v| is_set_by_caller(&v.role)).collect();
        for kernel in &self.kernels {
            let label = &kernel.label;
            let extents = kernel.nest.extents();
            for read in &kernel.nest.reads {
                let Source::Operand(operand) = read.source else {
                    return Err(format!(
                        "{label}: reads a stage, which only meanings of operations may"
                    ));
                };
                let Some(&id) = kernel.operands.get(operand) else {
                    return Err(format!(
                        "{label}: reads operand {operand} of {}",
                        kernel.operands.len()
                    ));
                };
                if self.value(id).extents.len() != read.index.len() {
                    return Err(format!(
                        "{label}: {} is read with {} indices",
                        self.value(id).name,
                        read.index.len()
                    ));
                }
            }
            for &id in &kernel.operands {
                if !written[self.slice_base(id).0] {
                    return Err(format!(
                        "{label}: reads {} before it is written",
                        self.value(id).name
                    ));
                }
            }
            if kernel.results.len() != kernel.nest.outputs.len() {
                return Err(format!(
                    "{label}: {} results for {} outputs",
                    kernel.results.len(),
                    kernel.nest.outputs.len()
                ));
            }
            for (&id, output) in kernel.results.iter().zip(&kernel.nest.outputs) {
                let value = self.value(id);
                if value.extents != output.extents || value.dtype != output.dtype {
                    return Err(format!(
                        "{label}: writes {:?} into {} of {:?}",
                        output.extents, value.name, value.extents
                    ));
                }
                for (d, map) in output.index.iter().enumerate() {
                    let (low, high) = map.range(&extents);
                    if low != 0 || high + 1 < value.extents[d] as i64 {
                        return Err(format!(
                            "{label}: writes index {low}..={high} of dimension {d} of {}",
                            value.name
                        ));
                    }
                }
                written[self.slice_base(id).0] = true;
            }
        }
        match self
            .values
            .iter()
            .zip(&written)
            .find(|(v, w)| matches!(v.role, Role::Output { .. }) && !**w)
        {
            Some((value, _)) => Err(format!("the output {} is never written", value.name)),
            None => Ok(()),
        }
    }
}

fn is_set_by_caller(role: &Role) -> bool {
    matches!(
        role,
        Role::Input { .. } | Role::Parameter { .. } | Role::State { .. }
    )
}
