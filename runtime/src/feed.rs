//! The interface between the drivers and the loaders. The training loop asks for batches in a fixed order from any position,
//! and knows nothing of how images are read.

use crate::Error;
use std::time::Duration;

/// Images and their classes, ready for a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedBatch {
    /// f32 `[n, C, H, W]`, row-major.
    pub images: Vec<f32>,
    /// The class of each image.
    pub labels: Vec<i64>,
    /// How long the caller waited for it.
    pub waited: Duration,
}

/// Images to train on.
pub trait TrainingFeed {
    /// Full batches of one epoch; images that are left over wait for another epoch's order.
    fn batches_per_epoch(&self) -> u64;

    /// Makes number `batch` of epoch `epoch`, both from 0, the next batch. The contents of a batch depend on these two and
    /// the seed only.
    fn seek(&mut self, epoch: u64, batch: u64) -> Result<(), Error>;

    /// The next full batch; after an epoch's last comes the next epoch's first.
    fn next_batch(&mut self) -> Result<FeedBatch, Error>;
}

/// Images to evaluate on, in a fixed order, each once.
pub trait EvaluationFeed {
    /// How many images there are.
    fn images(&self) -> u64;

    /// Starts again at the first image.
    fn restart(&mut self) -> Result<(), Error>;

    /// The next images, at most as many as the program takes; `None` after the last.
    fn next_images(&mut self) -> Result<Option<FeedBatch>, Error>;
}
