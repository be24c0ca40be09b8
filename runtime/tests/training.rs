//! The training driver: learning, resuming bit for bit, stopping in every way.

mod support;

use runtime::checkpoint::{Checkpoint, KEPT};
use runtime::console::Console;
use runtime::feed::FeedBatch;
use runtime::interrupt::Interrupt;
use runtime::recipe::Recipe;
use runtime::schedule::Schedule;
use runtime::train::{Feeds, TrainJob, train};
use runtime::{Tensor, TensorFile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use support::feeds::{CLASSES, ELEMENTS, Training};
use support::runs::{go, job, last, metrics, plainly};

#[test]
fn a_run_learns_and_writes_what_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let summary = plainly(&job(&run)).unwrap();
    assert_eq!((summary.steps, summary.epochs), (15, 3));
    let errors = summary.evaluation.unwrap();
    assert_eq!(
        (errors.images, errors.top1_error, errors.top5_error),
        (11, 0.0, 0.0)
    );
    let lines = metrics(&run);
    let (steps, evaluations): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line.get("loss").is_some());
    assert_eq!((steps.len(), evaluations.len()), (15, 3));
    assert!(steps[14]["loss"].as_f64().unwrap() < 0.5 * steps[0]["loss"].as_f64().unwrap());
    assert_eq!(
        (&steps[5]["step"], &steps[5]["epoch"], &steps[5]["lr"]),
        (&6.into(), &2.into(), &0.1.into())
    );
    assert_eq!(
        (&evaluations[1]["step"], &evaluations[1]["epoch"]),
        (&10.into(), &2.into())
    );
    assert!(evaluations[0]["val_loss"].as_f64() > evaluations[2]["val_loss"].as_f64());
    assert_eq!(
        std::fs::read_to_string(run.join("model.ir")).unwrap(),
        "model tiny\n"
    );
    assert_eq!(Recipe::read(&run.join("recipe.toml")).unwrap(), job(&run).recipe);
    assert_eq!(
        std::fs::read_link(run.join("last")).unwrap(),
        Path::new("checkpoints/step-15.safetensors")
    );
    assert_eq!(std::fs::read_dir(run.join("checkpoints")).unwrap().count(), KEPT);
    // A second run into the folder is refused, and going on has nothing to do.
    let error = plainly(&job(&run)).unwrap_err();
    assert!(
        error.to_string().contains("holds a run already") && error.exit_code() == 2,
        "{error}"
    );
    let again = plainly(&TrainJob {
        resume: true,
        ..job(&run)
    })
    .unwrap();
    assert_eq!((again.steps, again.loss), (15, None));
}

#[test]
fn interrupted_anywhere_and_resumed_equals_uninterrupted() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::Plateau {
        factor: 0.5,
        patience: 1,
        times: 2,
    };
    let with_plateau = |name: &str| {
        let mut job = job(&folder.path().join(name));
        job.recipe.schedule = schedule.clone();
        job
    };
    let whole = with_plateau("whole");
    plainly(&whole).unwrap();
    let expected = metrics(&whole.run);
    assert!(
        expected.iter().any(|line| line["lr"] == 0.05),
        "the schedule acts in this run"
    );
    // Asked while that batch is fetched: the first of an epoch in its own step, others in the step before.
    for (asked, stop) in [(1, 1), (2, 1), (4, 3), (5, 4), (6, 6), (7, 6), (10, 9), (14, 13)] {
        let mut parts = with_plateau(&format!("stopped-{asked}"));
        let interrupt = Interrupt::never();
        let error = go(
            &parts,
            &interrupt,
            |place, _| {
                if place == asked {
                    interrupt.ask()
                }
            },
            || (),
        )
        .unwrap_err();
        assert_eq!(error.exit_code(), 130);
        assert!(
            error.to_string().contains(&format!("stopped after step {stop}")),
            "{error}"
        );
        assert!(metrics(&parts.run).len() < expected.len());
        parts.resume = true;
        plainly(&parts).unwrap();
        assert_eq!(metrics(&parts.run), expected, "stopped at {stop}");
        assert!(
            last(&parts.run) == last(&whole.run),
            "the checkpoints differ, stopped at {stop}"
        );
    }
    // While evaluating, at once and in the second epoch.
    for asked in [1, 6] {
        let mut parts = with_plateau(&format!("stopped-evaluating-{asked}"));
        let interrupt = Interrupt::never();
        let mut calls = 0;
        let trap = || {
            calls += 1;
            if calls == asked {
                interrupt.ask();
            }
        };
        assert_eq!(
            go(&parts, &interrupt, |_, _| (), trap).unwrap_err().exit_code(),
            130
        );
        parts.resume = true;
        plainly(&parts).unwrap();
        assert_eq!(metrics(&parts.run), expected);
        assert!(last(&parts.run) == last(&whole.run));
    }
}

