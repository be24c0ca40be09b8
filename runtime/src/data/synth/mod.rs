//! A data set to try everything on without downloading one: real JPEG files of drawn objects. A class is a shape and
//! a texture; colours, size, place, rotation, light and noise are random and the same for all classes, so that only a
//! network that sees shapes and textures can tell them apart.

mod draw;

use super::random::{Purpose, Stream};
use crate::Error;
use draw::{Class, Draws, SHAPES, TEXTURES, draw};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many classes can be drawn.
pub const MAX_CLASSES: usize = SHAPES.len() * TEXTURES.len();
const QUALITY: u8 = 92;
const SIDES: std::ops::RangeInclusive<usize> = 16..=4096;
/// Numbers of images have so many digits, so that names sort as they count.
const DIGITS: usize = 6;

/// What to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthOptions {
    /// Classes, 1 to [`MAX_CLASSES`].
    pub classes: usize,
    /// Training images of each class.
    pub per_class: usize,
    /// Validation images of each class.
    pub val_per_class: usize,
    /// The side of the square images in pixels.
    pub size: usize,
    /// Each seed gives other images.
    pub seed: u64,
}

impl Default for SynthOptions {
    fn default() -> SynthOptions {
        SynthOptions {
            classes: 10,
            per_class: 500,
            val_per_class: 100,
            size: 32,
            seed: 0,
        }
    }
}

impl SynthOptions {
    fn check(&self) -> Result<(), Error> {
        let limit = 10usize.pow(DIGITS as u32);
        let problem = if !(1..=MAX_CLASSES).contains(&self.classes) {
            format!("{} classes: expected 1 to {MAX_CLASSES}", self.classes)
        } else if !(1..=limit).contains(&self.per_class) {
            format!("{} images a class: expected 1 to {limit}", self.per_class)
        } else if self.val_per_class > limit {
            format!(
                "{} validation images a class: expected at most {limit}",
                self.val_per_class
            )
        } else if !SIDES.contains(&self.size) {
            format!(
                "images of {} pixels: expected {} to {}",
                self.size,
                SIDES.start(),
                SIDES.end()
            )
        } else {
            return Ok(());
        };
        Err(Error::input(problem))
    }
}

/// One image to draw.
struct Image {
    /// 0 for training, 1 for validation.
    split: u64,
    class: usize,
    number: usize,
}

const SPLITS: [&str; 2] = ["train", "val"];

/// Draws a data set into the new folder `folder`: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`. The same options give the
/// same files. They are written under a temporary name, so the folder is whole or absent.
///
/// Errors: options out of their range, a folder that is there and not empty, a disk that cannot hold the files.
pub fn synth(folder: &Path, options: &SynthOptions) -> Result<(), Error> {
    options.check()?;
    check_target(folder)?;
    let temporary = temporary_name(folder)?;
    let outcome = write(&temporary, options)
        .and_then(|()| fs::rename(&temporary, folder).map_err(|error| Error::writing(folder, &error)));
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    outcome
}

fn check_target(folder: &Path) -> Result<(), Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::input(format!(
                "{}: is there and not empty; name a new folder, or remove this one",
                folder.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::reading(folder, &error)),
    }
}

fn temporary_name(folder: &Path) -> Result<PathBuf, Error> {
    let name = folder
        .file_name()
        .ok_or_else(|| Error::input(format!("{}: names no folder to make", folder.display())))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(
        ".{}{}",
        std::process::id(),
        crate::files::TEMPORARY_SUFFIX
    ));
    Ok(folder.with_file_name(temporary))
}

fn write(root: &Path, options: &SynthOptions) -> Result<(), Error> {
    let classes: Vec<Class> = (0..options.classes).map(Class::number).collect();
    let counts = [options.per_class, options.val_per_class];
    for (split, _) in SPLITS.iter().zip(counts).filter(|(_, count)| *count > 0) {
        for class in &classes {
            let folder = root.join(split).join(class.name());
            fs::create_dir_all(&folder).map_err(|error| Error::writing(&folder, &error))?;
        }
    }
    let of_split = |split: u64, count: usize| {
        (0..options.classes)
            .flat_map(move |class| (0..count).map(move |number| Image { split, class, number }))
    };
    let images: Vec<Image> = of_split(0, counts[0]).chain(of_split(1, counts[1])).collect();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = write_image(root, options, classes[image.class], image) {
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                next.store(images.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

fn write_image(root: &Path, options: &SynthOptions, class: Class, image: &Image) -> Result<(), Error> {
    let index = (image.class as u64) << 32 | image.number as u64;
    let draws = Draws::new(Stream::new(options.seed, Purpose::Synth, image.split, index));
    let pixels = draw(class, options.size, draws);
    let name = format!("{:0DIGITS$}.jpg", image.number);
    let path = root
        .join(SPLITS[image.split as usize])
        .join(class.name())
        .join(name);
    let mut bytes = Vec::new();
    let side = options.size as u32;
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&pixels, side, side, ExtendedColorType::Rgb8)
        .map_err(|error| Error::work(format!("{}: cannot be encoded: {error}", path.display())))?;
    fs::write(&path, bytes).map_err(|error| Error::writing(&path, &error))
}
