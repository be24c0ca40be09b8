//! IDX files under MNIST's names (LeCun, Cortes, Burges): big-endian, two zero bytes, the element type, the number of
//! dimensions, their sizes, the data.

use super::dataset::{Dataset, Source, Split, check_count, classes_of};
use super::picture::{Picture, Values};
use crate::{Error, files};
use std::path::{Path, PathBuf};

/// The most a file may hold.
const MAX_FILE: u64 = 16 << 30;
const BYTES: u8 = 0x08;

/// Images and labels of one split.
struct Part {
    /// `[n, c, h, w]` in `data[offset..]`.
    data: Vec<u8>,
    offset: usize,
    labels: Vec<i64>,
    path: PathBuf,
}

struct Idx {
    shape: [usize; 3],
    train: Option<Part>,
    val: Option<Part>,
}

/// The file of this kind, under the names in use: `train-images-idx3-ubyte` and `train-images.idx3-ubyte`.
fn file(folder: &Path, split: Split, kind: &str) -> Option<PathBuf> {
    let prefix = match split {
        Split::Train => "train",
        Split::Val => "t10k",
    };
    let dimensions: &[u8] = if kind == "images" { &[3, 4] } else { &[1] };
    let names = dimensions
        .iter()
        .flat_map(|dimensions| ["-", "."].map(|dot| format!("{prefix}-{kind}{dot}idx{dimensions}-ubyte")));
    names.map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Whether a folder holds such files.
pub(crate) fn is_here(folder: &Path) -> bool {
    [Split::Train, Split::Val]
        .into_iter()
        .any(|split| file(folder, split, "images").is_some())
}

/// Opens the folder: `train` images, and the `t10k` ones for validation.
pub(crate) fn open(folder: &Path) -> Result<Dataset, Error> {
    let mut shapes = Vec::new();
    let mut parts = [None, None];
    for (part, split) in parts.iter_mut().zip([Split::Train, Split::Val]) {
        if let Some(images) = file(folder, split, "images") {
            let (shape, read) = read_part(folder, split, images)?;
            shapes.push(shape);
            *part = Some(read);
        }
    }
    if let [train, val] = shapes[..]
        && train != val
    {
        return Err(Error::input(format!(
            "{}: training images are {train:?} (channels, height, width) and the t10k ones {val:?}; expected one size",
            folder.display()
        )));
    }
    let classes = parts
        .iter()
        .flatten()
        .map(|part| classes_of(&part.labels, &part.path));
    let classes = classes
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .max()
        .unwrap_or(0);
    let [train, val] = parts;
    let shape = shapes.first().copied().unwrap_or_default();
    let names = (0..classes).map(|class| class.to_string()).collect();
    Ok(Dataset::new(Idx { shape, train, val }, names, folder))
}

fn read_part(folder: &Path, split: Split, images: PathBuf) -> Result<([usize; 3], Part), Error> {
    let labels = file(folder, split, "labels").ok_or_else(|| {
        Error::input(format!(
            "{}: the file with its labels is not in the same folder; copy that file too",
            images.display()
        ))
    })?;
    let (sizes, data, offset) = read(&images)?;
    let (count, shape) = match sizes[..] {
        [n, h, w] => (n, [1, h, w]),
        [n, c, h, w] => (n, [c, h, w]),
        _ => {
            return Err(Error::input(format!(
                "{}: has {} dimensions; expected images, height, width",
                images.display(),
                sizes.len()
            )));
        }
    };
    if sizes.contains(&0) {
        return Err(Error::input(format!(
            "{}: its sizes are {sizes:?}; expected no 0",
            images.display()
        )));
    }
    let (label_sizes, label_data, label_offset) = read(&labels)?;
    if label_sizes != [count] {
        return Err(Error::input(format!(
            "{}: has labels of sizes {label_sizes:?} and {} has {count} images; expected one label an image",
            labels.display(),
            images.display()
        )));
    }
    check_count(count, &images)?;
    let labels = label_data[label_offset..]
        .iter()
        .map(|&label| i64::from(label))
        .collect();
    Ok((
        shape,
        Part {
            data,
            offset,
            labels,
            path: images,
        },
    ))
}

/// The sizes, the file's bytes, and where in them the data begin. The sizes multiply to the rest of the file.
fn read(path: &Path) -> Result<(Vec<usize>, Vec<u8>, usize), Error> {
    let bytes = files::read_bounded(path, MAX_FILE)?;
    let fail = |what: String| Err(Error::input(format!("{}: {what}", path.display())));
    let &[zero, zero_too, kind, dimensions, ..] = &bytes[..] else {
        return fail(format!(
            "has {} bytes, which is not an IDX header; copy it again",
            bytes.len()
        ));
    };
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return fail("is compressed; gunzip it".to_string());
    }
    if (zero, zero_too) != (0, 0) {
        return fail(format!(
            "begins with {zero:#04x} {zero_too:#04x}; an IDX file begins with two zero bytes"
        ));
    }
    if kind != BYTES {
        return fail(format!(
            "holds elements of type {kind:#04x}; expected bytes, {BYTES:#04x}"
        ));
    }
    let offset = 4 + 4 * usize::from(dimensions);
    let Some(header) = bytes.get(4..offset) else {
        return fail(format!(
            "ends within its header of {dimensions} sizes; copy it again"
        ));
    };
    let size = |four: &[u8]| four.iter().fold(0, |size, &byte| size << 8 | usize::from(byte));
    let sizes: Vec<usize> = header.chunks_exact(4).map(size).collect();
    let expected = sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let found = bytes.len() - offset;
    if expected != Some(found) {
        let expected = expected.map_or("more than this machine can address".to_string(), |n| {
            n.to_string()
        });
        return fail(format!(
            "its header says {sizes:?}, {expected} bytes, and {found} follow; copy it again"
        ));
    }
    Ok((sizes, bytes, offset))
}

impl Idx {
    fn part(&self, split: Split) -> Option<&Part> {
        match split {
            Split::Train => self.train.as_ref(),
            Split::Val => self.val.as_ref(),
        }
    }
}

impl Source for Idx {
    fn len(&self, split: Split) -> usize {
        self.part(split).map_or(0, |part| part.labels.len())
    }

    fn sample(&self, split: Split, index: usize) -> Result<(Picture<'_>, i64), Error> {
        let part = self.part(split).expect("an index is below the split's length");
        let elements = self.shape.iter().product::<usize>();
        let image = &part.data[part.offset + index * elements..][..elements];
        Ok((
            Picture {
                shape: self.shape,
                values: Values::Planar(image.into()),
            },
            part.labels[index],
        ))
    }

    fn name(&self, split: Split, index: usize) -> String {
        match self.part(split) {
            Some(part) => format!("{}, image {index}", part.path.display()),
            None => format!("{split} image {index}"),
        }
    }

    fn shape(&self) -> Option<[usize; 3]> {
        Some(self.shape)
    }
}
