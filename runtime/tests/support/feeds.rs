//! Images made up as they are needed, to train and evaluate on.

use runtime::Error;
use runtime::feed::{EvaluationFeed, FeedBatch, TrainingFeed};
use std::time::Duration;

pub const BATCH: usize = 8;
pub const SIDE: usize = 2;
pub const CLASSES: usize = 3;
pub const ELEMENTS: usize = 3 * SIDE * SIDE;
pub const BATCHES: u64 = 5;

/// Images whose class shows in one of their values, under noise; each depends on its number alone.
pub fn images(numbers: impl Iterator<Item = u64>) -> FeedBatch {
    let mut batch = FeedBatch::default();
    for number in numbers {
        let label = number % CLASSES as u64;
        let noise = |i: usize| ((number * 7919 + i as u64 * 104_729) % 1009) as f32 / 1009.0 - 0.5;
        batch
            .images
            .extend((0..ELEMENTS).map(|i| noise(i) + if i as u64 == label { 2.0 } else { 0.0 }));
        batch.labels.push(label as i64);
    }
    batch
}

/// What a feed does at a batch, counted over its life.
pub type Trap<'a> = Box<dyn FnMut(u64, &mut FeedBatch) + 'a>;

pub struct Training<'a> {
    pub place: u64,
    pub trap: Trap<'a>,
}

impl Training<'_> {
    pub fn new() -> Self {
        let trap = Box::new(|_: u64, _: &mut FeedBatch| ());
        Training { place: 0, trap }
    }
}

impl TrainingFeed for Training<'_> {
    fn batches_per_epoch(&self) -> u64 {
        BATCHES
    }

    fn seek(&mut self, epoch: u64, batch: u64) -> Result<(), Error> {
        assert!(batch < BATCHES);
        self.place = epoch * BATCHES + batch;
        Ok(())
    }

    fn next_batch(&mut self) -> Result<FeedBatch, Error> {
        let first = self.place * 31;
        let mut batch = images(first..first + BATCH as u64);
        self.place += 1;
        (self.trap)(self.place, &mut batch);
        batch.waited = Duration::from_micros(1);
        Ok(batch)
    }
}

pub struct Evaluation<'a> {
    pub left: u64,
    pub trap: Box<dyn FnMut() -> Result<(), Error> + 'a>,
}

impl Evaluation<'_> {
    pub fn new() -> Self {
        let trap = Box::new(|| Ok(()));
        Evaluation { left: 0, trap }
    }
}

impl EvaluationFeed for Evaluation<'_> {
    fn images(&self) -> u64 {
        11
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.left = self.images();
        Ok(())
    }

    fn next_images(&mut self) -> Result<Option<FeedBatch>, Error> {
        (self.trap)()?;
        let count = self.left.min(4);
        let first = 1_000_000 + self.left;
        self.left -= count;
        Ok((count > 0).then(|| images(first..first + count)))
    }
}
