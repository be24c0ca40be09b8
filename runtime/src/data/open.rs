//! Opens a data set: it recognises the format from the files and calls the reader of this format.

use super::dataset::Dataset;
use super::{cifar, folder, idx, tensors};
use crate::Error;
use std::path::Path;

/// The kinds that `Dataset::open` recognises, for messages.
const KINDS: &str = "a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, a CIFAR-10 binary folder \
                     (data_batch_1.bin), an IDX folder (train-images-idx3-ubyte), or a .safetensors file with images \
                     and labels";

impl Dataset {
    /// Opens a data set and finds its kind from the files. It checks headers against the sizes of files, and labels
    /// against the classes. It does not read image files.
    ///
    /// Errors: a missing path, an unrecognised data set, no images, files that contradict themselves or each other.
    pub fn open(path: &Path) -> Result<Dataset, Error> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::reading(path, &error))?;
        if metadata.is_dir() {
            if path.join("train").is_dir() || path.join("val").is_dir() {
                return folder::open(path);
            }
            if let Some(folder) = cifar::find(path) {
                return cifar::open(&folder);
            }
            if idx::is_here(path) {
                return idx::open(path);
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            return tensors::open(path);
        }
        let hint = match looks_like(path) {
            Some(hint) => format!("; {hint}"),
            None => String::new(),
        };
        Err(Error::input(format!(
            "{}: is not a recognised data set{hint}; expected {KINDS}",
            path.display()
        )))
    }
}

/// A guess at the data set that the user meant, for the message.
fn looks_like(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    if path.is_dir() {
        if ["train", "val"].contains(&name) {
            return Some("name the folder above it");
        }
        let has = |file: &str| path.join(file).exists();
        if has("train-images-idx3-ubyte.gz") {
            return Some("its files are compressed: gunzip them");
        }
        if has("data_batch_1") || has("batches.meta") {
            return Some("it is CIFAR-10 for Python: get the binary version");
        }
        return None;
    }
    let archive = [".gz", ".tgz", ".tar", ".zip"]
        .iter()
        .any(|end| name.ends_with(end));
    archive.then_some("unpack it first")
}
