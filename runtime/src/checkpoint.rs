//! Checkpoints: everything that a run needs to resume bit for bit, in a file that is either complete or absent.
//!
//! A checkpoint is a safetensors file: parameters under their own names (so it is a weights file too), the
//! optimiser's state under [`STATE_PREFIX`], and the progress of the run as JSON in the metadata, with a SHA-256
//! over everything. It is written under a temporary name, flushed, renamed; then the link `last` is replaced. A
//! process killed at any moment loses at most the checkpoint that it was writing.

use crate::artifact::hexadecimal;
use crate::preprocess_state::{PREPROCESS_PREFIX, PreprocessState};
use crate::schedule::ScheduleState;
use crate::tensor::Tensor;
use crate::tensor_file::{self, TensorFile};
use crate::weights::{self, LAST, STATE_PREFIX};
use crate::{Error, files};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of this format; another is refused.
const FORMAT: u32 = 1;
/// The one metadata entry. One, because the library writes several in random order, and equal runs shall give
/// equal files.
const METADATA: &str = "alexc.checkpoint";
/// How many checkpoints a run keeps: a damaged one leaves others to fall back to, and the disk does not fill.
pub const KEPT: usize = 3;

/// The progress of a run: everything that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The model's name.
    pub model: String,
    /// The seed of the random state.
    pub seed: u64,
    /// Steps done.
    pub step: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Batches done of the epoch that is under way; all of them when only its evaluation is left.
    pub batch: u64,
    /// The learning-rate schedule's memory.
    pub schedule: ScheduleState,
}

/// A state of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The progress of the run.
    pub progress: Progress,
    /// Parameters.
    pub parameters: BTreeMap<String, Tensor>,
    /// The optimiser's state.
    pub state: BTreeMap<String, Tensor>,
    /// How images are prepared, if that is known.
    pub preprocess_state: Option<PreprocessState>,
}

/// The metadata: the record as text, so that the checksum covers its exact bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    record: String,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    progress: Progress,
    #[serde(rename = "preparation")]
    preprocess_state: Option<PreprocessState>,
}

impl Checkpoint {
    /// Saves into the run folder `run`, makes `last` point at it, removes all but the newest [`KEPT`].
    pub fn save(self, run: &Path) -> Result<PathBuf, Error> {
        let folder = folder(run);
        fs::create_dir_all(&folder).map_err(|error| Error::writing(&folder, &error))?;
        let name = format!("step-{}.safetensors", self.progress.step);
        let path = folder.join(&name);
        self.into_file()?.write(&path)?;
        files::link_atomically(&run.join(LAST), &Path::new(FOLDER).join(name))?;
        // Only now that the new one is whole and linked.
        for (_, old) in saved(run)?.into_iter().rev().skip(KEPT) {
            fs::remove_file(&old).map_err(|error| Error::writing(&old, &error))?;
        }
        remove_leftovers(&folder);
        Ok(path)
    }

    /// Reads and verifies a checkpoint.
    pub fn read(path: &Path) -> Result<Checkpoint, Error> {
        let file = TensorFile::read(path)?;
        let fail = |what: String| Error::input(format!("{}: {what}", path.display()));
        let text = file.metadata.get(METADATA).ok_or_else(|| {
            fail(
                "holds tensors but is not a checkpoint; give it with --weights to start from them"
                    .to_string(),
            )
        })?;
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|error| fail(format!("the checkpoint's record is damaged: {error}")))?;
        if envelope.format != FORMAT {
            let found = envelope.format;
            return Err(fail(format!(
                "is a checkpoint of format {found} and this program reads {FORMAT}"
            )));
        }
        if checksum(&envelope.record, &file.tensors) != envelope.sha256 {
            return Err(fail(
                "the checkpoint's checksum is wrong: the file is damaged".to_string(),
            ));
        }
        let Record {
            progress,
            mut preprocess_state,
        } = serde_json::from_str(&envelope.record)
            .map_err(|error| fail(format!("the checkpoint's record is damaged: {error}")))?;
        let (mut parameters, mut state, mut state_tensors) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in file.tensors {
            if let Some(name) = name.strip_prefix(STATE_PREFIX) {
                state.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix(PREPROCESS_PREFIX) {
                state_tensors.insert(name.to_string(), tensor);
            } else {
                parameters.insert(name, tensor);
            }
        }
        if let Some(preprocess_state) = &mut preprocess_state {
            preprocess_state
                .put_tensors(state_tensors)
                .map_err(|error| error.at(path.display()))?;
        }
        Ok(Checkpoint {
            progress,
            parameters,
            state,
            preprocess_state,
        })
    }

