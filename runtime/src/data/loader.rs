//! Batches in order from any position, prepared ahead by background threads.

use super::dataset::{Dataset, Split};
use super::pipeline::Pipeline;
use super::preprocess::Preprocess;
use super::statistics::Statistics;
use super::workers::{Failures, Job, Kind, Queue, Ready, Rows};
use crate::Error;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Options of a loader.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Rows of a batch.
    pub batch: usize,
    /// The model's input: channels, height, width.
    pub shape: [usize; 3],
    /// The seed of order and augmentation.
    pub seed: u64,
    /// Threads; 0 for one per core. The batches do not depend on the number of threads.
    pub threads: usize,
    /// Rows per image in evaluation: 1, or 10 for corners, centre and their mirror images.
    pub views: usize,
}

impl LoaderOptions {
    /// Options with one view, one thread per core and seed 0.
    pub fn new(batch: usize, shape: [usize; 3]) -> LoaderOptions {
        LoaderOptions {
            batch,
            shape,
            seed: 0,
            threads: 0,
            views: 1,
        }
    }
}

/// Images and their classes, ready for a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// f32 `[rows, C, H, W]`, row-major; zeros after the first `valid` rows.
    pub images: Vec<f32>,
    /// The class of each row; 0 after the first `valid`.
    pub labels: Vec<i64>,
    /// Rows that hold an image. In training all do.
    pub valid: usize,
    /// The images of the split that were used, in order: `valid / views` of them.
    pub samples: Vec<usize>,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch of the epoch, from 0.
    pub step: u64,
    /// How long the caller waited for it.
    pub waited: Duration,
}

/// Returns batches, one after another.
///
/// Image `i` of the order of epoch `e` depends on the seed and `e`; its crop, mirror image and colours on the seed, `e`
/// and the image. At most three batches are ahead of the caller. An image that cannot be used is reported once. In
/// training the next usable image of the split replaces it; an evaluation skips it. When more than 1 % of
/// the images (and more than ten) cannot be used, the batch that needs them is an error instead.
pub struct Loader {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    /// Images that could not be used, by number.
    unusable: BTreeSet<usize>,
    tell: Box<dyn FnMut(&str) + Send>,
    waited: Duration,
}

impl Loader {
    /// Full batches of training images, epoch after epoch. Images that do not fill a batch are skipped in this epoch.
    ///
    /// Errors: fewer images than a batch; sizes that [`Statistics::measure`] or the recipe refuses.
    pub fn training(
        dataset: &Dataset,
        preprocess: &Preprocess,
        statistics: &Statistics,
        options: &LoaderOptions,
    ) -> Result<Loader, Error> {
        let pipeline = Pipeline::new(preprocess, statistics, options.shape)?;
        let kind = Kind::Training {
            seed: options.seed,
            shuffle: preprocess.shuffle,
        };
        Loader::open(dataset, Split::Train, pipeline, kind, options)
    }

    /// Every image of a split once, in order, not augmented. A batch holds `batch / views` images, at least one.
    ///
    /// Errors: no images; sizes that the recipe refuses.
    pub fn evaluation(
        dataset: &Dataset,
        split: Split,
        preprocess: &Preprocess,
        statistics: &Statistics,
        options: &LoaderOptions,
    ) -> Result<Loader, Error> {
        let pipeline = Pipeline::for_evaluation(preprocess, statistics, options.shape)?;
        let views = pipeline.views(options.views)?;
        Loader::open(dataset, split, pipeline, Kind::Evaluation { views }, options)
    }

