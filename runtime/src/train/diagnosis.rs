//! Finds the layer that a loss that is not finite came from.
//!
//! When the loss is NaN, the step has already spread it into every parameter. So the run returns to its newest checkpoint
//! (or its start) and repeats the steps since, which give the same results by construction. It executes the last step
//! launch by launch and inspects every value.

use super::session::Session;
use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::console::Console;
use crate::feed::FeedBatch;
use crate::interrupt::Interrupt;
use std::time::Duration;

/// The limit of the time to repeat steps, because a failed run holds its devices meanwhile.
const LONGEST_REPETITION: Duration = Duration::from_secs(120);

impl Session<'_> {
    /// The error for a loss that is not finite, in the step after `progress.step`.
    pub(super) fn diagnose(
        &mut self,
        loss: f32,
        batch: &FeedBatch,
        console: &Console,
        interrupt: &Interrupt,
    ) -> Error {
        let step = self.progress.step + 1;
        console.finish();
        console.warn(&format!(
            "step {step}: the loss is {loss}; looking for the layer it comes from"
        ));
        let found = self
            .find_layer(batch, interrupt)
            .unwrap_or_else(|error| format!("the layer could not be found ({error})"));
        Error::work(format!(
            "step {step}: the loss is {loss}: {found}. A smaller learning rate (now {}) or smaller initial weights \
             usually help",
            self.rate()
        ))
    }

    fn find_layer(&mut self, batch: &FeedBatch, interrupt: &Interrupt) -> Result<String, Error> {
        let checkpoint = Checkpoint::newest(self.folder.path(), |_| ())?.filter(|_| self.saved.is_some());
        let begin = checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.progress.step);
        let steps = self.progress.step - begin;
        let expected = self
            .pace
            .step_time()
            .saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        if expected > LONGEST_REPETITION {
            return Ok(format!(
                "the {steps} steps since the last checkpoint are too many to repeat; to find the layer, continue with \
                 --resume and a checkpoint_every of at most {}",
                (steps as f64 * LONGEST_REPETITION.as_secs_f64() / expected.as_secs_f64()) as u64
            ));
        }
        // The repeated steps have the same learning rate as before: the schedule changes it at the end of an epoch only,
        // and a checkpoint is saved there.
        self.restore(checkpoint.as_ref())?;
        for number in begin..self.progress.step {
            if interrupt.asked() {
                return Err(Error::work("interrupted"));
            }
            let earlier = self.feeds.training.next_batch()?;
            if number + 1 < self.progress.step {
                self.step(&earlier, number)?;
                continue;
            }
            // The loss of this step was finite. Its update may still have made a parameter that is not.
            self.set_inputs(&earlier, number)?;
            if let Some(found) = self.executor.first_non_finite()? {
                return Ok(format!("already in step {}, {found}", number + 1));
            }
        }
        self.set_inputs(batch, self.progress.step)?;
        Ok(match self.executor.first_non_finite()? {
            Some(found) => found.to_string(),
            None => "repeated launch by launch, the step gives finite values only".to_string(),
        })
    }
}
