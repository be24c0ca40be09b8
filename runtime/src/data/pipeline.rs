//! From a picture to the model's input: the recipe and the statistics resolved into one list of steps.

use super::decode::decode;
use super::picture::{Picture, Scratch};
use super::preprocess::{MAX_SIDE, Mean, Preprocess};
use super::random::Stream;
use super::statistics::{ColorPca, Statistics};
use crate::Error;
use std::path::Path;

/// The deviation of the colour draw (Krizhevsky, Sutskever, Hinton 2012, section 4.1).
const COLOR_DEVIATION: f64 = 0.1;

/// The part of a frame that becomes an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    top: usize,
    left: usize,
    mirrored: bool,
    /// Added to each channel, in the images' range.
    color: [f32; 3],
}

/// The steps from a picture to an input.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    shape: [usize; 3],
    frame: [usize; 2],
    range: f32,
    crops: bool,
    flips: bool,
    colors: Option<ColorPca>,
    mean: Subtracted,
    scale: f32,
}

/// What is subtracted.
#[derive(Clone, Debug)]
enum Subtracted {
    /// One value per channel.
    Channels(Vec<f32>),
    /// `[c, h, w]` of the frame.
    Pixels(Vec<f32>),
}

impl Pipeline {
    /// Resolves a recipe and statistics for a model's input of `shape` (channels, height, width). An error names the part
    /// that is missing or does not fit.
    pub fn new(
        preprocess: &Preprocess,
        statistics: &Statistics,
        shape: [usize; 3],
    ) -> Result<Pipeline, Error> {
        let Statistics { frame, range, .. } = *statistics;
        let [channels, h, w] = shape;
        // The recipe's own checks; the frame is that of the statistics, which knew the data set's sizes.
        preprocess.frame(shape, Some([channels, frame[0], frame[1]]))?;
        if frame[0] < h || frame[1] < w || frame.iter().any(|&side| side > MAX_SIDE) {
            return Err(Error::input(format!(
                "the statistics are of {}x{} pixels and the model takes {h}x{w}; measure them for this model",
                frame[0], frame[1]
            )));
        }
        if preprocess.resize.is_some_and(|resize| frame != [resize, resize]) {
            return Err(Error::input(format!(
                "the statistics are of {}x{} pixels and the recipe says resize = {}; measure them for this recipe",
                frame[0],
                frame[1],
                preprocess.resize.unwrap_or_default()
            )));
        }
        if channels == 0 || !(range.is_finite() && range > 0.0) {
            return Err(Error::input(format!(
                "images of {channels} channels with values to {range} cannot be prepared; expected at least 1 channel"
            )));
        }
        let colors = if preprocess.varies_colors() && channels == 3 {
            Some(
                statistics
                    .colors
                    .ok_or_else(|| missing("colours", "color_pca = false"))?,
            )
        } else {
            None
        };
        Ok(Pipeline {
            shape,
            frame,
            range,
            crops: preprocess.crops_at_random(),
            flips: preprocess.flips(),
            colors,
            mean: Subtracted::of(preprocess.subtracts(), statistics, channels)?,
            scale: preprocess.scale.unwrap_or(1.0) as f32,
        })
    }

    /// The same without what only training does, so that statistics need not hold it.
    pub fn for_evaluation(
        preprocess: &Preprocess,
        statistics: &Statistics,
        shape: [usize; 3],
    ) -> Result<Pipeline, Error> {
        let preprocess = Preprocess {
            color_pca: Some(false),
            ..preprocess.clone()
        };
        Pipeline::new(&preprocess, statistics, shape)
    }

    /// Elements of one input.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Brings a picture to the frame, in `scratch`.
    pub fn to_frame(&self, picture: &Picture, scratch: &mut Scratch) -> Result<(), Error> {
        picture.to_frame(self.shape[0], self.frame, self.range, scratch)
    }

    /// The view to train on. Each draw has its own position in the stream, so that turning one part off leaves the
    /// others as they are.
    pub fn drawn(&self, stream: Stream) -> View {
        let [_, h, w] = self.shape;
        let mut view = self.centre();
        if self.crops {
            view.top = stream.below(0, (self.frame[0] - h) as u64 + 1) as usize;
            view.left = stream.below(1, (self.frame[1] - w) as u64 + 1) as usize;
        }
        view.mirrored = self.flips && stream.below(2, 2) == 1;
        if let Some(ColorPca { values, vectors }) = &self.colors {
            for (k, (value, vector)) in values.iter().zip(vectors).enumerate() {
                let amount =
                    COLOR_DEVIATION * stream.normal(4 + 2 * k as u64) * value * f64::from(self.range);
                for (sum, part) in view.color.iter_mut().zip(vector) {
                    *sum += (amount * part) as f32;
                }
            }
        }
        view
    }

