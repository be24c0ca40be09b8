//! Classes of single images, with probabilities.

use crate::Error;
use crate::data::load_image;
use crate::eval::{Classifier, mean_of_views};
use crate::preprocess_state::PreprocessState;
use crate::scores::best;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A class that an image may belong to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// The class's number.
    pub class: usize,
    /// Its name, or its number where classes have no names.
    pub name: String,
    /// Its probability.
    pub probability: f64,
}

/// The classes of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The file.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub image: PathBuf,
    /// Best first.
    pub guesses: Vec<Guess>,
}

/// The `top` most probable classes of an image file, over 1 or 10 views.
pub fn predict(
    classifier: &mut Classifier,
    preprocess_state: &PreprocessState,
    image: &Path,
    views: usize,
    top: usize,
) -> Result<Prediction, Error> {
    let interface = classifier.interface().clone();
    let PreprocessState {
        preprocess,
        statistics,
        ..
    } = preprocess_state;
    let inputs = load_image(image, preprocess, statistics, interface.image_shape, views)?;
    let logits = classifier.logits(&inputs.concat())?;
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(Error::work(format!(
            "{}: the network gives values that are not finite; are these the weights of this model?",
            image.display()
        )));
    }
    let guess = |(class, probability)| Guess {
        class,
        name: preprocess_state.class_name(class),
        probability,
    };
    let guesses = best(&mean_of_views(&logits, interface.classes), top)
        .into_iter()
        .map(guess)
        .collect();
    Ok(Prediction {
        image: image.to_path_buf(),
        guesses,
    })
}
