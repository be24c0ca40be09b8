//! CIFAR-10's binary version (Krizhevsky 2009): records of a label byte and 32×32 pixels, red, then green, then blue.

use super::dataset::{Dataset, Source, Split};
use super::picture::{Picture, Values};
use crate::{Error, files};
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [3, 32, 32];
const RECORD: usize = 1 + 3 * 32 * 32;
const CLASSES: usize = 10;
/// The most a file may hold: a hundred times what the original's do.
const MAX_FILE: u64 = 1_000_000 * RECORD as u64;
const NAMES: &str = "batches.meta.txt";
const VAL: &str = "test_batch.bin";

fn batch(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("data_batch_{number}.bin"))
}

/// The folder with the files: `path`, or the folder inside it that the original archive makes.
pub(crate) fn find(path: &Path) -> Option<PathBuf> {
    let folders = [path.to_path_buf(), path.join("cifar-10-batches-bin")];
    folders
        .into_iter()
        .find(|folder| batch(folder, 1).is_file() || folder.join(VAL).is_file())
}

/// Records one after another.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Each file with the number of its first record.
    files: Vec<(usize, PathBuf)>,
}

struct Cifar {
    train: Records,
    val: Records,
}

/// Opens the folder: training batches 1 to 5, or as many from 1 on as are there, and the test batch for validation.
pub(crate) fn open(folder: &Path) -> Result<Dataset, Error> {
    let here: Vec<u32> = (1..=5).filter(|&number| batch(folder, number).exists()).collect();
    let mut train = Records::default();
    for (expected, &number) in (1..).zip(&here) {
        if number != expected {
            let (folder, missing) = (folder.display(), batch(Path::new(""), expected));
            return Err(Error::input(format!(
                "{folder}: data_batch_{number}.bin is there and {} is not; copy it too",
                missing.display()
            )));
        }
        train.add(batch(folder, number))?;
    }
    let mut val = Records::default();
    if folder.join(VAL).exists() {
        val.add(folder.join(VAL))?;
    }
    Ok(Dataset::new(Cifar { train, val }, names(folder)?, folder))
}

/// The classes' names: the lines of the file that names them, or their numbers.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let path = folder.join(NAMES);
    if !path.exists() {
        return Ok((0..CLASSES).map(|class| class.to_string()).collect());
    }
    let text = files::read_text(&path, 1 << 16)?;
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect();
    if names.len() != CLASSES {
        return Err(Error::input(format!(
            "{}: names {} classes, expected {CLASSES}, one per line",
            path.display(),
            names.len()
        )));
    }
    Ok(names)
}

impl Records {
    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let bytes = files::read_bounded(&path, MAX_FILE)?;
        let fail = |what: String| Err(Error::input(format!("{}: {what}", path.display())));
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            return fail(format!(
                "has {} bytes, expected a multiple of {RECORD} (10000 records are 30730000); copy it again",
                bytes.len()
            ));
        }
        let labels = bytes.iter().step_by(RECORD).enumerate();
        if let Some((record, label)) = labels
            .into_iter()
            .find(|(_, label)| usize::from(**label) >= CLASSES)
        {
            return fail(format!(
                "record {record} has the label {label}, expected 0 to 9; is this the binary version of CIFAR-10?"
            ));
        }
        self.files.push((self.len(), path));
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.bytes.extend(bytes);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.bytes.len() / RECORD
    }
}

impl Cifar {
    fn records(&self, split: Split) -> &Records {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }
}

impl Source for Cifar {
    fn len(&self, split: Split) -> usize {
        self.records(split).len()
    }

    fn sample(&self, split: Split, index: usize) -> Result<(Picture<'_>, i64), Error> {
        let record = &self.records(split).bytes[index * RECORD..][..RECORD];
        Ok((
            Picture {
                shape: SHAPE,
                values: Values::Planar((&record[1..]).into()),
            },
            i64::from(record[0]),
        ))
    }

    fn name(&self, split: Split, index: usize) -> String {
        let files = &self.records(split).files;
        let file = files.iter().rev().find(|(first, _)| *first <= index);
        file.map_or_else(
            || format!("record {index}"),
            |(first, path)| format!("{}, record {}", path.display(), index - first),
        )
    }

    fn shape(&self) -> Option<[usize; 3]> {
        Some(SHAPE)
    }
}
