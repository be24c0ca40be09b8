//! `metrics.jsonl`: one line per step and one line per evaluation, for plots and comparisons of runs.
//!
//! A run that resumes first drops every line that its checkpoint does not know: later steps, and the evaluation of an
//! epoch whose end is still to come. So the file tells one history. A line that a crash cut in two is dropped too.

use crate::{Error, files};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Steps done, this one included.
    pub step: u64,
    /// The epoch it belongs to, from 1.
    pub epoch: u64,
    /// The mean loss over its batch.
    pub loss: f32,
    /// The learning rate it was made with.
    pub lr: f64,
    /// Since the step before, waiting for data included.
    pub images_per_s: f64,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationLine {
    /// Steps done.
    pub step: u64,
    /// Epochs begun.
    pub epoch: u64,
    /// The mean loss over the validation images.
    pub val_loss: f64,
    /// The share of images whose class is not the first guess.
    pub val_top1_error: f64,
    /// The share of images whose class is not among the first five guesses.
    pub val_top5_error: f64,
}

/// The file, open for new lines.
pub struct Metrics {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines in the file.
    length: u64,
    /// Lines that could not be written yet.
    pending: Vec<u8>,
}

/// A line of either kind.
#[derive(Deserialize)]
struct AnyLine {
    step: u64,
    epoch: u64,
    /// An evaluation has it.
    val_loss: Option<f64>,
}

impl AnyLine {
    /// Whether it belongs to the history of a run that has done `step` steps and finished `epoch` epochs.
    fn is_before(&self, step: u64, epoch: u64) -> bool {
        self.step <= step && (self.val_loss.is_none() || self.epoch <= epoch)
    }
}

impl Metrics {
    /// Opens `path` for a run that has done `step` steps and finished `epoch` epochs. It keeps the lines of these and
    /// drops the rest. A missing file is made.
    pub fn open(path: &Path, step: u64, epoch: u64) -> Result<Metrics, Error> {
        let kept = match std::fs::read(path) {
            Ok(bytes) => lines_before(&bytes, step, epoch),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::reading(path, &error)),
        };
        files::write_bytes(path, &kept)?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|error| Error::writing(path, &error))?;
        Ok(Metrics {
            file,
            path: path.to_path_buf(),
            length: kept.len() as u64,
            pending: Vec::new(),
        })
    }

    /// Appends a line. One that could not be written stays pending.
    pub fn write(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| {
            Error::work(format!(
                "{}: a line cannot be written: {error}",
                self.path.display()
            ))
        })?;
        bytes.push(b'\n');
        self.pending.extend(bytes);
        self.flush()
    }

    /// Writes the lines that are pending, if any.
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Err(error) = self.file.write_all(&self.pending) {
            // A part of a line would spoil the one that is written after it.
            let _ = self.file.set_len(self.length);
            return Err(Error::writing(&self.path, &error));
        }
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

fn lines_before(bytes: &[u8], step: u64, epoch: u64) -> Vec<u8> {
    let whole = bytes
        .split_inclusive(|&b| b == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    let kept = whole
        .filter(|line| serde_json::from_slice::<AnyLine>(line).is_ok_and(|line| line.is_before(step, epoch)));
    kept.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepLine {
        StepLine {
            step,
            epoch: 1,
            loss: 0.1,
            lr: 0.01,
            images_per_s: 10.0,
        }
    }

    #[test]
    fn lines_after_the_checkpoint_and_torn_lines_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0, 0).unwrap();
        let evaluation = EvaluationLine {
            step: 2,
            epoch: 1,
            val_loss: 1.0,
            val_top1_error: 0.5,
            val_top5_error: 0.25,
        };
        metrics.write(&step(1)).unwrap();
        metrics.write(&step(2)).unwrap();
        metrics.write(&evaluation).unwrap();
        metrics.write(&step(3)).unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{before}{{\"step\":2,\"epo")).unwrap();
        Metrics::open(&path, 2, 1).unwrap().write(&step(3)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        // The evaluation of an epoch whose end is still to come is made again.
        drop(Metrics::open(&path, 2, 0).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.contains("val_loss")), (2, false));
    }

    #[test]
    fn lines_have_the_fields_of_the_contract() {
        let line = serde_json::to_string(&step(1)).unwrap();
        assert_eq!(
            line,
            r#"{"step":1,"epoch":1,"loss":0.1,"lr":0.01,"images_per_s":10.0}"#
        );
    }

    #[test]
    fn a_full_disk_is_told() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut metrics = Metrics {
            file,
            path: "metrics.jsonl".into(),
            length: 0,
            pending: Vec::new(),
        };
        let error = metrics.write(&step(1)).unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
