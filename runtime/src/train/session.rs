//! A run that is under way: the loop over steps, and what happens between them.

use super::pace::Pace;
use super::{Feeds, RunFolder, RunLock, TrainJob, TrainSummary, check_job};
use crate::checkpoint::{Checkpoint, Progress};
use crate::console::Console;
use crate::eval::{Classifier, class_of, evaluate};
use crate::feed::FeedBatch;
use crate::interface::Interface;
use crate::interrupt::Interrupt;
use crate::metrics::{EvaluationLine, Metrics, StepLine};
use crate::schedule::ScheduleState;
use crate::scores::Errors;
use crate::{Error, Executor, weights};
use ir::plan::{LABELS, LEARNING_RATE, LOSS, Mode, RANDOM_STATE, Role};
use std::time::Duration;

/// The condition of the parameters and the state on the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tensors {
    /// They are the result of the finished steps.
    Finished,
    /// A step is under way or failed midway.
    Uncertain,
    /// They are the result of the finished steps, and could not be saved.
    Unsaved,
}

/// A run that is under way.
pub(super) struct Session<'a> {
    pub(super) job: &'a TrainJob,
    pub(super) feeds: Feeds<'a>,
    pub(super) folder: RunFolder,
    pub(super) metrics: Metrics,
    pub(super) executor: Executor,
    interface: Interface,
    pub(super) progress: Progress,
    /// The step of the newest checkpoint, if there is one.
    pub(super) saved: Option<u64>,
    pub(super) tensors: Tensors,
    pub(super) pace: Pace,
    loss: Option<f32>,
    errors: Option<Errors>,
}

