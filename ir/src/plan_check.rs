//! The check of a plan before anything runs: every reference and bound, and the waits between commands. A loader trusts
//! nothing else in an artifact.

use crate::order;
use crate::plan::{Allocation, Buffer, Command, CommandKind, Plan, PlanError, Region, Role, VERSION};
use std::collections::{BTreeMap, BTreeSet};

impl Plan {
    /// Checks every reference and bound, so that running the plan touches only its own buffers, and that launches which
    /// touch the same bytes never run at the same time.
    pub fn check(&self) -> Result<(), PlanError> {
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
        self.buffers
            .iter()
            .try_for_each(|buffer| self.check_buffer(buffer))?;
        self.check_parts()?;
        for kernel in &self.kernels {
            let symbol = &kernel.symbol;
            if symbol.is_empty() || !symbol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return fail(format!("{symbol:?} is no kernel symbol"));
            }
            if kernel.operands > kernel.argument_bytes.len() {
                return fail(format!("kernel {symbol} reads more arguments than it has"));
            }
        }
        let all = self.prepack.iter().chain(&self.step);
        all.into_iter().try_for_each(|launch| self.check_launch(launch))?;
        let alone = |launch: &&Command| launch.kernel_position().is_none() || !launch.after.is_empty();
        if let Some(launch) = self.prepack.iter().find(alone) {
            return fail(format!(
                "launch {} prepacks and does not stay on its device",
                launch.label
            ));
        }
        order::check(self)
    }

    fn check_buffer(&self, buffer: &Buffer) -> Result<(), PlanError> {
        let (name, device) = (&buffer.name, buffer.device);
        let Some(&arena) = self.arena_bytes.get(device) else {
            return fail(format!(
                "buffer {name} lies on device {device} of {}",
                self.devices.len()
            ));
        };
        if let Allocation::Arena(offset) = buffer.allocation {
            if offset % 64 != 0 || offset.checked_add(buffer.bytes).is_none_or(|end| end > arena) {
                return fail(format!(
                    "buffer {name} lies at {offset} in an arena of {arena} bytes"
                ));
            }
            if !matches!(buffer.role, Role::Temporary) {
                return fail(format!("buffer {name} outlives a run but lies in the arena"));
            }
        }
        let Some(shape) = buffer.role.shape() else {
            return Ok(());
        };
        if let Some(part) = &buffer.shard
            && !part.lies_in(shape)
        {
            return fail(format!(
                "buffer {name} holds {part:?} of a tensor of shape {shape:?}"
            ));
        }
        let shape = buffer.shard.as_ref().map_or(shape, |part| &part.shape);
        let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = elements.and_then(|n| n.checked_mul(buffer.dtype.bytes() as u64));
        if bytes != Some(buffer.bytes) {
            return fail(format!(
                "buffer {name} of shape {shape:?} has {} bytes",
                buffer.bytes
            ));
        }
        Ok(())
    }

    /// Buffers of one name are one tensor: of one role, each on a device of its own, together all of it.
    fn check_parts(&self) -> Result<(), PlanError> {
        let mut tensors: BTreeMap<&str, Vec<&Buffer>> = BTreeMap::new();
        for buffer in self.buffers.iter().filter(|buffer| buffer.role.shape().is_some()) {
            tensors.entry(&buffer.name).or_default().push(buffer);
        }
        for (name, buffers) in tensors {
            let first = buffers[0];
            let shape = first.role.shape().unwrap_or_default();
            let devices: BTreeSet<usize> = buffers.iter().map(|buffer| buffer.device).collect();
            let same = |buffer: &&Buffer| buffer.role == first.role && buffer.dtype == first.dtype;
            if devices.len() != buffers.len() || !buffers.iter().all(same) {
                return fail(format!("two tensors are named {name}"));
            }
            let parts: Vec<&Region> = buffers
                .iter()
                .filter_map(|buffer| buffer.shard.as_ref())
                .collect();
            if parts.len() == buffers.len() && !Region::cover(&parts, shape) {
                return fail(format!("the parts of {name} are not all of it"));
            }
        }
        Ok(())
    }

    fn check_launch(&self, launch: &Command) -> Result<(), PlanError> {
        let (label, device) = (&launch.label, launch.device);
        if device >= self.devices.len() {
            return fail(format!(
                "launch {label} names device {device} of {}",
                self.devices.len()
            ));
        }
        let buffer = |position: usize| match self.buffers.get(position) {
            Some(buffer) => Ok(buffer),
            None => fail(format!("launch {label} names buffer {position}")),
        };
        match &launch.work {
            CommandKind::Kernel { kernel, arguments } => {
                let Some(kernel) = self.kernels.get(*kernel) else {
                    let count = self.kernels.len();
                    return fail(format!("launch {label} names kernel {kernel} of {count}"));
                };
                if arguments.len() != kernel.argument_bytes.len() {
                    return fail(format!("launch {label} passes {} arguments", arguments.len()));
                }
                for (&argument, &least) in arguments.iter().zip(&kernel.argument_bytes) {
                    let Buffer {
                        name,
                        bytes,
                        device: lies,
                        ..
                    } = buffer(argument)?;
                    if *bytes < least || *lies != device {
                        return fail(format!(
                            "launch {label} needs {least} bytes in {name}, which has {bytes} on device {lies}"
                        ));
                    }
                }
            }
            CommandKind::Transfer { from, to } => {
                let (from, to) = (buffer(*from)?, buffer(*to)?);
                if from.device == to.device || to.device != device {
                    return fail(format!(
                        "transfer {label} leads from device {} to {} and belongs to {device}",
                        from.device, to.device
                    ));
                }
                if from.bytes != to.bytes || from.dtype != to.dtype {
                    return fail(format!(
                        "transfer {label} moves {} bytes into {}",
                        from.bytes, to.bytes
                    ));
                }
            }
        }
        Ok(())
    }
}

fn fail<T>(what: String) -> Result<T, PlanError> {
    Err(PlanError(what))
}
