//! Files for the tests of the data module.
#![allow(dead_code)] // Each test program uses some of it.

use image::{DynamicImage, RgbImage};
use runtime::data::{Batch, Dataset, Loader, LoaderOptions, Preprocess, Split, Statistics};
use runtime::{Error, Tensor, TensorFile};
use std::path::{Path, PathBuf};

/// Writes an image file, of the kind that its name says.
pub fn save(path: &Path, image: impl Into<DynamicImage>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

/// A folder tree of two classes with `train` and `val` PNG images each, whose sizes and colours differ.
pub fn tree(root: &Path, train: u32, val: u32) {
    for (split, count) in [("train", train), ("val", val)] {
        for (c, class) in (0..).zip(["cat", "dog"]) {
            for i in 0..count {
                let image = RgbImage::from_fn(20 + i % 5, 18 + i % 7, |x, y| {
                    image::Rgb([
                        (x * 9 + i * 31) as u8,
                        (y * 11 + c * 100) as u8,
                        (x * y + i * 7) as u8,
                    ])
                });
                save(&root.join(split).join(class).join(format!("{i:04}.png")), image);
            }
        }
    }
}

/// A `.safetensors` data set of `n` images `[c, h, w]` whose values count up, with labels counting to `classes`.
pub fn tensors(path: &Path, n: usize, [c, h, w]: [usize; 3], classes: i64) -> Vec<f32> {
    let values: Vec<f32> = (0..n * c * h * w).map(|i| i as f32 - 7.5).collect();
    let labels = (0..n as i64).map(|i| i % classes).collect();
    let tensors = [
        (
            "images".to_string(),
            Tensor::f32([n, c, h, w], values.clone()).unwrap(),
        ),
        ("labels".to_string(), Tensor::i64([n], labels).unwrap()),
    ];
    TensorFile {
        tensors: tensors.into(),
        metadata: Default::default(),
    }
    .write(path)
    .unwrap();
    values
}

/// The error of a data set that cannot be opened: bad input, whose message holds all of `parts`.
pub fn refused(path: &Path, parts: &[&str]) {
    let error = Dataset::open(path).unwrap_err();
    told(&error, parts);
}

/// That an error is about bad input and its message holds all of `parts`.
pub fn told(error: &Error, parts: &[&str]) {
    assert_eq!(error.exit_code(), 2, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    }
}

/// Everything that one split holds, in order, as inputs of `shape` that are taken as they are.
pub fn everything(dataset: &Dataset, split: Split, shape: [usize; 3]) -> Batch {
    let preprocess = Preprocess::as_is();
    let statistics = Statistics::measure(dataset, &preprocess, shape).unwrap();
    let options = LoaderOptions::new(dataset.len(split), shape);
    let mut loader = Loader::evaluation(dataset, split, &preprocess, &statistics, &options).unwrap();
    let batch = loader.batch().unwrap().unwrap();
    assert_eq!(batch.valid, dataset.len(split));
    assert_eq!(loader.batch().unwrap(), None);
    batch
}

/// A recipe's `[data]` table.
pub fn recipe(text: &str) -> Preprocess {
    toml::from_str(text).unwrap()
}

/// A path below a temporary folder, which lives as long as the first value.
pub fn temporary(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}
