//! Saving a run: at its checkpoints, and when an error ends it.
//!
//! An error out of the training loop says nothing about the steps that are finished: the data, the evaluation or the
//! metrics failed. So these steps are saved before the error is reported. Where the tensors themselves are in doubt
//! (a step failed midway, a value is not finite) the newest checkpoint stays as it is, and the error names it.

use super::session::{Session, Tensors};
use crate::checkpoint::Checkpoint;
use crate::{Error, Tensor};
use ir::plan::Role;
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Session<'_> {
    /// Saves a checkpoint of the finished steps.
    pub(super) fn save(&mut self) -> Result<PathBuf, Error> {
        self.tensors = Tensors::Unsaved;
        let mut collect = |wanted: fn(&Role) -> bool| {
            let names = self.executor.names(wanted).into_iter();
            names
                .map(|name| Ok((name.clone(), self.executor.get(&name)?)))
                .collect::<Result<_, Error>>()
        };
        let parameters: BTreeMap<_, _> = collect(|role| matches!(role, Role::Parameter { .. }))?;
        let state: BTreeMap<_, _> = collect(|role| matches!(role, Role::State { .. }))?;
        self.check_finite(parameters.iter().chain(&state))?;
        let (progress, preprocess_state) = (self.progress.clone(), self.job.preprocess_state.clone());
        let checkpoint = Checkpoint {
            progress,
            parameters,
            state,
            preprocess_state,
        };
        let path = checkpoint.save(self.folder.path())?;
        self.tensors = Tensors::Finished;
        self.saved = Some(self.progress.step);
        self.pace.resume();
        Ok(path)
    }

    /// Saves the finished steps after `error` ended the loop, and adds to it what was saved and how to resume.
    pub(super) fn rescue(&mut self, error: Error) -> Error {
        let steps = self.progress.step - self.saved.unwrap_or(0);
        if matches!(error, Error::Interrupted(_)) {
            return error;
        }
        if self.tensors != Tensors::Finished {
            return error.with_note(self.kept());
        }
        if steps == 0 {
            return match self.saved {
                Some(_) => error.with_note(self.kept()),
                None => error,
            };
        }
        let error = match self.save() {
            Ok(path) => error.with_note(format!(
                "the finished steps are saved in {}; --resume continues after step {}",
                path.display(),
                self.progress.step
            )),
            Err(second) => error
                .with_note(format!(
                    "the {steps} steps since the last checkpoint could not be saved: {second}"
                ))
                .with_note(self.kept()),
        };
        // A checkpoint removes an older one, so there may be space for the lines now.
        match self.metrics.flush() {
            Ok(()) => error,
            Err(_) => error.with_note(format!(
                "{} lacks the newest line",
                self.folder.metrics().display()
            )),
        }
    }

    /// Refuses to save a value that is not finite, because training could not continue from it. The loss, which is
    /// computed before the update, may still have been finite.
    fn check_finite<'t>(
        &self,
        mut tensors: impl Iterator<Item = (&'t String, &'t Tensor)>,
    ) -> Result<(), Error> {
        let finite = |tensor: &Tensor| {
            tensor
                .as_f32()
                .is_none_or(|values| values.iter().all(|v| v.is_finite()))
        };
        match tensors.find(|(_, tensor)| !finite(tensor)) {
            None => Ok(()),
            Some((name, _)) => Err(Error::work(format!(
                "step {}: the update gives {name} a value that is not finite. A smaller learning rate (now {}) usually \
                 helps",
                self.progress.step,
                self.rate()
            ))),
        }
    }

    /// What a failed run leaves to continue from.
    fn kept(&self) -> String {
        let run = self.folder.path().display();
        match self.saved {
            Some(saved) => format!(
                "the checkpoint of step {saved} in {run} is intact; --resume continues from it, and --weights {run} \
                 starts a new run with its parameters"
            ),
            None => "no checkpoint was saved yet".to_string(),
        }
    }
}
