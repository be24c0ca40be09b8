//! Loaders as the drivers know them.

use super::loader::Loader;
use crate::Error;
use crate::feed::{EvaluationFeed, FeedBatch, TrainingFeed};

impl TrainingFeed for Loader {
    fn batches_per_epoch(&self) -> u64 {
        Loader::batches_per_epoch(self)
    }

    fn seek(&mut self, epoch: u64, batch: u64) -> Result<(), Error> {
        Loader::seek(self, epoch, batch)
    }

    fn next_batch(&mut self) -> Result<FeedBatch, Error> {
        let batch = self
            .batch()?
            .ok_or_else(|| Error::work("these images are to evaluate on, and they are all given"))?;
        Ok(FeedBatch {
            images: batch.images,
            labels: batch.labels,
            waited: batch.waited,
        })
    }
}

impl EvaluationFeed for Loader {
    fn images(&self) -> u64 {
        Loader::images(self) as u64
    }

    fn restart(&mut self) -> Result<(), Error> {
        Loader::seek(self, 0, 0)
    }

    fn next_images(&mut self) -> Result<Option<FeedBatch>, Error> {
        Ok(self.batch()?.map(|mut batch| {
            let elements = batch.images.len() / batch.labels.len();
            batch.images.truncate(batch.valid * elements);
            batch.labels.truncate(batch.valid);
            FeedBatch {
                images: batch.images,
                labels: batch.labels,
                waited: batch.waited,
            }
        }))
    }
}
