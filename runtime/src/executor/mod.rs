//! Executes a plan on its devices: it sets tensors by name, runs the launches in order and returns tensors by name.

mod inspect;

pub use inspect::{LaunchTime, NonFinite};

use crate::artifact::{Compiled, mode_name};
use crate::device::sim::counts::Counts;
use crate::device::{self, BufferId, Device, DeviceSpec, LaunchId};
use crate::queues::Queues;
use crate::tensor::{Data, Tensor, type_name};
use crate::{Error, parts, weights};
use ir::DType;
use ir::plan::{Allocation, Buffer, Command, CommandKind, Plan, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Set to anything but `0` to fill temporaries with NaN before every run: values that a kernel fails to write then show.
pub const POISON_VARIABLE: &str = "ALEXC_POISON";

/// A program on its devices.
pub struct Executor {
    plan: Plan,
    devices: Vec<Box<dyn Device>>,
    queues: Queues,
    /// Parameters changed since `prepack` last ran.
    stale: bool,
    poison: bool,
}

impl Executor {
    /// Opens `program` on `devices`, one for each device of its plan. Parameters and state are zero at first.
    pub fn new(program: &Compiled, devices: &[DeviceSpec]) -> Result<Executor, Error> {
        let plan = program.plan.clone();
        plan.check().map_err(|error| Error::input(error.to_string()))?;
        let given: Vec<&str> = devices.iter().map(DeviceSpec::code).collect();
        if plan.devices != given {
            let named: Vec<String> = devices.iter().map(DeviceSpec::to_string).collect();
            return Err(Error::input(format!(
                "the program was compiled to {} and is to run on {}, which runs {}; compile it for --devices {}",
                plan.devices.join(","),
                named.join(","),
                given.join(","),
                named.join(",")
            )));
        }
        let open = |(position, spec)| device::open(spec, program, position);
        let devices = devices
            .iter()
            .enumerate()
            .map(open)
            .collect::<Result<Vec<_>, Error>>()?;
        let poison = std::env::var_os(POISON_VARIABLE).is_some_and(|value| value != "0");
        let queues = Queues::new(&plan, &devices)?;
        Ok(Executor {
            plan,
            devices,
            queues,
            stale: true,
            poison,
        })
    }

    /// The plan that is executed.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The devices' names, separated by commas.
    pub fn devices(&self) -> String {
        let names: Vec<String> = self.devices.iter().map(|device| device.name()).collect();
        names.join(",")
    }

    /// The counts of each kernel so far, by its symbol, from the first device that counts.
    pub fn counts(&self) -> Option<&BTreeMap<String, Counts>> {
        self.devices.iter().find_map(|device| device.counts())
    }

    /// Sets whether temporaries and outputs are filled with NaN before every run; for tests.
    pub fn set_poison(&mut self, poison: bool) {
        self.poison = poison;
    }

    /// Sets an input, a parameter or state.
    pub fn set(&mut self, name: &str, tensor: &Tensor) -> Result<(), Error> {
        self.write(name, tensor.dtype(), Some(tensor.shape()), tensor.bytes())
    }

    /// Sets an f32 tensor from its elements, whose number must fit.
    pub fn set_f32(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        self.write(name, DType::F32, None, bytemuck::cast_slice(values))
    }

    /// Sets an i64 tensor from its elements, whose number must fit.
    pub fn set_i64(&mut self, name: &str, values: &[i64]) -> Result<(), Error> {
        self.write(name, DType::I64, None, bytemuck::cast_slice(values))
    }

    /// Returns the current value of a tensor of the interface. A tensor on several devices is read from the first device
    /// that has all of it, or else assembled from its parts.
    pub fn get(&mut self, name: &str) -> Result<Tensor, Error> {
        let first = self.find(name)?;
        let ids: Vec<usize> = self.plan.find_all(name).collect();
        let whole = ids
            .iter()
            .copied()
            .find(|&id| self.plan.buffers[id].shard.is_none());
        let Buffer { role, dtype, .. } = self.plan.buffers[first].clone();
        let shape = role.shape().unwrap_or_default().to_vec();
        let count = shape.iter().product();
        let mut read = |into: &mut [u8]| match whole {
            Some(id) => self.devices[self.plan.buffers[id].device].read(BufferId(id), into),
            None => ids.iter().try_for_each(|&id| {
                let buffer = &self.plan.buffers[id];
                let mut bytes = vec![0; buffer.bytes as usize];
                self.devices[buffer.device].read(BufferId(id), &mut bytes)?;
                if let Some(part) = &buffer.shard {
                    parts::put(into, &shape, part, dtype.bytes(), &bytes);
                }
                Ok(())
            }),
        };
        let data = match dtype {
            DType::F32 => {
                let mut values = vec![0f32; count];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Data::F32(values)
            }
            DType::I64 => {
                let mut values = vec![0i64; count];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Data::I64(values)
            }
            DType::U8 => {
                let mut values = vec![0u8; count];
                read(&mut values)?;
                Data::U8(values)
            }
        };
        Tensor::new(shape, data)
    }

    /// The elements of an f32 tensor of the interface.
    pub fn get_f32(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        match self.get(name)?.into_data() {
            Data::F32(values) => Ok(values),
            other => Err(Error::input(format!("{name} is {}, not f32", other.dtype()))),
        }
    }

    /// Sets parameters and state to their initial values, which depend on `seed` and the tensor's name only.
    pub fn initialise(&mut self, seed: u64) -> Result<(), Error> {
        for (name, tensor) in weights::initial(&weights::initial_values(&self.plan), seed)? {
            self.set(&name, &tensor)?;
        }
        Ok(())
    }

    /// Runs the plan once, after the launches that prepare changed parameters.
    ///
    /// A GPU may still execute the run when this returns. Reading or setting a tensor waits for the run; only inputs of
    /// the next run can be set meanwhile. A fault in the run is returned by the call that waits, such as
    /// [`Executor::wait`].
    pub fn run(&mut self) -> Result<(), Error> {
        self.prepare()?;
        self.poison_temporaries()?;
        let prepare = self.plan.prepack.len();
        match self.devices.len() {
            1 => self.launch_all(prepare..prepare + self.plan.step.len()),
            _ => self.queues.run(&self.plan, prepare, &mut self.devices),
        }
    }

    /// Waits until no run is executing.
    pub fn wait(&mut self) -> Result<(), Error> {
        self.devices.iter_mut().try_for_each(|device| device.complete())
    }

    /// Returns how long the last run executed concurrently with the host, by its device's clock. It waits for the run. It
    /// returns zero if `run` itself waited.
    pub fn beside_host(&mut self) -> Result<Duration, Error> {
        match &mut self.devices[..] {
            [device] => Ok(Duration::from_nanos(device.elapsed_ns()?.unwrap_or(0))),
            _ => Ok(Duration::ZERO),
        }
    }

    /// Frees device memory that only makes runs faster.
    pub fn shrink(&mut self) -> Result<(), Error> {
        self.devices.iter_mut().try_for_each(|device| device.shrink())
    }

    /// Packs parameters that were set since the last run. [`Executor::run`] calls it.
    pub fn prepare(&mut self) -> Result<(), Error> {
        if self.stale {
            self.launch_all(0..self.plan.prepack.len())?;
            self.stale = false;
        }
        Ok(())
    }

    /// Copies every parameter of `from` into the parameter of the same name here.
    pub fn copy_parameters(&mut self, from: &mut Executor) -> Result<(), Error> {
        for name in from.names(|role| matches!(role, Role::Parameter { .. })) {
            if self.plan.find(&name).is_some() {
                let tensor = from.get(&name)?;
                self.set(&name, &tensor)?;
            }
        }
        Ok(())
    }

    /// The names of the interface tensors whose role satisfies `wanted`, in the plan's order.
    pub fn names(&self, wanted: impl Fn(&Role) -> bool) -> Vec<String> {
        let tensors = self.plan.interface().filter(|b| wanted(&b.role));
        tensors.map(|b| b.name.clone()).collect()
    }

    fn find(&self, name: &str) -> Result<usize, Error> {
        self.plan.find(name).ok_or_else(|| {
            let here = self.names(|_| true);
            Error::input(format!(
                "{} ({}) has no tensor named {name}; it has {}",
                self.plan.model,
                mode_name(self.plan.mode),
                here.join(", ")
            ))
        })
    }

    fn write(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Option<&[usize]>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let id = self.find(name)?;
        let buffer = &self.plan.buffers[id];
        if matches!(buffer.role, Role::Output { .. }) {
            return Err(Error::input(format!("{name} is an output; only a run sets it")));
        }
        let expected = buffer.role.shape().unwrap_or_default();
        let fits = shape.is_none_or(|shape| shape == expected);
        let all = expected.iter().product::<usize>() * buffer.dtype.bytes();
        if dtype != buffer.dtype || !fits || bytes.len() != all {
            let count = bytes.len() / dtype.bytes();
            let found = shape.map_or(format!("{count} elements of {dtype}"), |shape| {
                type_name(dtype, shape)
            });
            let expected = type_name(buffer.dtype, expected);
            return Err(Error::input(format!(
                "{name} is {expected} and {found} was given"
            )));
        }
        self.stale |= matches!(buffer.role, Role::Parameter { .. });
        for id in self.plan.find_all(name) {
            let Buffer {
                device, shard: part, ..
            } = &self.plan.buffers[id];
            let device = &mut self.devices[*device];
            match part {
                None => device.write(BufferId(id), bytes)?,
                Some(part) => {
                    let part = parts::take(bytes, expected, part, dtype.bytes());
                    device.write(BufferId(id), &part)?;
                }
            }
        }
        Ok(())
    }

    /// Launches a range of the plan's launches (those of `prepack` first, then those of `step`).
    fn launch_all(&mut self, range: std::ops::Range<usize>) -> Result<(), Error> {
        let all: Vec<&Command> = self.plan.prepack.iter().chain(&self.plan.step).collect();
        let used: BTreeSet<usize> = range.clone().map(|position| all[position].device).collect();
        // A device may read what another device has written.
        let several = self.devices.len() > 1;
        if several {
            self.wait()?;
        }
        used.iter().try_for_each(|&device| self.devices[device].begin())?;
        let launched = range.into_iter().try_for_each(|position| self.launch(position));
        // Also after a failure, because a device must not stay in a run. The last device to begin is the first to end:
        // each restores the calling thread's cores to what it found.
        let mut ended = Ok(());
        for &device in used.iter().rev() {
            ended = ended.and(self.devices[device].end());
        }
        launched.and(ended)?;
        if several { self.wait() } else { Ok(()) }
    }

    fn launch(&mut self, position: usize) -> Result<(), Error> {
        let prepare = self.plan.prepack.len();
        let launch = if position < prepare {
            &self.plan.prepack[position]
        } else {
            &self.plan.step[position - prepare]
        };
        let Command { device, work, .. } = launch;
        let device = &mut *self.devices[*device];
        match work {
            CommandKind::Kernel { .. } => device.launch(LaunchId(position)),
            CommandKind::Transfer { from, to } => self.queues.transfer(device, *from, *to),
        }
    }

    /// Runs some launches alone. Before, it fills the buffers `poison` with NaN and sets the buffers `set`. It returns the
    /// bytes of the buffers `look` afterwards.
    pub fn probe(
        &mut self,
        set: &[(usize, Vec<u8>)],
        poison: &[usize],
        launches: &[usize],
        look: &[usize],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let count = self.plan.prepack.len() + self.plan.step.len();
        let known = |buffer: &&usize| **buffer < self.plan.buffers.len();
        let buffers = set.iter().map(|(buffer, _)| buffer).chain(poison).chain(look);
        if !buffers.clone().all(|buffer| known(&buffer)) || launches.iter().any(|&launch| launch >= count) {
            return Err(Error::input(
                "it names buffers or launches that the plan does not have".to_string(),
            ));
        }
        self.stale = true;
        for &buffer in poison {
            let device = self.plan.buffers[buffer].device;
            self.devices[device].fill(BufferId(buffer), 0xff)?;
        }
        for (buffer, bytes) in set {
            let device = self.plan.buffers[*buffer].device;
            self.devices[device].write(BufferId(*buffer), bytes)?;
        }
        for &launch in launches {
            self.launch_all(launch..launch + 1)?;
        }
        let bytes = look.iter().map(|&buffer| {
            let Buffer { bytes, device, .. } = self.plan.buffers[buffer];
            let mut found = vec![0; bytes as usize];
            self.devices[device].read(BufferId(buffer), &mut found)?;
            Ok(found)
        });
        bytes.collect()
    }

    fn poison_temporaries(&mut self) -> Result<(), Error> {
        if self.poison {
            self.fill_temporaries(0xff)
        } else {
            Ok(())
        }
    }

    /// Fills temporaries and outputs.
    fn fill_temporaries(&mut self, byte: u8) -> Result<(), Error> {
        for (id, buffer) in self.plan.buffers.iter().enumerate() {
            if matches!(buffer.role, Role::Temporary | Role::Output { .. }) {
                self.devices[buffer.device].fill(BufferId(id), byte)?;
            }
        }
        Ok(())
    }
}

/// Bytes of the buffers and arenas of a plan.
pub fn plan_bytes(plan: &Plan) -> u64 {
    let own = plan
        .buffers
        .iter()
        .filter(|buffer| buffer.allocation == Allocation::Dedicated)
        .map(|buffer| buffer.bytes);
    own.chain(plan.arena_bytes.iter().copied())
        .fold(0, u64::saturating_add)
}
