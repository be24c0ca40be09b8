//! Safetensors files: weights, checkpoints, inputs and outputs of `run`, conformance cases.

use crate::tensor::{Tensor, type_name};
use crate::{Error, files};
use ir::DType;
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The limit of the format.
const HEADER_LIMIT: u64 = 100_000_000;

/// Everything in a safetensors file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by name. With more than one entry the bytes of a written file depend on a hash map's order.
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a file of f32, i64 and u8 tensors.
    pub fn read(path: &Path) -> Result<TensorFile, Error> {
        TensorFile::from_bytes(&read_bytes(path)?, path)
    }

    /// The same from bytes; `place` is for messages.
    pub fn from_bytes(bytes: &[u8], place: &Path) -> Result<TensorFile, Error> {
        let metadata = metadata_of(bytes, place)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in views(&parse(place, bytes)?) {
            let Some(dtype) = dtype(&view) else {
                let (place, found) = (place.display(), view_type(&view));
                return Err(Error::input(format!(
                    "{place}: {name} is {found}; use f32, i64 or u8"
                )));
            };
            tensors.insert(
                name,
                Tensor::from_bytes(dtype, view.shape().to_vec(), view.data())?,
            );
        }
        Ok(TensorFile { tensors, metadata })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let views = self.views().map_err(|error| not_writable(&error))?;
        safetensors::serialize(views, self.all_metadata()).map_err(|error| not_writable(&error))
    }

    /// Writes the file, atomically, and without a second copy of the tensors in memory.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let views = self.views().map_err(|error| not_writable(&error))?;
        files::write_atomically_at(path, |temporary| {
            safetensors::serialize_to_file(views, self.all_metadata(), temporary).map_err(|error| match error
            {
                SafeTensorError::IoError(error) => error,
                other => std::io::Error::other(other),
            })
        })
    }

    fn all_metadata(&self) -> Option<HashMap<String, String>> {
        (!self.metadata.is_empty()).then(|| self.metadata.clone().into_iter().collect())
    }

    fn views(&self) -> Result<Vec<(&String, TensorView<'_>)>, SafeTensorError> {
        self.tensors
            .iter()
            .map(|(name, tensor)| Ok((name, view(tensor)?)))
            .collect()
    }
}

fn view(tensor: &Tensor) -> Result<TensorView<'_>, SafeTensorError> {
    let dtype = match tensor.dtype() {
        DType::F32 => Dtype::F32,
        DType::I64 => Dtype::I64,
        DType::U8 => Dtype::U8,
    };
    TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes())
}

/// The bytes of a regular file.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::reading(path, &error))?;
    if !metadata.is_file() {
        return Err(Error::input(format!(
            "{}: is not a regular file; give a .safetensors file",
            path.display()
        )));
    }
    files::read_bounded(path, metadata.len())
}

/// The metadata of a file, without reading its tensors.
pub(crate) fn metadata(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let fail = |error| Error::reading(path, &error);
    let mut file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut length = [0; 8];
    if file.read_exact(&mut length).is_err() {
        return Err(not_safetensors(path, &SafeTensorError::HeaderTooSmall));
    }
    let header = u64::from_le_bytes(length);
    if header > size || header > HEADER_LIMIT {
        return Err(not_safetensors(path, &SafeTensorError::HeaderTooLarge));
    }
    let mut bytes = Vec::new();
    file.take(header).read_to_end(&mut bytes).map_err(fail)?;
    let header: Header = serde_json::from_slice(&bytes)
        .map_err(|error| not_safetensors(path, &SafeTensorError::InvalidHeaderDeserialization(error)))?;
    Ok(header.metadata)
}

/// The part of a header that is not about tensors.
#[derive(serde::Deserialize)]
struct Header {
    #[serde(default, rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
}

fn metadata_of(bytes: &[u8], place: &Path) -> Result<BTreeMap<String, String>, Error> {
    let (_, metadata): (usize, Metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| not_safetensors(place, &error))?;
    Ok(metadata
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect())
}

/// The header of safetensors bytes, checked.
pub(crate) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, Error> {
    SafeTensors::deserialize(bytes).map_err(|error| not_safetensors(path, &error))
}

/// The tensors by name, in order.
pub(crate) fn views<'a>(file: &SafeTensors<'a>) -> BTreeMap<String, TensorView<'a>> {
    file.tensors().into_iter().collect()
}

/// The type as people write it, for any element type: `f16[2, 3]`.
pub(crate) fn view_type(view: &TensorView) -> String {
    match dtype(view) {
        Some(dtype) => type_name(dtype, view.shape()),
        None => format!(
            "{}{:?}",
            format!("{:?}", view.dtype()).to_lowercase(),
            view.shape()
        ),
    }
}

fn dtype(view: &TensorView) -> Option<DType> {
    match view.dtype() {
        Dtype::F32 => Some(DType::F32),
        Dtype::I64 => Some(DType::I64),
        Dtype::U8 => Some(DType::U8),
        _ => None,
    }
}

fn not_writable(error: &SafeTensorError) -> Error {
    Error::work(format!("tensors cannot be written as safetensors: {error}"))
}

fn not_safetensors(path: &Path, error: &SafeTensorError) -> Error {
    let path = path.display();
    Error::input(format!(
        "{path}: is truncated or not safetensors ({error}); copy or write it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let tensors = [
            ("x".to_string(), Tensor::f32([2, 1], vec![1.5, -0.0]).unwrap()),
            (
                "labels".to_string(),
                Tensor::i64([3], vec![1, -2, i64::MAX]).unwrap(),
            ),
            ("scalar".to_string(), Tensor::f32([], vec![3.0]).unwrap()),
        ];
        let metadata = [("made".to_string(), "by a test".to_string())];
        let file = TensorFile {
            tensors: tensors.into(),
            metadata: metadata.into(),
        };
        file.write(&path).unwrap();
        assert_eq!(TensorFile::read(&path).unwrap(), file);
        assert_eq!(super::metadata(&path).unwrap(), file.metadata);
        assert_eq!(std::fs::read(&path).unwrap(), file.to_bytes().unwrap());
    }

    #[test]
    fn element_types_that_are_not_ours_are_told() {
        let view = TensorView::new(Dtype::F16, vec![2, 3], &[0; 12]).unwrap();
        let bytes = safetensors::serialize([("a", view)], None).unwrap();
        let error = TensorFile::from_bytes(&bytes, Path::new("w")).unwrap_err();
        assert!(error.to_string().contains("w: a is f16[2, 3]"), "{error}");
    }

    #[test]
    fn damaged_files_are_told_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = [("a".to_string(), Tensor::f32([4], vec![0.0; 4]).unwrap())];
        let whole = TensorFile {
            tensors: tensors.into(),
            metadata: BTreeMap::new(),
        }
        .to_bytes()
        .unwrap();
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for bytes in [&b""[..], b"hello", &whole[..whole.len() - 1], &lying] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorFile::read(&path).unwrap_err();
            assert!(
                error.to_string().contains("truncated or not safetensors"),
                "{error}"
            );
            assert_eq!(error.exit_code(), 2);
        }
        assert!(
            TensorFile::read(Path::new("/dev/zero"))
                .unwrap_err()
                .to_string()
                .contains("is not a regular file")
        );
    }
}
