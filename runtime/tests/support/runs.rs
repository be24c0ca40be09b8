//! Training runs on images that are made up.

use super::feeds::{BATCH, CLASSES, Evaluation, SIDE, Training};
use runtime::console::Console;
use runtime::feed::FeedBatch;
use runtime::interrupt::Interrupt;
use runtime::recipe::Recipe;
use runtime::train::{Feeds, TrainJob, TrainSummary, train};
use runtime::{DeviceSpec, Error};
use serde_json::Value;
use std::path::Path;

pub fn job(run: &Path) -> TrainJob {
    let mut recipe = Recipe::default();
    (recipe.train.batch, recipe.train.epochs, recipe.train.seed) = (BATCH, 3, 5);
    recipe.sgd.lr = 0.1;
    TrainJob {
        artifact: super::classifier(BATCH, 4, SIDE, CLASSES),
        recipe,
        run: run.to_path_buf(),
        devices: DeviceSpec::parse_list("cpu").unwrap(),
        weights: None,
        steps: None,
        resume: false,
        preprocess_state: None,
    }
}

pub fn go<'a>(
    job: &TrainJob,
    interrupt: &Interrupt,
    trap: impl FnMut(u64, &mut FeedBatch) + 'a,
    mut evaluation_trap: impl FnMut() + 'a,
) -> Result<TrainSummary, Error> {
    go_or_fail(job, interrupt, trap, move || {
        evaluation_trap();
        Ok(())
    })
}

pub fn go_or_fail<'a>(
    job: &TrainJob,
    interrupt: &Interrupt,
    trap: impl FnMut(u64, &mut FeedBatch) + 'a,
    evaluation_trap: impl FnMut() -> Result<(), Error> + 'a,
) -> Result<TrainSummary, Error> {
    let mut training = Training {
        place: 0,
        trap: Box::new(trap),
    };
    let mut evaluation = Evaluation {
        left: 0,
        trap: Box::new(evaluation_trap),
    };
    let feeds = Feeds {
        training: &mut training,
        evaluation: Some(&mut evaluation),
    };
    train(job, feeds, &Console::silent(), interrupt)
}

pub fn plainly(job: &TrainJob) -> Result<TrainSummary, Error> {
    go(job, &Interrupt::never(), |_, _| (), || ())
}

/// The metrics without what depends on the clock.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("images_per_s");
        value
    };
    text.lines().map(line).collect()
}

pub fn last(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("last")).unwrap()
}
