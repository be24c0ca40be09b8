//! Errors out of the training loop: the finished steps are saved first. A run folder has one process at a time.

mod support;

use runtime::Error;
use runtime::checkpoint::Checkpoint;
use runtime::feed::FeedBatch;
use runtime::interrupt::Interrupt;
use runtime::train::TrainJob;
use support::runs::{go, go_or_fail, job, last, metrics, plainly};

/// The checkpoint that a failed run wrote is named, and resuming from it gives the run that did not fail.
fn resumes_after(mut failed: TrainJob, error: &Error, step: u64, whole: &TrainJob) {
    let saved = failed.run.join(format!("checkpoints/step-{step}.safetensors"));
    let note = format!(
        "note: the finished steps are saved in {}; --resume continues after step {step}",
        saved.display()
    );
    assert!(error.to_string().contains(&note), "{note:?} is not in {error}");
    assert_eq!(
        Checkpoint::read(&failed.run.join("last")).unwrap().progress.step,
        step
    );
    failed.resume = true;
    plainly(&failed).unwrap();
    assert_eq!(metrics(&failed.run), metrics(&whole.run), "failed after {step}");
    assert!(last(&failed.run) == last(&whole.run), "failed after {step}");
}

#[test]
fn an_error_out_of_the_loop_comes_after_the_finished_steps_were_saved() {
    let folder = tempfile::tempdir().unwrap();
    let whole = job(&folder.path().join("whole"));
    plainly(&whole).unwrap();
    for step in 1..15 {
        let failed = job(&folder.path().join(format!("data-{step}")));
        let trap = |place: u64, batch: &mut FeedBatch| {
            if place == step + 1 {
                batch.labels[2] = -1;
            }
        };
        let error = go(&failed, &Interrupt::never(), trap, || ()).unwrap_err();
        assert!(
            error.to_string().starts_with("an image has the label -1") && error.exit_code() == 2,
            "{error}"
        );
        if step % 5 == 0 {
            // The end of the epoch has saved them already.
            let note = format!("note: the checkpoint of step {step} in {}", failed.run.display());
            assert!(error.to_string().contains(&note), "{error}");
            continue;
        }
        resumes_after(failed, &error, step, &whole);
    }
    // At once, and in the middle of the second evaluation.
    for (call, step) in [(1, 5), (6, 10)] {
        let failed = job(&folder.path().join(format!("evaluation-{step}")));
        let mut calls = 0;
        let trap = || {
            calls += 1;
            if calls == call {
                return Err(Error::work("the disk went away"));
            }
            Ok(())
        };
        let error = go_or_fail(&failed, &Interrupt::never(), |_, _| (), trap).unwrap_err();
        assert!(
            error.to_string().starts_with("the disk went away") && error.exit_code() == 1,
            "{error}"
        );
        resumes_after(failed, &error, step, &whole);
    }
}

#[test]
fn an_error_before_the_first_step_leaves_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let failed = job(&folder.path().join("run"));
    let trap = |_, batch: &mut FeedBatch| batch.labels[2] = -1;
    let error = go(&failed, &Interrupt::never(), trap, || ()).unwrap_err();
    assert!(!error.to_string().contains("note:"), "{error}");
    assert!(!failed.run.join("checkpoints").exists() && !failed.run.join("last").exists());
    // So the run can begin without another word.
    plainly(&failed).unwrap();
}

#[test]
fn where_saving_fails_too_both_errors_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let failed = job(&folder.path().join("run"));
    let trap = |place: u64, batch: &mut FeedBatch| {
        if place == 8 {
            batch.labels[2] = -1;
            // The folder of the checkpoints becomes a file.
            std::fs::remove_dir_all(failed.run.join("checkpoints")).unwrap();
            std::fs::write(failed.run.join("checkpoints"), "").unwrap();
        }
    };
    let error = go(&failed, &Interrupt::never(), trap, || ())
        .unwrap_err()
        .to_string();
    let parts = [
        "an image has the label -1",
        "note: the 2 steps since the last checkpoint could not be saved: ",
        "checkpoints: cannot be written",
        "note: the checkpoint of step 5",
    ];
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn a_second_run_in_the_same_folder_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = job(&folder.path().join("run"));
    let mut refusals = Vec::new();
    let trap = |place: u64, _: &mut FeedBatch| {
        if place == 7 {
            for resume in [false, true] {
                let second = TrainJob {
                    resume,
                    ..first.clone()
                };
                refusals.push(plainly(&second).unwrap_err());
            }
        }
    };
    go(&first, &Interrupt::never(), trap, || ()).unwrap();
    let expected = format!("process {}", std::process::id());
    assert_eq!(refusals.len(), 2);
    for error in refusals {
        assert!(
            error.to_string().contains(&expected) && error.to_string().contains("trains in this folder"),
            "{error}"
        );
    }
    assert_eq!(metrics(&first.run).len(), 15 + 3);
}
