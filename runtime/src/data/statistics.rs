//! Statistics of the training images, measured once before training: means and the principal components of colours.
//! They belong to a trained network like its weights, so they can be kept in a file.

use super::dataset::{Dataset, Split};
use super::eigen;
use super::picture::Scratch;
use super::preprocess::{Mean, Preprocess};
use crate::{Error, files};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum number of images that are measured, evenly spread over the training set. The mean of 4096 values with a
/// deviation of 70 is off by about 1 of 255.
const SAMPLES: usize = 4096;
/// The number of partial sums. Their order is fixed, so that the result does not depend on the threads.
const PARTS: usize = 16;
const MAX_FILE: u64 = 1 << 30;

/// Statistics of the training images, as far as the recipe needs them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Height and width in pixels to which images are brought before the model's input is cut out.
    pub frame: [usize; 2],
    /// The largest value that the images are meant to have: 255 for bytes. Image files are scaled to it.
    pub range: f32,
    /// How many images were measured; 0 when the recipe needs nothing.
    pub samples: usize,
    /// The mean of each channel, for `mean = "channel"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_mean: Option<Vec<f32>>,
    /// The mean image, `[c, h, w]` of the frame, for `mean = "pixel"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_mean: Option<Vec<f32>>,
    /// The principal components of colours, for `color_pca`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colors: Option<ColorPca>,
}

/// The principal components of red, green and blue over all pixels, values taken from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColorPca {
    /// Eigenvalues of the covariance matrix, largest first. On ImageNet about 0.2175, 0.0188, 0.0045.
    pub values: [f64; 3],
    /// Unit eigenvectors in that order: `vectors[k]` is red, green, blue of component `k`.
    pub vectors: [[f64; 3]; 3],
}

impl Statistics {
    /// Statistics without images: the frame for a model's input (channels, height, width) and image files. They suffice for
    /// recipes that subtract nothing or given values.
    pub fn unmeasured(preprocess: &Preprocess, shape: [usize; 3]) -> Result<Statistics, Error> {
        let frame = preprocess.frame(shape, None)?;
        Ok(Statistics {
            frame,
            range: 255.0,
            samples: 0,
            channel_mean: None,
            pixel_mean: None,
            colors: None,
        })
    }

    /// Measures what `preprocess` needs for a model that takes images of `shape` (channels, height, width), over at
    /// most 4096 training images. Images that cannot be read are passed over.
    ///
    /// Errors: no training images, none that can be read, sizes or channels that do not fit the model.
    pub fn measure(
        dataset: &Dataset,
        preprocess: &Preprocess,
        shape: [usize; 3],
    ) -> Result<Statistics, Error> {
        let frame = preprocess.frame(shape, dataset.sample_shape())?;
        let mut statistics = Statistics::unmeasured(preprocess, shape)?;
        (statistics.frame, statistics.range) = (frame, dataset.source().range());
        let wanted = Wanted {
            pixels: preprocess.subtracts() == Mean::Pixel,
            channels: preprocess.subtracts() == Mean::Channel,
            colors: preprocess.varies_colors() && shape[0] == 3,
        };
        if !(wanted.pixels || wanted.channels || wanted.colors) {
            return Ok(statistics);
        }
        let count = dataset.len(Split::Train);
        if count == 0 {
            return Err(Error::input(format!(
                "{}: has no training images to measure the mean and colours on; give the statistics of a run, or \
                 mean = [red, green, blue]",
                dataset.path().display()
            )));
        }
        let measured = count.min(SAMPLES);
        let indices: Vec<usize> = (0..measured)
            .map(|i| (i as u128 * count as u128 / measured as u128) as usize)
            .collect();
        let sums = sum_parts(dataset, &indices, shape[0], &statistics, wanted.pixels)?;
        statistics.fill(&sums, wanted);
        Ok(statistics)
    }

    fn fill(&mut self, sums: &Sums, wanted: Wanted) {
        let area = (self.frame[0] * self.frame[1]) as f64;
        let (images, range) = (sums.images as f64, f64::from(self.range));
        self.samples = sums.images;
        if wanted.channels {
            self.channel_mean = Some(
                sums.channels
                    .iter()
                    .map(|sum| (sum / images / area) as f32)
                    .collect(),
            );
        }
        if wanted.pixels {
            self.pixel_mean = Some(sums.pixels.iter().map(|sum| (sum / images) as f32).collect());
        }
        if wanted.colors {
            let pixels = images * area;
            let mean = |c: usize| sums.channels[c] / pixels / range;
            let covariance = |a: usize, b: usize| {
                let product = sums.products[a.min(b)][a.max(b)];
                product / pixels / range / range - mean(a) * mean(b)
            };
            let matrix = [0, 1, 2].map(|a| [0, 1, 2].map(|b| covariance(a, b)));
            let (values, vectors) = eigen::symmetric(matrix);
            self.colors = Some(ColorPca {
                values: values.map(|value| value.max(0.0)),
                vectors,
            });
        }
    }

