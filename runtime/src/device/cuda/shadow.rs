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
    /// The GPU had no memory for one, and is not asked again until some was given back.
    full: bool,
}

#[derive(Default)]
struct ShadowBuffer {
    /// Made when it is first needed.
    allocation: Option<DeviceMemory>,
    /// How many bytes, the first ones, are to be moved.
    waiting: usize,
}

impl ShadowBuffers {
    /// None yet, for the inputs of a plan on the device at `position`. What else is written is a weight or state, rarely,
    /// and may be written by the run itself.
    pub fn new(plan: &Plan, position: usize) -> ShadowBuffers {
        let buffers = plan.buffers.iter().enumerate();
        let inputs = buffers
            .filter(|(_, buffer)| buffer.device == position && matches!(buffer.role, Role::Input { .. }));
        ShadowBuffers {
            inputs: inputs.map(|(id, _)| (id, ShadowBuffer::default())).collect(),
            full: false,
        }
    }

    /// Starts copying bytes into the shadow buffer of a buffer, which has `size`; whether it has one.
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

    /// Starts moving everything that waits to the buffers' own addresses. No run is under way.
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

    /// Frees all. Everything was moved, and that has been waited for.
    pub fn free(&mut self) {
        self.inputs
            .values_mut()
            .for_each(|shadow| *shadow = ShadowBuffer::default());
        self.full = false;
    }
}
