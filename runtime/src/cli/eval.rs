//! `eval`: error rates over the validation images of a data set.

use super::OutputArgs;
use crate::checkpoint::Checkpoint;
use crate::console::Console;
use crate::data::{Dataset, Loader, LoaderOptions, Preprocess, Split};
use crate::eval::{Classifier, evaluate};
use crate::interrupt::Interrupt;
use crate::preprocess_state::PreprocessState;
use crate::scores::Errors;
use crate::{Artifact, DeviceSpec, Error, weights};
use ir::plan::Mode;
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `eval`, but for model, recipe, batch and devices.
#[derive(Clone, Debug, clap::Args)]
pub struct EvalArgs {
    /// Parameters: a safetensors file, a checkpoint or a run folder
    #[arg(long, value_name = "W")]
    pub weights: PathBuf,
    /// Images: a folder with val/CLASS/*.jpg, CIFAR-10, IDX, or a .safetensors file
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Views per image: 1, or 10 (corners, centre and their mirror images) with averaged probabilities
    #[arg(long, default_value = "1", value_parser = ["1", "10"])]
    pub views: String,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    views: usize,
    #[serde(flatten)]
    errors: Errors,
    unusable_images: usize,
}

impl EvalArgs {
    /// Evaluates with the inference program of `artifact` and prints the error rates. Images are prepared as the
    /// weights' run did; weights that do not record that, as `preprocess` says.
    pub fn run(
        &self,
        artifact: &Artifact,
        preprocess: &Preprocess,
        devices: &[DeviceSpec],
    ) -> Result<(), Error> {
        let console = Console::stderr();
        let interrupt = Interrupt::on_signals()?;
        let mut classifier = open_classifier(artifact, &self.weights, devices)?;
        let (shape, batch) = (classifier.interface().image_shape, classifier.batch());
        let dataset = Dataset::open(&self.data)?;
        let preprocess_state = match Checkpoint::preprocess_state_of(&self.weights)? {
            Some(preprocess_state) => {
                preprocess_state.check_classes(&dataset)?;
                preprocess_state
            }
            None => PreprocessState::measure(&dataset, preprocess, shape)?,
        };
        let views = if self.views == "10" { 10 } else { 1 };
        let options = LoaderOptions {
            views,
            ..LoaderOptions::new(batch, shape)
        };
        let PreprocessState {
            preprocess,
            statistics,
            ..
        } = &preprocess_state;
        let loader = Loader::evaluation(&dataset, Split::Val, preprocess, statistics, &options)?;
        let mut loader = warning(loader, &console);
        let outcome = evaluate(&mut classifier, &mut loader, views, &console, &interrupt);
        console.finish();
        let errors = outcome?;
        let unusable_images = loader.unusable();
        let report = Report {
            model: &artifact.name,
            views,
            errors,
            unusable_images,
        };
        if errors.loss.is_nan() {
            return Err(Error::work(format!(
                "{}: the network gives values that are not finite; are these the weights of this model?",
                self.weights.display()
            )));
        }
        self.output
            .print(&report, || text(&errors) + &unusable(unusable_images))
    }
}

/// The loader, with images that cannot be used told on the console.
pub(super) fn warning(loader: Loader, console: &Console) -> Loader {
    let console = console.clone();
    loader.on_unusable(move |message| console.warn(message))
}

/// The inference program of an artifact with weights from a file.
pub(super) fn open_classifier(
    artifact: &Artifact,
    path: &std::path::Path,
    devices: &[DeviceSpec],
) -> Result<Classifier, Error> {
    let program = artifact.require(Mode::Infer)?;
    let parameters = weights::read(path, &weights::parameters(&program.plan))?;
    let mut classifier = Classifier::open(program, devices)?;
    for (name, tensor) in &parameters {
        classifier.executor().set(name, tensor)?;
    }
    Ok(classifier)
}

/// Error rates for people.
pub(super) fn text(errors: &Errors) -> String {
    let Errors {
        images,
        loss,
        top1_error,
        top5_error,
    } = errors;
    let (top1, top5) = (top1_error * 100.0, top5_error * 100.0);
    format!("{images} images: top-1 error {top1:.2} %, top-5 error {top5:.2} %, loss {loss:.4}")
}

/// A line about images that were not what was asked for, if there are any.
pub(super) fn unusable(images: usize) -> String {
    if images == 0 {
        return String::new();
    }
    format!("\n{images} images could not be used")
}