#[test]
fn a_crash_between_checkpoints_is_repeated_from_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = TrainJob {
        steps: Some(9),
        ..job(&folder.path().join("whole"))
    };
    plainly(&whole).unwrap();
    let mut crashed = TrainJob {
        steps: Some(9),
        ..job(&folder.path().join("crashed"))
    };
    crashed.recipe.train.checkpoint_every = Some(3);
    // The process dies in step 8, where the batch of the next is fetched, with a torn line and a torn checkpoint.
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        go(
            &crashed,
            &Interrupt::never(),
            |place, _| assert!(place < 9, "the process dies"),
            || (),
        )
    }));
    assert!(died.is_err());
    let file = crashed.run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 8);
    std::fs::write(&file, format!("{text}{{\"step\":8")).unwrap();
    std::fs::write(
        crashed.run.join("checkpoints/.step-8.safetensors.1.part"),
        b"half",
    )
    .unwrap();
    crashed.resume = true;
    plainly(&crashed).unwrap();
    assert_eq!(metrics(&crashed.run), metrics(&whole.run));
    assert!(last(&crashed.run) == last(&whole.run));
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let whole = job(&folder.path().join("whole"));
    plainly(&whole).unwrap();
    let mut damaged = TrainJob {
        steps: Some(12),
        ..job(&folder.path().join("damaged"))
    };
    plainly(&damaged).unwrap();
    let newest = damaged.run.join("checkpoints/step-12.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    (damaged.resume, damaged.steps) = (true, None);
    plainly(&damaged).unwrap();
    assert_eq!(metrics(&damaged.run), metrics(&whole.run));
    assert!(last(&damaged.run) == last(&whole.run));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_step_and_layer() {
    let folder = tempfile::tempdir().unwrap();
    let mut diverging = job(&folder.path().join("diverging"));
    diverging.recipe.sgd.lr = 3e38;
    diverging.recipe.train.checkpoint_every = Some(1);
    let error = plainly(&diverging).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.exit_code(), 1);
    assert!(
        message.contains("the loss is") && message.contains("fc is the first to give a value"),
        "{message}"
    );
    // What was kept is finite.
    let checkpoint = Checkpoint::read(&diverging.run.join("last")).unwrap();
    assert!(
        message.contains(&format!("the checkpoint of step {}", checkpoint.progress.step)),
        "{message}"
    );
    assert!(
        metrics(&diverging.run)
            .iter()
            .all(|line| line["loss"].is_number())
    );

    let bad_image = TrainJob {
        steps: Some(9),
        ..job(&folder.path().join("bad-image"))
    };
    let trap = |place: u64, batch: &mut FeedBatch| {
        if place == 8 {
            batch.images[3] = f32::NAN;
        }
    };
    let message = go(&bad_image, &Interrupt::never(), trap, || ())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("step 8: the loss is NaN: images was given with a value"),
        "{message}"
    );
    assert!(message.contains("the checkpoint of step 5"), "{message}");
}

#[test]
fn a_job_that_cannot_work_is_refused_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let refused = |change: fn(&mut TrainJob), part: &str| {
        let mut job = job(&run);
        change(&mut job);
        let error = plainly(&job).unwrap_err();
        assert!(
            error.to_string().contains(part) && error.exit_code() == 2,
            "{part:?} is not in {error}"
        );
        assert!(!run.exists());
    };
    refused(
        |job| job.recipe.train.batch = 64,
        "compiled for batch 8 and the recipe says 64",
    );
    refused(|job| job.recipe.sgd.lr = f64::NAN, "[sgd] lr = NaN");
    refused(|job| job.steps = Some(0), "--steps 0");
    refused(|job| job.artifact.programs.truncate(1), "no program for infer");
    refused(
        |job| drop(job.artifact.programs.remove(0)),
        "no program for train",
    );
    refused(|job| job.resume = true, "no run to resume");
    let mut plateau = job(&run);
    plateau.recipe.schedule = Schedule::Plateau {
        factor: 0.1,
        patience: 1,
        times: 1,
    };
    let mut training = Training {
        place: 0,
        trap: Box::new(|_, _| ()),
    };
    let feeds = Feeds {
        training: &mut training,
        evaluation: None,
    };
    let error = train(&plateau, feeds, &Console::silent(), &Interrupt::never()).unwrap_err();
    assert!(error.to_string().contains("no validation images"), "{error}");
}

#[test]
fn labels_that_the_model_has_no_class_for_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for label in [-1, CLASSES as i64] {
        let job = job(&folder.path().join(format!("{label}")));
        let trap = move |_, batch: &mut FeedBatch| batch.labels[2] = label;
        let error = go(&job, &Interrupt::never(), trap, || ()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("label {label} and the model has 3 classes")),
            "{error}"
        );
    }
    // One that comes later ends the run at its own step, though it was fetched in the one before.
    let job = job(&folder.path().join("later"));
    let trap = |place: u64, batch: &mut FeedBatch| {
        if place == 8 {
            batch.labels[2] = -1;
        }
    };
    assert!(go(&job, &Interrupt::never(), trap, || ()).is_err());
    let steps = metrics(&job.run)
        .into_iter()
        .filter(|line| line.get("loss").is_some());
    assert_eq!(steps.filter_map(|line| line["step"].as_u64()).max(), Some(7));
}

#[test]
fn training_starts_from_given_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let features = CLASSES * ELEMENTS;
    let write = |count: usize| {
        let weight = Tensor::f32([CLASSES, count / CLASSES], vec![0.0; count]).unwrap();
        let bias = Tensor::f32([CLASSES], vec![0.0; CLASSES]).unwrap();
        let tensors = [("fc.weight".to_string(), weight), ("fc.bias".to_string(), bias)].into();
        TensorFile {
            tensors,
            metadata: BTreeMap::new(),
        }
        .write(&path)
        .unwrap();
    };
    let given = |name: &str| TrainJob {
        weights: Some(path.clone()),
        steps: Some(1),
        ..job(&folder.path().join(name))
    };
    write(features);
    let summary = plainly(&given("a")).unwrap();
    // All classes alike, but for the little that the random state moves.
    assert!(
        (summary.loss.unwrap() - (CLASSES as f32).ln()).abs() < 0.01,
        "{summary:?}"
    );
    write(features * 2);
    let error = plainly(&given("b")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("fc.weight is f32[3, 24] (expected f32[3, 12])"),
        "{error}"
    );
}
