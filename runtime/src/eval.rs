//! Error rates of a network over a set of images: one view an image, or the mean over ten.

use crate::artifact::Compiled;
use crate::device::DeviceSpec;
use crate::feed::EvaluationFeed;
use crate::interface::Interface;
use crate::interrupt::Interrupt;
use crate::scores::{Errors, Tally, softmax};
use crate::{Error, Executor, console::Console};

/// A program for inference with its interface, ready to be given images.
pub struct Classifier {
    executor: Executor,
    interface: Interface,
    batch: usize,
    /// One batch of images: the last may be filled only in part.
    images: Vec<f32>,
}

impl Classifier {
    /// Opens the inference program; parameters are still to be set.
    pub fn open(program: &Compiled, devices: &[DeviceSpec]) -> Result<Classifier, Error> {
        let interface = Interface::of(&program.plan)?;
        let executor = Executor::new(program, devices)?;
        let batch = program.plan.batch;
        let images = vec![0.0; batch * interface.image_elements()];
        Ok(Classifier {
            executor,
            interface,
            batch,
            images,
        })
    }

    /// The executor, to set parameters.
    pub fn executor(&mut self) -> &mut Executor {
        &mut self.executor
    }

    /// The program's inputs and outputs.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Images of one run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The logits of any number of images (row-major, one after another), a row of classes each.
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, Error> {
        let (elements, classes) = (self.interface.image_elements(), self.interface.classes);
        if !images.len().is_multiple_of(elements) {
            let shape = self.interface.image_shape;
            let found = images.len();
            return Err(Error::input(format!(
                "{found} values are not a whole number of images of {shape:?}"
            )));
        }
        let mut logits = Vec::with_capacity(images.len() / elements * classes);
        for part in images.chunks(self.batch * elements) {
            let (given, rest) = self.images.split_at_mut(part.len());
            given.copy_from_slice(part);
            rest.fill(0.0);
            self.executor.set_f32(&self.interface.image, &self.images)?;
            self.executor.run()?;
            let found = self.executor.get_f32(&self.interface.logits)?;
            logits.extend_from_slice(&found[..part.len() / elements * classes]);
        }
        Ok(logits)
    }
}

/// Evaluates `classifier` on every image of `feed`. With `views` above 1 the feed gives each image `views` times in a
/// row, with one label each, and their probabilities are averaged.
pub fn evaluate(
    classifier: &mut Classifier,
    feed: &mut dyn EvaluationFeed,
    views: usize,
    console: &Console,
    interrupt: &Interrupt,
) -> Result<Errors, Error> {
    let classes = classifier.interface().classes;
    let mut tally = Tally::default();
    feed.restart()?;
    console.start("evaluating", 0, feed.images());
    let mut done = 0;
    while let Some(batch) = feed.next_images()? {
        if interrupt.asked() {
            console.finish();
            return Err(Error::Interrupted("stopped while evaluating".to_string()));
        }
        let logits = classifier.logits(&batch.images)?;
        if logits.len() != batch.labels.len() * classes || !batch.labels.len().is_multiple_of(views) {
            let (images, labels) = (logits.len() / classes, batch.labels.len());
            return Err(Error::work(format!(
                "{images} images came with {labels} labels for {views} views"
            )));
        }
        let labels = batch.labels.chunks(views);
        for (rows, labels) in logits.chunks(classes * views).zip(labels) {
            let label = class_of(labels[0], classes)?;
            if views == 1 {
                tally.add_logits(rows, label);
            } else {
                tally.add_probabilities(&mean_of_views(rows, classes), label);
            }
            done += 1;
        }
        console.advance(done, "images");
    }
    console.finish();
    if done == 0 {
        return Err(Error::input(
            "there are no images to evaluate on; expected some under val/",
        ));
    }
    Ok(tally.errors())
}

/// A label as a class number, if it is one.
pub fn class_of(label: i64, classes: usize) -> Result<usize, Error> {
    usize::try_from(label).ok().filter(|&class| class < classes).ok_or_else(|| {
        Error::input(format!(
            "an image has the label {label} and the model has {classes} classes (0 to {}); use data with as many",
            classes - 1
        ))
    })
}

/// The mean of the probabilities of several views of one image.
pub fn mean_of_views(logits: &[f32], classes: usize) -> Vec<f64> {
    let mut mean = vec![0.0; classes];
    let views = logits.len() / classes;
    for row in logits.chunks(classes) {
        for (sum, p) in mean.iter_mut().zip(softmax(row)) {
            *sum += p / views as f64;
        }
    }
    mean
}