    /// How images were prepared for the weights in `path`, if it is a checkpoint or a run folder that records it.
    pub fn preprocess_state_of(path: &Path) -> Result<Option<PreprocessState>, Error> {
        let path = weights::locate(path);
        if !tensor_file::metadata(&path)?.contains_key(METADATA) {
            return Ok(None);
        }
        Ok(Checkpoint::read(&path)?.preprocess_state)
    }

    /// The newest whole checkpoint of a run, or `None` when there is none. Each damaged one that is passed over is
    /// given to `warn`.
    pub fn newest(run: &Path, mut warn: impl FnMut(&Error)) -> Result<Option<Checkpoint>, Error> {
        for (_, path) in saved(run)?.into_iter().rev() {
            match Checkpoint::read(&path) {
                Ok(checkpoint) => {
                    // `last` may point at the damaged one, or be missing if the process died just before it.
                    let target = path.strip_prefix(run).unwrap_or(&path);
                    if fs::read_link(run.join(LAST)).ok().as_deref() != Some(target) {
                        files::link_atomically(&run.join(LAST), target)?;
                    }
                    return Ok(Some(checkpoint));
                }
                Err(error) => warn(&error),
            }
        }
        Ok(None)
    }

    fn into_file(mut self) -> Result<TensorFile, Error> {
        let state_tensors = match &mut self.preprocess_state {
            Some(preprocess_state) => preprocess_state.take_tensors()?,
            None => BTreeMap::new(),
        };
        let record = to_json(&Record {
            progress: self.progress,
            preprocess_state: self.preprocess_state,
        })?;
        let mut tensors = self.parameters;
        tensors.extend(
            self.state
                .into_iter()
                .map(|(name, t)| (format!("{STATE_PREFIX}{name}"), t)),
        );
        tensors.extend(
            state_tensors
                .into_iter()
                .map(|(name, t)| (format!("{PREPROCESS_PREFIX}{name}"), t)),
        );
        let sha256 = checksum(&record, &tensors);
        let envelope = to_json(&Envelope {
            format: FORMAT,
            record,
            sha256,
        })?;
        Ok(TensorFile {
            tensors,
            metadata: [(METADATA.to_string(), envelope)].into(),
        })
    }
}

const FOLDER: &str = "checkpoints";

fn folder(run: &Path) -> PathBuf {
    run.join(FOLDER)
}

/// The checkpoints of a run, by step, oldest first. Temporary and foreign files are not among them.
fn saved(run: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let folder = folder(run);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::reading(&folder, &error)),
    };
    let step = |path: &Path| -> Option<u64> {
        path.file_name()?
            .to_str()?
            .strip_prefix("step-")?
            .strip_suffix(".safetensors")?
            .parse()
            .ok()
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::reading(&folder, &error))?.path();
        found.extend(step(&path).map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// Removes what a killed process left half-written.
fn remove_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .ends_with(files::TEMPORARY_SUFFIX)
    }) {
        // A leftover that cannot be removed costs space, nothing else.
        let _ = fs::remove_file(entry.path());
    }
}

fn to_json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::work(format!("the checkpoint cannot be written: {error}")))
}