impl<'a> Session<'a> {
    /// Makes or opens the run folder and restores the state at which the run starts or resumes.
    pub(super) fn open(
        job: &'a TrainJob,
        lock: Option<RunLock>,
        feeds: Feeds<'a>,
        console: &Console,
    ) -> Result<Session<'a>, Error> {
        let program = job.artifact.require(Mode::Train)?;
        check_job(job, &feeds)?;
        let interface = Interface::of(&program.plan)?;
        let executor = Executor::new(program, &job.devices)?;
        let (run, model, recipe) = (&job.run, &job.artifact.model, &job.recipe);
        let folder = match (lock, job.resume) {
            (Some(lock), true) => RunFolder::resume_locked(run, model, recipe, lock),
            (Some(lock), false) => RunFolder::create_locked(run, model, recipe, lock),
            (None, true) => RunFolder::resume(run, model, recipe, console),
            (None, false) => RunFolder::create(run, model, recipe, console),
        }?;
        let checkpoint = if job.resume {
            newest_checkpoint(&folder, console)?
        } else {
            None
        };
        let start = Progress {
            model: job.artifact.name.clone(),
            seed: job.recipe.train.seed,
            step: 0,
            epoch: 0,
            batch: 0,
            schedule: ScheduleState::default(),
        };
        let progress = checkpoint
            .as_ref()
            .map_or(start, |checkpoint| checkpoint.progress.clone());
        let metrics = Metrics::open(&folder.metrics(), progress.step, progress.epoch)?;
        let saved = checkpoint.as_ref().map(|checkpoint| checkpoint.progress.step);
        let pace = Pace::new(program.plan.batch as u64);
        let (loss, errors) = (None, None);
        let mut session = Session {
            job,
            feeds,
            folder,
            metrics,
            executor,
            interface,
            progress,
            saved,
            tensors: Tensors::Finished,
            pace,
            loss,
            errors,
        };
        session.restore(checkpoint.as_ref())?;
        Ok(session)
    }

    /// Sets parameters, state and the place in the data to those of a checkpoint, or to the beginning.
    pub(super) fn restore(&mut self, checkpoint: Option<&Checkpoint>) -> Result<(), Error> {
        match checkpoint {
            Some(checkpoint) => {
                let mut needed = self
                    .executor
                    .names(|role| matches!(role, Role::Parameter { .. } | Role::State { .. }));
                for (name, tensor) in checkpoint.parameters.iter().chain(&checkpoint.state) {
                    self.executor
                        .set(name, tensor)
                        .map_err(|error| error.at("the checkpoint"))?;
                    needed.retain(|other| other != name);
                }
                if !needed.is_empty() {
                    let missing = needed.join(", ");
                    return Err(Error::input(format!(
                        "the checkpoint lacks {missing}; start a new run"
                    )));
                }
                let Progress { epoch, batch, .. } = checkpoint.progress;
                let done = batch >= self.feeds.training.batches_per_epoch();
                let (epoch, batch) = if done { (epoch + 1, 0) } else { (epoch, batch) };
                self.feeds.training.seek(epoch, batch)
            }
            None => {
                self.executor.initialise(self.job.recipe.train.seed)?;
                if let Some(path) = &self.job.weights {
                    let expected = weights::parameters(self.executor.plan());
                    for (name, tensor) in weights::read(path, &expected)? {
                        self.executor.set(&name, &tensor)?;
                    }
                }
                self.feeds.training.seek(0, 0)
            }
        }
    }

    /// Trains to the end. An error out of the loop comes after the finished steps were saved.
    pub(super) fn go(&mut self, console: &Console, interrupt: &Interrupt) -> Result<(), Error> {
        self.steps(console, interrupt).map_err(|error| self.rescue(error))
    }

    fn steps(&mut self, console: &Console, interrupt: &Interrupt) -> Result<(), Error> {
        if self.finished() {
            console.say(&format!("nothing to do: {} steps are done", self.progress.step));
        }
        self.start_bar(console);
        // The batch of the next step, or the error, which is returned when that step would begin.
        let mut ahead = None;
        while !self.finished() {
            if self.epoch_is_done() {
                self.end_epoch(console, interrupt)?;
                continue;
            }
            let mut waited = Duration::ZERO;
            let batch = match ahead.take() {
                Some(batch) => batch?,
                None => {
                    let batch = self.next_batch()?;
                    waited = batch.waited;
                    batch
                }
            };
            let rate = self.rate();
            self.set_numbers(self.progress.step)?;
            self.tensors = Tensors::Uncertain;
            self.executor.run()?;
            if self.goes_on() && !interrupt.asked() {
                ahead = Some(self.next_batch());
            }
            let loss = self.loss()?;
            if let Some(Ok(next)) = &ahead {
                // Waiting while the device computes costs nothing.
                waited += next.waited.saturating_sub(self.executor.beside_host()?);
            }
            if !loss.is_finite() {
                return Err(self.diagnose(loss, &batch, console, interrupt));
            }
            self.progress.step += 1;
            self.progress.batch += 1;
            self.tensors = Tensors::Finished;
            self.loss = Some(loss);
            let images_per_s = self.pace.step_done(waited);
            let (step, epoch) = (self.progress.step, self.progress.epoch + 1);
            self.metrics.write(&StepLine {
                step,
                epoch,
                loss,
                lr: rate,
                images_per_s,
            })?;
            self.report(loss, rate, console);
            let every = self.job.recipe.train.checkpoint_every;
            let due = every.is_some_and(|every| self.progress.step.is_multiple_of(every));
            if !self.epoch_is_done() && (due || interrupt.asked() || self.finished()) {
                self.save()?;
                self.stop_if_asked(interrupt)?;
            }
        }
        Ok(())
    }

    /// Returns [`Error::Interrupted`] if an interrupt was requested. Call it when everything is saved.
    fn stop_if_asked(&self, interrupt: &Interrupt) -> Result<(), Error> {
        if !interrupt.asked() || self.finished() {
            return Ok(());
        }
        Err(Error::Interrupted(format!(
            "stopped after step {}; everything is saved in {}, and --resume continues",
            self.progress.step,
            self.folder.path().display()
        )))
    }

    /// One step on `batch`, as step number `number` (from 0). Gives the loss.
    pub(super) fn step(&mut self, batch: &FeedBatch, number: u64) -> Result<f32, Error> {
        self.set_inputs(batch, number)?;
        self.executor.run()?;
        self.loss()
    }

    /// The loss of the last step; waits for it.
    fn loss(&mut self) -> Result<f32, Error> {
        let loss = self.executor.get_f32(LOSS)?;
        loss.first()
            .copied()
            .ok_or_else(|| Error::input("the program's loss has no element"))
    }

    pub(super) fn set_inputs(&mut self, batch: &FeedBatch, number: u64) -> Result<(), Error> {
        self.set_batch(batch)?;
        self.set_numbers(number)
    }

    /// Gets the next batch and hands it over, for the step after the one that may be under way.
    fn next_batch(&mut self) -> Result<FeedBatch, Error> {
        let batch = self.feeds.training.next_batch()?;
        self.set_batch(&batch)?;
        Ok(batch)
    }

    fn set_batch(&mut self, batch: &FeedBatch) -> Result<(), Error> {
        for &label in &batch.labels {
            class_of(label, self.interface.classes)?;
        }
        self.executor.set_f32(&self.interface.image, &batch.images)?;
        self.executor.set_i64(LABELS, &batch.labels)
    }

    /// Sets the inputs of a step other than its batch.
    fn set_numbers(&mut self, number: u64) -> Result<(), Error> {
        self.executor.set_f32(LEARNING_RATE, &[self.rate() as f32])?;
        if self.executor.plan().find(RANDOM_STATE).is_some() {
            self.executor
                .set_i64(RANDOM_STATE, &[self.progress.seed as i64, number as i64])?;
        }
        Ok(())
    }

    pub(super) fn rate(&self) -> f64 {
        self.job
            .recipe
            .schedule
            .rate(self.job.recipe.sgd.lr, &self.progress.schedule)
    }

    /// Whether all batches of the epoch are done and only its end is left: evaluation and schedule.
    fn epoch_is_done(&self) -> bool {
        self.progress.batch >= self.feeds.training.batches_per_epoch()
    }

    fn finished(&self) -> bool {
        match self.job.steps {
            Some(steps) => self.progress.step >= steps && !self.epoch_is_done(),
            None => self.progress.epoch >= self.job.recipe.train.epochs,
        }
    }

    /// Whether another step of this epoch comes after the one that is being made.
    fn goes_on(&self) -> bool {
        let Progress { step, batch, .. } = self.progress;
        batch + 1 < self.feeds.training.batches_per_epoch()
            && self.job.steps.is_none_or(|steps| step + 1 < steps)
    }

    /// Steps of the whole job.
    fn total_steps(&self) -> u64 {
        let epochs = self.job.recipe.train.epochs;
        self.job
            .steps
            .unwrap_or_else(|| epochs.saturating_mul(self.feeds.training.batches_per_epoch()))
    }

    fn end_epoch(&mut self, console: &Console, interrupt: &Interrupt) -> Result<(), Error> {
        let errors = match self.evaluate(console, interrupt) {
            // The checkpoint records that the epoch's end is still to come, so a resumed run evaluates first.
            Err(Error::Interrupted(_)) => {
                self.save()?;
                return self.stop_if_asked(interrupt);
            }
            other => other?,
        };
        let (step, epoch) = (self.progress.step, self.progress.epoch + 1);
        if let Some(errors) = errors {
            self.metrics.write(&EvaluationLine {
                step,
                epoch,
                val_loss: errors.loss,
                val_top1_error: errors.top1_error,
                val_top5_error: errors.top5_error,
            })?;
            let percent = |share: f64| format!("{:.2} %", share * 100.0);
            console.say(&format!(
                "epoch {epoch}: validation loss {:.4}, top-1 error {}, top-5 error {}",
                errors.loss,
                percent(errors.top1_error),
                percent(errors.top5_error)
            ));
        }
        // Only now that its line is written: after an error the epoch's end is still to come.
        self.progress.epoch = epoch;
        self.progress.batch = 0;
        self.errors = errors.or(self.errors);
        let schedule = &self.job.recipe.schedule;
        if schedule.epoch_ended(
            &mut self.progress.schedule,
            epoch,
            errors.map(|errors| errors.top1_error),
        ) {
            console.say(&format!(
                "epoch {epoch}: the learning rate falls to {}",
                self.rate()
            ));
        }
        self.save()?;
        self.start_bar(console);
        self.stop_if_asked(interrupt)
    }

    fn evaluate(&mut self, console: &Console, interrupt: &Interrupt) -> Result<Option<Errors>, Error> {
        let Some(feed) = self.feeds.evaluation.as_deref_mut() else {
            return Ok(None);
        };
        // Opened for each evaluation, so that training and evaluation do not hold memory at the same time.
        self.executor.shrink()?;
        let mut classifier = Classifier::open(self.job.artifact.require(Mode::Infer)?, &self.job.devices)?;
        classifier.executor().copy_parameters(&mut self.executor)?;
        evaluate(&mut classifier, feed, 1, console, interrupt).map(Some)
    }

    fn start_bar(&self, console: &Console) {
        let epochs = match self.job.steps {
            Some(_) => String::new(),
            None => format!("/{}", self.job.recipe.train.epochs),
        };
        let what = format!("epoch {}{epochs}", self.progress.epoch + 1);
        if !self.finished() {
            console.start(&what, self.progress.step, self.total_steps());
        }
    }

    fn report(&mut self, loss: f32, rate: f64, console: &Console) {
        let line = format!(
            "loss {loss:.4}, learning rate {rate}, {:.1} images/s",
            self.pace.images_per_s()
        );
        console.advance(self.progress.step, &line);
        if self.pace.line_is_due() && !console.is_terminal() {
            let (step, total, epoch) = (self.progress.step, self.total_steps(), self.progress.epoch + 1);
            let left = self.pace.time_left(total - step);
            console.say(&format!(
                "epoch {epoch}, step {step}/{total}: {line}, {left} left"
            ));
        }
        if let Some(share) = self.pace.waiting() {
            console.warn(&format!(
                "training waits for data {:.0} % of the time; a faster disk, smaller images or more cores would help",
                share * 100.0
            ));
        }
    }

    /// The result of the run.
    pub(super) fn summary(&self) -> TrainSummary {
        TrainSummary {
            run: self.folder.path().to_path_buf(),
            steps: self.progress.step,
            epochs: self.progress.epoch,
            loss: self.loss,
            evaluation: self.errors,
            images_per_s: (self.pace.images_per_s() * 10.0).round() / 10.0,
        }
    }
}

fn newest_checkpoint(folder: &RunFolder, console: &Console) -> Result<Option<Checkpoint>, Error> {
    let damaged = |error: &Error| console.warn(&format!("{error}; the checkpoint before it is taken"));
    let checkpoint = Checkpoint::newest(folder.path(), damaged)?;
    match &checkpoint {
        Some(checkpoint) => console.say(&format!("resuming after step {}", checkpoint.progress.step)),
        None => console.warn("the run has no intact checkpoint; it starts again from step 0"),
    }
    Ok(checkpoint)
}
