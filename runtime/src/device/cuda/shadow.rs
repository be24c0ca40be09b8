//! Shadow buffers for inputs. `write` fills one while a step reads the primary buffer; `commit` copies it after the step.
//! Uploads thus overlap computation.
//!
//! All copies to and from a shadow buffer use the one stream of [`Staging`]. So `write` never overwrites bytes that were not
//! committed yet, and every later copy in that stream sees the committed bytes.

use super::driver::Gpu;
use super::memory::{DeviceMemory, Staging};
use crate::Error;
use ir::plan::{Plan, Role};
use std::collections::BTreeMap;

/// The shadow buffers of a program on one device, by buffer.
pub struct ShadowBuffers {
    inputs: BTreeMap<usize, ShadowBuffer>,
    /// The GPU had no memory for a shadow buffer; no other one is allocated until memory is freed.
    full: bool,
}

#[derive(Default)]
struct ShadowBuffer {
    /// Allocated on first use.
    allocation: Option<DeviceMemory>,
    /// The number of bytes to commit, from the start.
    waiting: usize,
}

impl ShadowBuffers {
    /// No shadow buffers yet, for the inputs of a plan on the device at `position`. Weights and state have none: the host
    /// writes them rarely, and the run itself may write them.
    pub fn new(plan: &Plan, position: usize) -> ShadowBuffers {
        let buffers = plan.buffers.iter().enumerate();
        let inputs = buffers
            .filter(|(_, buffer)| buffer.device == position && matches!(buffer.role, Role::Input { .. }));
        ShadowBuffers {
            inputs: inputs.map(|(id, _)| (id, ShadowBuffer::default())).collect(),
            full: false,
        }
    }

    /// Starts copying bytes into the shadow buffer of a buffer of `size` bytes. Returns whether there is one.
    pub fn write(
        &mut self,
        gpu: &Gpu,
        staging: &mut Staging,
        (buffer, size): (usize, usize),
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let Some(shadow) = self.inputs.get_mut(&buffer) else {
            return Ok(false);
        };
        if shadow.allocation.is_none() && !self.full {
            shadow.allocation = DeviceMemory::if_it_fits(gpu, size, "an input of the next run")?;
            self.full = shadow.allocation.is_none();
        }
        let Some(allocation) = &shadow.allocation else {
            return Ok(false);
        };
        staging.write(gpu, allocation.address, bytes)?;
        // One write may be shorter than the one before it.
        shadow.waiting = shadow.waiting.max(bytes.len());
        Ok(true)
    }

    /// Starts copying all written shadow buffers to their primary buffers. No run may be executing.
    pub fn commit(
        &mut self,
        gpu: &Gpu,
        staging: &mut Staging,
        address: impl Fn(usize) -> Option<u64>,
    ) -> Result<(), Error> {
        for (&buffer, shadow) in &mut self.inputs {
            if let (Some(from), Some(to), 1..) = (&shadow.allocation, address(buffer), shadow.waiting) {
                staging.copy(gpu, from.address, to, shadow.waiting)?;
                shadow.waiting = 0;
            }
        }
        Ok(())
    }

    /// Frees all shadow buffers. They must be committed, and the copies finished.
    pub fn free(&mut self) {
        self.inputs
            .values_mut()
            .for_each(|shadow| *shadow = ShadowBuffer::default());
        self.full = false;
    }
}
