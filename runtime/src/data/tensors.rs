//! A safetensors file with `images` f32 `[n, c, h, w]` and `labels` i64 `[n]`, which serve for training and
//! validation alike: what tests and comparisons with other frameworks give.

use super::dataset::{Dataset, Source, Split, check_count, classes_of};
use super::picture::{Picture, Values};
use crate::tensor::type_name;
use crate::{Data, Error, Tensor, TensorFile};
use std::path::{Path, PathBuf};

struct Tensors {
    images: Vec<f32>,
    shape: [usize; 3],
    labels: Vec<i64>,
    range: f32,
    path: PathBuf,
}

/// Opens the file. Values within 0 and 1 count as of that range, others as of 0 to 255; it matters only when image
/// files are given to a model trained on them.
pub(crate) fn open(path: &Path) -> Result<Dataset, Error> {
    let mut file = TensorFile::read(path)?;
    let fail = |what: String| Err(Error::input(format!("{}: {what}", path.display())));
    let mut names: Vec<String> = file.tensors.keys().cloned().collect();
    let (Some(images), Some(labels)) = (file.tensors.remove("images"), file.tensors.remove("labels")) else {
        names.truncate(8);
        return fail(format!(
            "expected images f32[n, c, h, w] and labels i64[n]; it holds {}",
            if names.is_empty() {
                "nothing".to_string()
            } else {
                names.join(", ")
            }
        ));
    };
    let wrong = |name: &str, tensor: &Tensor, expected: &str| {
        fail(format!(
            "{name} is {}, expected {expected}",
            type_name(tensor.dtype(), tensor.shape())
        ))
    };
    let &[n, c, h, w] = images.shape() else {
        return wrong("images", &images, "f32[n, c, h, w]");
    };
    if n == 0 || c == 0 || h == 0 || w == 0 {
        return wrong("images", &images, "no size 0");
    }
    if labels.shape() != [n] {
        return wrong("labels", &labels, &format!("i64[{n}], a label an image"));
    }
    let types = [&images, &labels].map(|tensor| type_name(tensor.dtype(), tensor.shape()));
    let shape = [c, h, w];
    let (Data::F32(images), Data::I64(labels)) = (images.into_data(), labels.into_data()) else {
        return fail(format!(
            "images are {} and labels {}; expected f32 and i64",
            types[0], types[1]
        ));
    };
    check_count(n, path)?;
    let classes = classes_of(&labels, path)?;
    let range = if images.iter().all(|value| (0.0..=1.0).contains(value)) {
        1.0
    } else {
        255.0
    };
    let source = Tensors {
        images,
        shape,
        labels,
        range,
        path: path.to_path_buf(),
    };
    Ok(Dataset::new(
        source,
        (0..classes).map(|class| class.to_string()).collect(),
        path,
    ))
}

impl Source for Tensors {
    fn len(&self, _: Split) -> usize {
        self.labels.len()
    }

    fn sample(&self, _: Split, index: usize) -> Result<(Picture<'_>, i64), Error> {
        let elements = self.shape.iter().product::<usize>();
        let image = &self.images[index * elements..][..elements];
        Ok((
            Picture {
                shape: self.shape,
                values: Values::Floats(image.into()),
            },
            self.labels[index],
        ))
    }

    fn name(&self, _: Split, index: usize) -> String {
        format!("{}, image {index}", self.path.display())
    }

    fn shape(&self) -> Option<[usize; 3]> {
        Some(self.shape)
    }

    fn range(&self) -> f32 {
        self.range
    }
}
