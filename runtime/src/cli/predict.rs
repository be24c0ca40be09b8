//! `predict`: the classes of image files.

use super::OutputArgs;
use super::eval::open_classifier;
use crate::checkpoint::Checkpoint;
use crate::data::Preprocess;
use crate::predict::{Prediction, predict};
use crate::preprocess_state::PreprocessState;
use crate::{Artifact, DeviceSpec, Error};
use serde::Serialize;
use std::path::PathBuf;

/// Flags of `predict`, but for model, recipe and devices.
#[derive(Clone, Debug, clap::Args)]
pub struct PredictArgs {
    /// Parameters: a checkpoint or a run folder, or a safetensors file with a recipe that needs no statistics
    #[arg(long, value_name = "W")]
    pub weights: PathBuf,
    /// Number of classes to print
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub top: u64,
    /// Views per image: 1, or 10 (corners, centre and their mirror images) with averaged probabilities
    #[arg(long, default_value = "1", value_parser = ["1", "10"])]
    pub views: String,
    /// JPEG or PNG files
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    predictions: &'a [Prediction],
}

impl PredictArgs {
    /// Predicts with the inference program of `artifact` and prints each image's classes. Images are prepared as the
    /// weights' run did; weights that do not record that, as `preprocess` says.
    pub fn run(
        &self,
        artifact: &Artifact,
        preprocess: &Preprocess,
        devices: &[DeviceSpec],
    ) -> Result<(), Error> {
        let mut classifier = open_classifier(artifact, &self.weights, devices)?;
        let preprocess_state = match Checkpoint::preprocess_state_of(&self.weights)? {
            Some(preprocess_state) => preprocess_state,
            None => PreprocessState::unmeasured(preprocess, classifier.interface().image_shape)?,
        };
        let views = if self.views == "10" { 10 } else { 1 };
        let top = usize::try_from(self.top).unwrap_or(usize::MAX);
        let mut one = |image: &PathBuf| predict(&mut classifier, &preprocess_state, image, views, top);
        let predictions = self
            .images
            .iter()
            .map(&mut one)
            .collect::<Result<Vec<_>, Error>>()?;
        let report = Report {
            model: &artifact.name,
            predictions: &predictions,
        };
        self.output
            .print(&report, || predictions.iter().map(text).collect())
    }
}

fn text(prediction: &Prediction) -> String {
    let mut text = format!("{}\n", prediction.image.display());
    for guess in &prediction.guesses {
        text += &format!("  {:6.2} %  {}\n", guess.probability * 100.0, guess.name);
    }
    text
}