    fn open(
        dataset: &Dataset,
        split: Split,
        pipeline: Pipeline,
        kind: Kind,
        options: &LoaderOptions,
    ) -> Result<Loader, Error> {
        let (images, batch) = (dataset.len(split), options.batch);
        let place = dataset.path().display();
        if batch == 0 {
            return Err(Error::input("a batch of 0 images: expected at least 1"));
        }
        if images == 0 {
            return Err(Error::input(format!("{place}: has no {split} images")));
        }
        let found = dataset.sample_shape().map(|shape| shape[0]);
        let [channels, ..] = options.shape;
        if let Some(found) =
            found.filter(|&found| found != channels && ![(1, 3), (3, 1)].contains(&(found, channels)))
        {
            return Err(Error::input(format!(
                "{place}: its images have {found} channels and the model takes {channels}; use data with {channels}"
            )));
        }
        let (samples, batches) = match &kind {
            Kind::Training { .. } if images < batch => {
                return Err(Error::input(format!(
                    "{place}: has {images} training images, fewer than one batch of {batch}; use --batch {images} or \
                     less"
                )));
            }
            Kind::Training { .. } => (batch, images / batch),
            Kind::Evaluation { views } => {
                let samples = (batch / views.len()).max(1);
                (samples, images.div_ceil(samples))
            }
        };
        let job = Job {
            dataset: dataset.clone(),
            split,
            pipeline,
            kind,
            samples,
            batches: batches as u64,
            tolerance: (images / 100).max(10),
        };
        let mut loader = Loader {
            queue: Arc::new(Queue::new(job)),
            threads: Vec::new(),
            unusable: BTreeSet::new(),
            tell: Box::new(|_| {}),
            waited: Duration::ZERO,
        };
        loader.spawn(options.threads)?;
        Ok(loader)
    }

