//! The preprocessing of a run and the names of its classes. Checkpoints record it, so that a resumed run, `eval` and
//! `predict` treat images as training did. Subtracting another mean would give wrong classes and no error.

use crate::Error;
use crate::data::{Dataset, Preprocess, Split, Statistics};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The prefix of a checkpoint's tensors that belong to the preprocessing.
pub const PREPROCESS_PREFIX: &str = "preparation/";

const PIXEL_MEAN: &str = "pixel_mean";

/// The preprocessing of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessState {
    /// The classes' names, in the order of their labels.
    pub classes: Vec<String>,
    /// The recipe's `[data]` table.
    pub preprocess: Preprocess,
    /// The statistics of the training images.
    pub statistics: Statistics,
}

impl PreprocessState {
    /// Measures what `preprocess` needs over the training images of `dataset`, for images of `shape` (channels,
    /// height, width).
    pub fn measure(
        dataset: &Dataset,
        preprocess: &Preprocess,
        shape: [usize; 3],
    ) -> Result<PreprocessState, Error> {
        Ok(PreprocessState {
            classes: dataset.class_names().to_vec(),
            preprocess: preprocess.clone(),
            statistics: Statistics::measure(dataset, preprocess, shape)?,
        })
    }

    /// Without a data set: for recipes that need no measurement.
    pub fn unmeasured(preprocess: &Preprocess, shape: [usize; 3]) -> Result<PreprocessState, Error> {
        let statistics = Statistics::unmeasured(preprocess, shape)?;
        Ok(PreprocessState {
            classes: Vec::new(),
            preprocess: preprocess.clone(),
            statistics,
        })
    }

    /// Whether `dataset` has the classes that this was measured with, in the same order.
    pub fn check_classes(&self, dataset: &Dataset) -> Result<(), Error> {
        if self.classes == dataset.class_names() {
            return Ok(());
        }
        let show = |names: &[String]| {
            let few = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            format!(
                "{} ({few}{})",
                names.len(),
                if names.len() > 5 { ", …" } else { "" }
            )
        };
        Err(Error::input(format!(
            "{}: its classes are {} and the weights were trained on {}; use data with these classes",
            dataset.path().display(),
            show(dataset.class_names()),
            show(&self.classes)
        )))
    }

    /// The name of a class, or its number.
    pub fn class_name(&self, class: usize) -> String {
        self.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    }

    /// Takes out what is large, to be kept as tensors; [`PreprocessState::put_tensors`] puts it back.
    pub(crate) fn take_tensors(&mut self) -> Result<BTreeMap<String, Tensor>, Error> {
        let Some(mean) = self.statistics.pixel_mean.take() else {
            return Ok(BTreeMap::new());
        };
        let [h, w] = self.statistics.frame;
        let channels = mean.len() / (h * w).max(1);
        Ok([(PIXEL_MEAN.to_string(), Tensor::f32([channels, h, w], mean)?)].into())
    }

    /// The inverse of [`PreprocessState::take_tensors`].
    pub(crate) fn put_tensors(&mut self, mut tensors: BTreeMap<String, Tensor>) -> Result<(), Error> {
        let Some(mean) = tensors.remove(PIXEL_MEAN) else {
            return Ok(());
        };
        let [h, w] = self.statistics.frame;
        match (mean.as_f32(), mean.shape()) {
            (Some(values), &[_, mean_h, mean_w]) if (mean_h, mean_w) == (h, w) => {
                self.statistics.pixel_mean = Some(values.to_vec());
                Ok(())
            }
            _ => {
                let found = mean.type_name();
                Err(Error::input(format!(
                    "the mean image is {found}, expected f32 of {h}x{w} pixels"
                )))
            }
        }
    }
}

/// The splits of a data set with how many images they have, for people.
pub fn describe(dataset: &Dataset) -> String {
    format!(
        "{}: {} training and {} validation images in {} classes",
        dataset.path().display(),
        dataset.len(Split::Train),
        dataset.len(Split::Val),
        dataset.classes()
    )
}
