//! `train`: the training driver on a data set.

use super::OutputArgs;
use crate::checkpoint::Checkpoint;
use crate::console::Console;
use crate::data::{Dataset, Loader, LoaderOptions, Split};
use crate::feed::EvaluationFeed;
use crate::interface::Interface;
use crate::interrupt::Interrupt;
use crate::preprocess_state::{PreprocessState, describe};
use crate::recipe::Recipe;
use crate::train::{Feeds, RunFolder, RunLock, TrainJob, TrainSummary, train_locked};
use crate::{Artifact, DeviceSpec, Error};
use ir::plan::Mode;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Flags of `train`, but for model, recipe, batch and devices.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// Images: a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, CIFAR-10, IDX, or a .safetensors file
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// The run folder, for metrics and checkpoints
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Passes over the training images
    #[arg(long, value_name = "E", conflicts_with = "steps")]
    pub epochs: Option<u64>,
    /// Stop after S steps, counted from the start of the run, instead of after epochs
    #[arg(long, value_name = "S")]
    pub steps: Option<u64>,
    /// Start from these weights instead of random ones
    #[arg(long, value_name = "W", conflicts_with = "resume")]
    pub weights: Option<PathBuf>,
    /// Seed for initial weights, dropout, image order and augmentation
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Resume the run in --out; the result equals an uninterrupted run bit for bit
    #[arg(long)]
    pub resume: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TrainArgs {
    /// The recipe with the flags merged in. It is read from `given`, or else from the run to resume, or else it is
    /// `otherwise`. A run folder that cannot be used is refused here, before the model is compiled.
    pub fn recipe(
        &self,
        given: Option<&Path>,
        batch: Option<usize>,
        otherwise: impl FnOnce() -> Result<Recipe, Error>,
    ) -> Result<Recipe, Error> {
        // Before the model is compiled, which takes seconds.
        RunFolder::check(&self.out, self.resume)?;
        let of_run = || {
            if self.resume {
                RunFolder::recipe(&self.out)
            } else {
                None
            }
        };
        let mut recipe = match given.map(Path::to_path_buf).or_else(of_run) {
            Some(path) => Recipe::read(&path)?,
            None => otherwise()?,
        };
        recipe.train.batch = batch.unwrap_or(recipe.train.batch);
        recipe.train.epochs = self.epochs.unwrap_or(recipe.train.epochs);
        recipe.train.seed = self.seed.unwrap_or(recipe.train.seed);
        match recipe.problem() {
            Some(problem) => Err(Error::input(problem)),
            None => Ok(recipe),
        }
    }

    /// Trains with the programs of `artifact`, which were compiled for `recipe`, and prints the result.
    pub fn run(&self, artifact: Artifact, recipe: Recipe, devices: Vec<DeviceSpec>) -> Result<(), Error> {
        let console = Console::stderr();
        let interrupt = Interrupt::on_signals()?;
        RunFolder::check(&self.out, self.resume)?;
        // A folder that is there is locked before anything in it is read or written. A new one is made only once the
        // data are known to fit.
        let lock = if self.out.is_dir() {
            Some(RunLock::acquire(&self.out, &console)?)
        } else {
            None
        };
        let dataset = Dataset::open(&self.data)?;
        console.say(&describe(&dataset));
        let plan = &artifact.require(Mode::Train)?.plan;
        let interface = Interface::of(plan)?;
        if dataset.classes() > interface.classes {
            return Err(Error::input(format!(
                "{}: has {} classes and the model has {}; use fewer classes or change the model's last layer",
                self.data.display(),
                dataset.classes(),
                interface.classes
            )));
        }
        let preprocess_state = self.preprocess_state(&dataset, &recipe, interface.image_shape, &console)?;
        let options = |batch: usize| LoaderOptions {
            seed: recipe.train.seed,
            ..LoaderOptions::new(batch, interface.image_shape)
        };
        let PreprocessState {
            preprocess,
            statistics,
            ..
        } = &preprocess_state;
        let training = Loader::training(&dataset, preprocess, statistics, &options(plan.batch))?;
        let mut training = super::eval::warning(training, &console);
        let mut evaluation = match artifact.program(Mode::Infer) {
            Some(infer) if !dataset.is_empty(Split::Val) => {
                let options = options(infer.plan.batch);
                let loader = Loader::evaluation(&dataset, Split::Val, preprocess, statistics, &options)?;
                Some(super::eval::warning(loader, &console))
            }
            _ => None,
        };
        let feeds = Feeds {
            training: &mut training,
            evaluation: evaluation
                .as_mut()
                .map(|loader| loader as &mut dyn EvaluationFeed),
        };
        let job = TrainJob {
            artifact,
            recipe,
            run: self.out.clone(),
            devices,
            weights: self.weights.clone(),
            steps: self.steps,
            resume: self.resume,
            preprocess_state: Some(preprocess_state),
        };
        let summary = train_locked(&job, lock, feeds, &console, &interrupt)?;
        let report = Report {
            unusable_images: training.unusable() + evaluation.as_ref().map_or(0, Loader::unusable),
            summary,
        };
        self.output.print(&report, || text(&report))
    }

    /// The preprocessing of the run to resume, or else measured on the training images.
    fn preprocess_state(
        &self,
        dataset: &Dataset,
        recipe: &Recipe,
        shape: [usize; 3],
        console: &Console,
    ) -> Result<PreprocessState, Error> {
        let recorded = if self.resume {
            Checkpoint::newest(&self.out, |_| ())?
        } else {
            None
        };
        match recorded.and_then(|checkpoint| checkpoint.preprocess_state) {
            Some(preprocess_state) => {
                preprocess_state.check_classes(dataset)?;
                Ok(preprocess_state)
            }
            None => {
                let preprocess_state = PreprocessState::measure(dataset, &recipe.data, shape)?;
                if preprocess_state.statistics.samples > 0 {
                    console.say(&format!(
                        "statistics computed from {} training images",
                        preprocess_state.statistics.samples
                    ));
                }
                Ok(preprocess_state)
            }
        }
    }
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    summary: TrainSummary,
    /// Images that were replaced or left out.
    unusable_images: usize,
}

fn text(report: &Report) -> String {
    let TrainSummary {
        run,
        steps,
        epochs,
        loss,
        evaluation,
        images_per_s,
    } = &report.summary;
    let mut text = format!("{}: {steps} steps, {epochs} epochs", run.display());
    if let Some(loss) = loss {
        text += &format!(", loss {loss:.4}, {images_per_s} images/s");
    }
    if let Some(errors) = evaluation {
        text += &format!("\n{}", super::eval::text(errors));
    }
    text + &super::eval::unusable(report.unusable_images)
}
