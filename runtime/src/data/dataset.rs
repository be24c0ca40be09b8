//! A data set: images with classes in two splits, in any of the file formats.

use super::picture::Picture;
use crate::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A split of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training images.
    Train,
    /// Validation images.
    Val,
}

impl fmt::Display for Split {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Split::Train => "training",
            Split::Val => "validation",
        })
    }
}

/// A source of images. They are accessed by number, so that threads may read in any order.
pub(crate) trait Source: Send + Sync {
    /// Images of a split.
    fn len(&self, split: Split) -> usize;

    /// An image and its class. `index` is below `len(split)`.
    fn sample(&self, split: Split, index: usize) -> Result<(Picture<'_>, i64), Error>;

    /// The name of an image in messages.
    fn name(&self, split: Split, index: usize) -> String;

    /// Channels, height and width, where they are the same for all images.
    fn shape(&self) -> Option<[usize; 3]>;

    /// The largest value that images are meant to have: 255 for bytes.
    fn range(&self) -> f32 {
        255.0
    }
}

/// Images with classes, for training and validation.
#[derive(Clone)]
pub struct Dataset {
    source: Arc<dyn Source>,
    class_names: Arc<[String]>,
    path: PathBuf,
}

impl Dataset {
    pub(crate) fn new(source: impl Source + 'static, class_names: Vec<String>, path: &Path) -> Dataset {
        Dataset {
            source: Arc::new(source),
            class_names: class_names.into(),
            path: path.to_path_buf(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The classes' names, by class index.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The number of images in a split.
    pub fn len(&self, split: Split) -> usize {
        self.source.len(split)
    }

    /// Whether a split has no images.
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }

    /// Channels, height and width, where they are the same for all images.
    pub fn sample_shape(&self) -> Option<[usize; 3]> {
        self.source.shape()
    }

    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.debug_struct("Dataset")
            .field("path", &self.path)
            .field("classes", &self.classes())
            .field("train", &self.len(Split::Train))
            .field("val", &self.len(Split::Val))
            .finish_non_exhaustive()
    }
}

/// The number of classes, from the largest label. Labels are classes, so they count from 0.
pub(crate) fn classes_of(labels: &[i64], place: &Path) -> Result<usize, Error> {
    const MAX_CLASS_NUMBERS: i64 = 1 << 20;
    for (index, &label) in labels.iter().enumerate() {
        if !(0..MAX_CLASS_NUMBERS).contains(&label) {
            return Err(Error::input(format!(
                "{}: label {index} is {label}; classes are numbered from 0 to at most {}",
                place.display(),
                MAX_CLASS_NUMBERS - 1
            )));
        }
    }
    Ok(labels.iter().max().map_or(0, |&label| label as usize + 1))
}

/// Refuses more images than 32-bit numbers can count.
pub(crate) fn check_count(count: usize, place: &Path) -> Result<(), Error> {
    if count > u32::MAX as usize {
        return Err(Error::input(format!(
            "{}: {count} images are more than {}",
            place.display(),
            u32::MAX
        )));
    }
    Ok(())
}