/// Over the record and every tensor with its name and type.
fn checksum(record: &str, tensors: &BTreeMap<String, Tensor>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        // With lengths, so that bytes cannot move from one part to the next.
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(record.as_bytes());
    for (name, tensor) in tensors {
        part(name.as_bytes());
        part(tensor.type_name().as_bytes());
        part(tensor.bytes());
    }
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preprocess;

    fn preprocess_state() -> PreprocessState {
        let mut preprocess_state = PreprocessState::unmeasured(&Preprocess::as_is(), [3, 2, 2]).unwrap();
        preprocess_state.classes = vec!["cat".into(), "dog \"x\"".into()];
        preprocess_state.statistics.pixel_mean = Some((0..12).map(|i| i as f32 / 7.0).collect());
        preprocess_state
    }

    fn checkpoint(step: u64) -> Checkpoint {
        let tensor = |value: f32| Tensor::f32([2, 2], vec![value, 1.0, -2.0, f32::MIN_POSITIVE]).unwrap();
        Checkpoint {
            progress: Progress {
                model: "tiny".into(),
                seed: u64::MAX,
                step,
                epoch: 1,
                batch: 3,
                schedule: ScheduleState {
                    drops: 1,
                    best: Some(0.1 + 0.2),
                    waited: 2,
                },
            },
            parameters: [("fc.weight".to_string(), tensor(step as f32))].into(),
            state: [("fc.weight.momentum".to_string(), tensor(0.5))].into(),
            preprocess_state: Some(preprocess_state()),
        }
    }

    fn newest(run: &Path) -> (Option<Checkpoint>, Vec<String>) {
        let mut warnings = Vec::new();
        let found = Checkpoint::newest(run, |error| warnings.push(error.to_string())).unwrap();
        (found, warnings)
    }

    #[test]
    fn what_was_saved_is_read_and_the_newest_are_kept() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(newest(run.path()), (None, vec![]));
        for step in [5, 9, 10, 100] {
            checkpoint(step).save(run.path()).unwrap();
        }
        assert_eq!(newest(run.path()), (Some(checkpoint(100)), vec![]));
        let steps: Vec<u64> = saved(run.path())
            .unwrap()
            .into_iter()
            .map(|(step, _)| step)
            .collect();
        assert_eq!(steps, [9, 10, 100]);
        assert_eq!(Checkpoint::read(&run.path().join(LAST)).unwrap(), checkpoint(100));
        assert_eq!(
            Checkpoint::preprocess_state_of(run.path()).unwrap(),
            checkpoint(100).preprocess_state
        );
        // It serves as a weights file.
        let expected = [("fc.weight".to_string(), vec![2, 2])];
        assert_eq!(
            crate::weights::read(run.path(), &expected).unwrap(),
            checkpoint(100).parameters
        );
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..200u64 {
            let best = f64::from_bits(0x3fe0_0000_0000_0000 | (crate::weights::mix(1, i) >> 12));
            let mut moment = checkpoint(1);
            moment.progress.schedule.best = Some(best);
            let path = moment.save(folder.path()).unwrap();
            assert_eq!(
                Checkpoint::read(&path).unwrap().progress.schedule.best,
                Some(best)
            );
        }
    }

    #[test]
    fn equal_moments_give_equal_files() {
        let bytes = || checkpoint(3).into_file().unwrap().to_bytes().unwrap();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn any_changed_byte_of_the_newest_is_noticed_and_the_one_before_is_taken() {
        let run = tempfile::tempdir().unwrap();
        checkpoint(1).save(run.path()).unwrap();
        let path = checkpoint(2).save(run.path()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let (found, warnings) = newest(run.path());
            assert_eq!(found, Some(checkpoint(1)), "byte {at}");
            assert_eq!(warnings.len(), 1);
            assert!(warnings[0].contains("step-2.safetensors"), "{warnings:?}");
            let target = fs::read_link(run.path().join(LAST)).unwrap();
            assert_eq!(target, Path::new("checkpoints/step-1.safetensors"));
        }
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(newest(run.path()).0, Some(checkpoint(1)));
        fs::write(&path, &whole).unwrap();
        assert_eq!(newest(run.path()), (Some(checkpoint(2)), vec![]));
    }

    #[test]
    fn a_leftover_of_a_killed_process_is_ignored_and_removed() {
        let run = tempfile::tempdir().unwrap();
        checkpoint(1).save(run.path()).unwrap();
        let leftover = folder(run.path()).join(".step-2.safetensors.4711.part");
        fs::write(&leftover, b"half").unwrap();
        assert_eq!(newest(run.path()), (Some(checkpoint(1)), vec![]));
        checkpoint(2).save(run.path()).unwrap();
        assert!(!leftover.exists());
    }

    #[test]
    fn weights_are_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        TensorFile {
            tensors: checkpoint(1).parameters,
            metadata: BTreeMap::new(),
        }
        .write(&path)
        .unwrap();
        let error = Checkpoint::read(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is not a checkpoint; give it with --weights"),
            "{error}"
        );
    }
}