    fn spawn(&mut self, threads: usize) -> Result<(), Error> {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores() } else { threads };
        for number in 0..threads {
            let queue = Arc::clone(&self.queue);
            let spawned = Builder::new()
                .name(format!("data-{number}"))
                .spawn(move || queue.work());
            match spawned {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => {
                    return Err(Error::work(format!(
                        "no thread can be started to load images: {error}"
                    )));
                }
                // Fewer do the same, later.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Calls `tell` once for each image that cannot be used, with a message.
    pub fn on_unusable(mut self, tell: impl FnMut(&str) + Send + 'static) -> Loader {
        self.tell = Box::new(tell);
        self
    }

    /// How many images could not be used so far.
    pub fn unusable(&self) -> usize {
        self.unusable.len()
    }

    /// The total time that the caller waited.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Batches of an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.queue.job.batches
    }

    /// Images of the split.
    pub fn images(&self) -> usize {
        self.queue.job.dataset.len(self.queue.job.split)
    }

    /// Rows per image.
    pub fn views(&self) -> usize {
        self.queue.job.views()
    }

    /// The next batch is number `step` of epoch `epoch`, both from 0. An evaluation has one epoch.
    pub fn seek(&mut self, epoch: u64, step: u64) -> Result<(), Error> {
        let batches = self.queue.job.batches;
        let training = matches!(self.queue.job.kind, Kind::Training { .. });
        if step >= batches || (!training && epoch > 0) {
            return Err(Error::input(format!(
                "there is no batch {step} in epoch {epoch}; an epoch has {batches} batches, counted from 0{}",
                if training {
                    ""
                } else {
                    ", and an evaluation is one epoch"
                }
            )));
        }
        let number = epoch
            .checked_mul(batches)
            .and_then(|first| first.checked_add(step));
        let number = number.ok_or_else(|| Error::input(format!("epoch {epoch} is beyond all counting")))?;
        self.queue.seek(number);
        Ok(())
    }

    /// The next batch. In training there always is one; in evaluation `None` comes after the last.
    ///
    /// Errors: too many images that cannot be used, a thread that failed. After an error there are only errors.
    pub fn batch(&mut self) -> Result<Option<Batch>, Error> {
        let start = Instant::now();
        let taken = self.queue.take();
        let waited = start.elapsed();
        self.waited += waited;
        let Some(Ready {
            number,
            count,
            mut rows,
            failures,
        }) = taken?
        else {
            return Ok(None);
        };
        for (_, failures) in &failures {
            self.count_unusable(failures)?;
        }
        let (views, elements) = (self.views(), self.queue.job.pipeline.elements());
        let empty = failures.iter().filter(|(_, failures)| failures.without);
        let empty: Vec<usize> = empty.map(|(place, _)| *place).collect();
        // From the end, so that the places of the others stay.
        for &place in empty.iter().rev() {
            rows.remove(place, views, elements);
        }
        let Rows {
            images,
            labels,
            samples,
        } = rows;
        let (epoch, step) = (number / self.queue.job.batches, number % self.queue.job.batches);
        Ok(Some(Batch {
            images,
            labels,
            valid: (count - empty.len()) * views,
            samples,
            epoch,
            step,
            waited,
        }))
    }

    /// Takes a batch's memory back for batches to come.
    pub fn recycle(&mut self, batch: Batch) {
        let Batch {
            images,
            labels,
            samples,
            ..
        } = batch;
        self.queue.recycle(Rows {
            images,
            labels,
            samples,
        });
    }

    /// Reports images that were newly found unusable. The threads do not report them, so that the messages and the limit do
    /// not depend on the order of threads.
    fn count_unusable(&mut self, failures: &Failures) -> Result<(), Error> {
        let Job {
            tolerance,
            split,
            kind,
            ..
        } = &self.queue.job;
        let (tolerance, split, images) = (*tolerance, *split, self.images());
        let training = matches!(kind, Kind::Training { .. });
        let consequence = if training {
            "the next image that can be used takes its place"
        } else {
            "it is left out"
        };
        for (image, error) in &failures.images {
            if !self.unusable.insert(*image) {
                continue;
            }
            (self.tell)(&format!("{error}; {consequence}"));
            let found = self.unusable.len();
            if found > tolerance {
                return self.give_up(format!("{found} {split} images cannot be used, the last"), error);
            }
            if found == images {
                return self.give_up(format!("no {split} image can be used, the last"), error);
            }
        }
        match failures.images.last() {
            Some((_, error)) if training && failures.without => {
                self.give_up(format!("no {split} image can be used, the last"), error)
            }
            _ => Ok(()),
        }
    }

    fn give_up(&self, what: String, last: &Error) -> Result<(), Error> {
        let error = last.clone().at(what).at(self.queue.job.dataset.path().display());
        self.queue.fail(error.clone());
        Err(error)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // A thread ends after the image it is at. It catches its own panics, so there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::Source;
    use super::super::picture::{Picture, Values};
    use super::*;
    use std::path::Path;

    /// Images of one pixel that holds their number; one of them panics.
    struct Panicking;

    impl Source for Panicking {
        fn len(&self, _: Split) -> usize {
            12
        }

        fn sample(&self, _: Split, index: usize) -> Result<(Picture<'_>, i64), Error> {
            assert!(index != 9, "nine is too many");
            Ok((
                Picture {
                    shape: [1, 1, 1],
                    values: Values::Floats(vec![index as f32].into()),
                },
                0,
            ))
        }

        fn name(&self, _: Split, index: usize) -> String {
            format!("image {index}")
        }

        fn shape(&self) -> Option<[usize; 3]> {
            Some([1, 1, 1])
        }
    }

    #[test]
    fn a_thread_that_panics_is_an_error_and_no_hang() {
        let dataset = Dataset::new(Panicking, vec!["only".to_string()], Path::new("here"));
        let statistics = Statistics::measure(&dataset, &Preprocess::as_is(), [1, 1, 1]).unwrap();
        for threads in [1, 4] {
            let options = LoaderOptions {
                threads,
                ..LoaderOptions::new(1, [1, 1, 1])
            };
            let mut loader = Loader::training(&dataset, &Preprocess::as_is(), &statistics, &options).unwrap();
            let error = std::iter::repeat_with(|| loader.batch())
                .find_map(Result::err)
                .unwrap();
            let text = error.to_string();
            assert!(
                text.contains("image 9") && text.contains("nine is too many"),
                "{text}"
            );
            assert_eq!(error.exit_code(), 1);
            assert_eq!(loader.batch().unwrap_err(), error);
        }
    }
}