    /// Writes a JSON file, atomically.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::work(format!("{}: cannot be written: {error}", path.display())))?;
        files::write_bytes(path, &json)
    }

    /// Reads the file that [`Statistics::write`] wrote.
    pub fn read(path: &Path) -> Result<Statistics, Error> {
        serde_json::from_slice(&files::read_bounded(path, MAX_FILE)?).map_err(|error| {
            Error::input(format!(
                "{}: holds no statistics of images: {error}; measure them again",
                path.display()
            ))
        })
    }
}

#[derive(Clone, Copy)]
struct Wanted {
    pixels: bool,
    channels: bool,
    colors: bool,
}

/// Sums over images and pixels.
#[derive(Default)]
struct Sums {
    images: usize,
    /// Over images: `[c, h, w]`; empty when not wanted.
    pixels: Vec<f64>,
    /// Over images and pixels.
    channels: Vec<f64>,
    /// Of two channels' values, the second not before the first.
    products: [[f64; 3]; 3],
    /// The first image that could not be read, and how many.
    failed: Option<(Error, usize)>,
}

impl Sums {
    fn add_image(&mut self, frame: &[f32], channels: usize, pixels: bool) {
        self.images += 1;
        self.channels.resize(channels, 0.0);
        let planes: Vec<&[f32]> = frame.chunks_exact(frame.len() / channels).collect();
        for (sum, plane) in self.channels.iter_mut().zip(&planes) {
            *sum += plane.iter().map(|&value| f64::from(value)).sum::<f64>();
        }
        if let [red, green, blue] = planes[..] {
            let colors = [red, green, blue];
            for (a, b) in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)] {
                let products = colors[a]
                    .iter()
                    .zip(colors[b])
                    .map(|(&x, &y)| f64::from(x) * f64::from(y));
                self.products[a][b] += products.sum::<f64>();
            }
        }
        if pixels {
            self.pixels.resize(frame.len(), 0.0);
            self.pixels
                .iter_mut()
                .zip(frame)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }

    fn add(&mut self, other: Sums) {
        self.images += other.images;
        for (sums, others) in [
            (&mut self.pixels, &other.pixels),
            (&mut self.channels, &other.channels),
        ] {
            sums.resize(sums.len().max(others.len()), 0.0);
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        self.products
            .as_flattened_mut()
            .iter_mut()
            .zip(other.products.as_flattened())
            .for_each(|(a, b)| *a += b);
        self.failed = match (self.failed.take(), other.failed) {
            (Some((error, count)), Some((_, more))) => Some((error, count + more)),
            (one, other) => one.or(other),
        };
    }
}

fn sum_parts(
    dataset: &Dataset,
    indices: &[usize],
    channels: usize,
    statistics: &Statistics,
    pixels: bool,
) -> Result<Sums, Error> {
    let parts: Vec<&[usize]> = indices.chunks(indices.len().div_ceil(PARTS).max(1)).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(parts.len());
    let work = || {
        let (mut done, mut scratch) = (Vec::new(), Scratch::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(number) else {
                return done;
            };
            let mut sums = Sums::default();
            for &index in *part {
                let outcome = dataset
                    .source()
                    .sample(Split::Train, index)
                    .and_then(|(picture, _)| {
                        picture.to_frame(channels, statistics.frame, statistics.range, &mut scratch)
                    });
                match outcome {
                    Ok(()) => sums.add_image(&scratch.frame, channels, pixels),
                    Err(error) => {
                        let (first, count) = sums.failed.take().unwrap_or((error, 0));
                        sums.failed = Some((first, count + 1));
                    }
                }
            }
            done.push((number, sums));
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut done = Vec::new();
    for outcome in outcomes {
        done.extend(
            outcome.map_err(|_| Error::work("measuring the training images failed by a bug of alexc"))?,
        );
    }
    done.sort_by_key(|(number, _)| *number);
    let mut sums = Sums::default();
    done.into_iter().for_each(|(_, part)| sums.add(part));
    match sums.failed.take() {
        Some((error, count)) if sums.images == 0 => Err(error.at(format!(
            "none of {count} training images that were measured could be used; the first"
        ))),
        _ => Ok(sums),
    }
}
