//! The training driver: steps, evaluation, learning rate, metrics, checkpoints, and every ending of a run.
//!
//! A run is a pure function of its model, recipe, data and initial weights: randomness depends on the seed and the step
//! only. A checkpoint holds everything that changes. So an interrupted and resumed run gives the same numbers as an
//! uninterrupted one. A step ends in a fixed order: metrics, then (at the end of an epoch) evaluation and schedule, then
//! the checkpoint. A checkpoint that is saved before an evaluation records that the evaluation is still to come.
//!
//! While the device executes a step, the host fetches the batch of the next step and hands it over. An error in this is
//! reported when the next step would begin; the step that executes ends normally.

mod diagnosis;
mod folder;
mod lock;
mod pace;
mod save;
mod session;

pub use folder::RunFolder;
pub use lock::RunLock;

use crate::console::Console;
use crate::feed::{EvaluationFeed, TrainingFeed};
use crate::interrupt::Interrupt;
use crate::preprocess_state::PreprocessState;
use crate::recipe::Recipe;
use crate::scores::Errors;
use crate::{Artifact, DeviceSpec, Error};
use ir::plan::Mode;
use serde::Serialize;
use session::Session;
use std::path::PathBuf;

/// A training job.
#[derive(Clone, Debug)]
pub struct TrainJob {
    /// With a program for training and one for inference, to evaluate with.
    pub artifact: Artifact,
    /// The recipe, flags merged in.
    pub recipe: Recipe,
    /// The run folder.
    pub run: PathBuf,
    /// Where to train and evaluate.
    pub devices: Vec<DeviceSpec>,
    /// Weights to start from; `None` for initial values drawn with the recipe's seed.
    pub weights: Option<PathBuf>,
    /// Stop after this number of steps, counted from the start of the run, instead of after epochs.
    pub steps: Option<u64>,
    /// Resume the run in the folder.
    pub resume: bool,
    /// The preprocessing of the feeds, which checkpoints record.
    pub preprocess_state: Option<PreprocessState>,
}

/// The images of a run.
pub struct Feeds<'a> {
    /// Training images.
    pub training: &'a mut dyn TrainingFeed,
    /// To evaluate on after every epoch, if there are any.
    pub evaluation: Option<&'a mut dyn EvaluationFeed>,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainSummary {
    /// The run folder.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub run: PathBuf,
    /// Steps done in all.
    pub steps: u64,
    /// Epochs finished.
    pub epochs: u64,
    /// The loss of the last step of this process, if it made one.
    pub loss: Option<f32>,
    /// The last evaluation of this process, if there was one.
    pub evaluation: Option<Errors>,
    /// Images a second over this process's steps, waiting for data included.
    pub images_per_s: f64,
}

/// Trains to the end of the job. Interrupted, it saves a checkpoint and returns [`Error::Interrupted`]. Any other error
/// is returned after the finished steps were saved, and names the checkpoint.
pub fn train<'a>(
    job: &'a TrainJob,
    feeds: Feeds<'a>,
    console: &Console,
    interrupt: &Interrupt,
) -> Result<TrainSummary, Error> {
    train_locked(job, None, feeds, console, interrupt)
}

/// [`train`] in a run folder that the caller has locked already, if `lock` is given.
pub fn train_locked<'a>(
    job: &'a TrainJob,
    lock: Option<RunLock>,
    feeds: Feeds<'a>,
    console: &Console,
    interrupt: &Interrupt,
) -> Result<TrainSummary, Error> {
    let mut session = Session::open(job, lock, feeds, console)?;
    let outcome = session.go(console, interrupt);
    console.finish();
    outcome?;
    Ok(session.summary())
}

/// The conditions for a job, checked before a folder is made.
fn check_job(job: &TrainJob, feeds: &Feeds) -> Result<(), Error> {
    if let Some(problem) = job.recipe.problem() {
        return Err(Error::input(problem));
    }
    let plan = &job.artifact.require(Mode::Train)?.plan;
    if plan.batch != job.recipe.train.batch {
        return Err(Error::input(format!(
            "the program was compiled for batch {} and the recipe says {}; compile it with --batch {1}",
            plan.batch, job.recipe.train.batch
        )));
    }
    if job.steps == Some(0) {
        return Err(Error::input("--steps 0: expected at least 1"));
    }
    if feeds.training.batches_per_epoch() == 0 {
        return Err(Error::input(format!(
            "there are fewer training images than one batch of {}; use a smaller --batch",
            plan.batch
        )));
    }
    if feeds.evaluation.is_some() {
        job.artifact.require(Mode::Infer)?;
    } else if job.recipe.schedule.needs_validation() {
        return Err(Error::input(
            "the schedule \"plateau\" follows the validation error and there are no validation images; \
             add a val/ folder or use kind = \"steps\"",
        ));
    }
    Ok(())
}
