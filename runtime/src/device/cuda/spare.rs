//! Second places on the GPU for inputs: what is written while a run reads the first comes here, and is moved when the run
//! is over. So the next batch travels while a step computes.
//!
//! A spare is written, and copied from, in the one stream of [`Staging`]. So it is never overwritten before it was moved,
//! and whatever else goes through that stream finds it moved.

use super::driver::Gpu;
use super::memory::{Allocation, Staging};
use crate::Error;
use ir::plan::{Plan, Role};
use std::collections::BTreeMap;

/// The spares of a program on one device, by buffer.
pub struct Spares {
    inputs: BTreeMap<usize, Spare>,
    /// The GPU had no memory for one, and is not asked again until some was given back.
    full: bool,
}

#[derive(Default)]
struct Spare {
    /// Made when it is first needed.
    allocation: Option<Allocation>,
    /// How many bytes, the first ones, are to be moved.
    waiting: usize,
}

impl Spares {
    /// None yet, for the inputs of a plan on the device at `position`. What else is written is a weight or state, rarely,
    /// and may be written by the run itself.
    pub fn new(plan: &Plan, position: usize) -> Spares {
        let buffers = plan.buffers.iter().enumerate();
        let inputs = buffers
            .filter(|(_, buffer)| buffer.device == position && matches!(buffer.role, Role::Input { .. }));
        Spares {
            inputs: inputs.map(|(id, _)| (id, Spare::default())).collect(),
            full: false,
        }
    }

    /// Starts copying bytes into the spare of a buffer, which has `size`; whether it has one.
    pub fn write(
        &mut self,
        gpu: &Gpu,
        staging: &mut Staging,
        (buffer, size): (usize, usize),
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let Some(spare) = self.inputs.get_mut(&buffer) else {
            return Ok(false);
        };
        if spare.allocation.is_none() && !self.full {
            spare.allocation = Allocation::if_it_fits(gpu, size, "an input of the next run")?;
            self.full = spare.allocation.is_none();
        }
        let Some(allocation) = &spare.allocation else {
            return Ok(false);
        };
        staging.write(gpu, allocation.address, bytes)?;
        // One write may be shorter than the one before it.
        spare.waiting = spare.waiting.max(bytes.len());
        Ok(true)
    }

    /// Starts moving everything that waits to the buffers' own addresses. No run is under way.
    pub fn place(
        &mut self,
        gpu: &Gpu,
        staging: &mut Staging,
        address: impl Fn(usize) -> Option<u64>,
    ) -> Result<(), Error> {
        for (&buffer, spare) in &mut self.inputs {
            if let (Some(from), Some(to), 1..) = (&spare.allocation, address(buffer), spare.waiting) {
                staging.copy(gpu, from.address, to, spare.waiting)?;
                spare.waiting = 0;
            }
        }
        Ok(())
    }

    /// Frees all. Everything was moved, and that has been waited for.
    pub fn free(&mut self) {
        self.inputs
            .values_mut()
            .for_each(|spare| *spare = Spare::default());
        self.full = false;
    }
}
