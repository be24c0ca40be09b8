//! Images for training, evaluation and prediction: from files to NCHW batches.
//!
//! [`Dataset`] knows where images and their classes are, [`Preprocess`] is the recipe's `[data]` table,
//! [`Statistics`] are what must be measured over the training images once, and [`Loader`] brings the three together in
//! background threads. [`load_image`] is the same for one file; [`synth()`] draws a data set.
//!
//! An image goes through these steps, in this order:
//! 1. decoded; one channel or three as the model takes;
//! 2. resized so that its shorter side has `resize` pixels, and the centre kept: the *frame*, one size for all images;
//! 3. less the mean, of which the pixel mean is as large as the frame; plus the colour draw (training);
//! 4. cut out: at random in training, the centre in evaluation, or four corners and the centre in ten views;
//! 5. mirrored: at random in training; each of the five in ten views;
//! 6. multiplied by `scale`.
//!
//! **Invariant**: what a batch holds depends on the data set, the recipe, the seed, the epoch and the batch's number,
//! and on nothing else; so a run that resumes anywhere, with any number of threads, continues bit for bit.

mod cifar;
mod dataset;
mod decode;
mod eigen;
mod feeds;
mod folder;
mod idx;
mod loader;
mod open;
mod picture;
mod pipeline;
mod preprocess;
mod random;
mod statistics;
mod synth;
mod tensors;
mod workers;

pub use dataset::{Dataset, Split};
pub use decode::MAX_PIXELS;
pub use loader::{Batch, Loader, LoaderOptions};
pub use pipeline::load_image;
pub use preprocess::{Mean, Preprocess};
pub use statistics::{ColorPca, Statistics};
pub use synth::{MAX_CLASSES, SynthOptions, synth};