    /// The views to evaluate: the centre for 1; for 10 the corners from left to right and top to bottom, the centre,
    /// and then the mirror images of these five.
    pub fn views(&self, views: usize) -> Result<Vec<View>, Error> {
        let [_, h, w] = self.shape;
        let (bottom, right) = (self.frame[0] - h, self.frame[1] - w);
        match views {
            1 => Ok(vec![self.centre()]),
            10 => {
                let at = |top, left| View {
                    top,
                    left,
                    mirrored: false,
                    color: [0.0; 3],
                };
                let mut views = vec![
                    at(0, 0),
                    at(0, right),
                    at(bottom, 0),
                    at(bottom, right),
                    self.centre(),
                ];
                views.extend_from_within(..);
                views[5..].iter_mut().for_each(|view| view.mirrored = true);
                Ok(views)
            }
            _ => Err(Error::input(format!("{views} views: expected 1 or 10"))),
        }
    }

    fn centre(&self) -> View {
        let [_, h, w] = self.shape;
        View {
            top: (self.frame[0] - h) / 2,
            left: (self.frame[1] - w) / 2,
            mirrored: false,
            color: [0.0; 3],
        }
    }

    /// Cuts `view` out of a frame `[c, h, w]` into `out`, an input of the model.
    pub fn cut(&self, frame: &[f32], view: View, out: &mut [f32]) {
        let [_, h, w] = self.shape;
        let [frame_h, frame_w] = self.frame;
        for (channel, plane) in out.chunks_exact_mut(h * w).enumerate() {
            let color = if self.colors.is_some() {
                view.color[channel]
            } else {
                0.0
            };
            for (y, row) in plane.chunks_exact_mut(w).enumerate() {
                let start = (channel * frame_h + view.top + y) * frame_w + view.left;
                let values = &frame[start..start + w];
                match &self.mean {
                    Subtracted::Channels(means) => {
                        let shift = color - means[channel];
                        row.iter_mut()
                            .zip(values)
                            .for_each(|(out, value)| *out = (value + shift) * self.scale);
                    }
                    Subtracted::Pixels(means) => {
                        let means = &means[start..start + w];
                        for ((out, value), mean) in row.iter_mut().zip(values).zip(means) {
                            *out = (value - mean + color) * self.scale;
                        }
                    }
                }
                if view.mirrored {
                    row.reverse();
                }
            }
        }
    }
}

impl Subtracted {
    fn of(mean: Mean, statistics: &Statistics, channels: usize) -> Result<Subtracted, Error> {
        let checked = |found: &Option<Vec<f32>>, expected: usize| {
            let values = found
                .clone()
                .ok_or_else(|| missing("mean", "mean = \"none\" or three values"))?;
            if values.len() != expected || values.iter().any(|value| !value.is_finite()) {
                return Err(Error::input(format!(
                    "the statistics hold {} mean values, expected {expected} finite ones; measure them for this model",
                    values.len()
                )));
            }
            Ok(values)
        };
        let [h, w] = statistics.frame;
        match mean {
            Mean::None => Ok(Subtracted::Channels(vec![0.0; channels])),
            Mean::Channel => checked(&statistics.channel_mean, channels).map(Subtracted::Channels),
            Mean::Pixel => checked(&statistics.pixel_mean, channels * h * w).map(Subtracted::Pixels),
            Mean::Values(values) if channels == 3 => {
                Ok(Subtracted::Channels(values.map(|value| value as f32).to_vec()))
            }
            Mean::Values(values) => Err(Error::input(format!(
                "[data] mean = {values:?} is of red, green and blue and the model takes {channels} channels; use \
                 mean = \"channel\""
            ))),
        }
    }
}

fn missing(what: &str, remedy: &str) -> Error {
    Error::input(format!(
        "the recipe needs the {what} of the training images, which were not measured; give the training data or the \
         run's statistics, or set [data] {remedy}"
    ))
}

/// Reads one image for prediction: an input `[c, h, w]` for each of `views` (1 or 10) views, in the order in which
/// the loader gives them. `shape` is the model's input (channels, height, width).
///
/// Errors: a file that is not a complete JPEG or PNG of at most [`MAX_PIXELS`](super::MAX_PIXELS), a recipe that does not
/// fit the model, statistics that lack what the recipe needs.
pub fn load_image(
    path: &Path,
    preprocess: &Preprocess,
    statistics: &Statistics,
    shape: [usize; 3],
    views: usize,
) -> Result<Vec<Vec<f32>>, Error> {
    let pipeline = Pipeline::for_evaluation(preprocess, statistics, shape)?;
    let views = pipeline.views(views)?;
    let mut scratch = Scratch::default();
    pipeline
        .to_frame(&decode(path)?, &mut scratch)
        .map_err(|error| error.at(path.display()))?;
    let inputs = views.into_iter().map(|view| {
        let mut input = vec![0.0; pipeline.elements()];
        pipeline.cut(&scratch.frame, view, &mut input);
        input
    });
    Ok(inputs.collect())
}
