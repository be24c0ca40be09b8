//! Parameters in safetensors files, and their initial values.
//!
//! Tensors are named `LAYER.weight` and `LAYER.bias`, f32, in PyTorch's layout. A checkpoint is a weights file
//! too: what it holds besides parameters has names that begin with [`STATE_PREFIX`] or [`PREPROCESS_PREFIX`] and is
//! skipped here.

use crate::Error;
use crate::device::cpu::available_bytes;
use crate::preprocess_state::PREPROCESS_PREFIX;
use crate::tensor::{Tensor, elements, type_name};
use crate::tensor_file::{self, view_type};
use ir::DType;
use ir::plan::{Init, Plan, Role};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The prefix of a checkpoint's tensors that are not parameters.
pub const STATE_PREFIX: &str = "state/";

/// A run folder's link to its newest whole checkpoint.
pub const LAST: &str = "last";

const MISMATCHES_SHOWN: usize = 20;

/// Reads the parameters `expected` (names and shapes) from a safetensors file, a checkpoint or a run folder.
/// Every mismatch is reported at once.
pub fn read(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<BTreeMap<String, Tensor>, Error> {
    let path = locate(path);
    let bytes = tensor_file::read_bytes(&path)?;
    let file = tensor_file::parse(&path, &bytes)?;
    let mut problems = Vec::new();
    let mut found = BTreeMap::new();
    for (name, shape) in expected {
        let wanted = type_name(DType::F32, shape);
        match file.tensor(name) {
            Err(_) => problems.push(format!("{name} is missing (expected {wanted})")),
            Ok(view) if view.dtype() != safetensors::Dtype::F32 || view.shape() != shape => {
                problems.push(format!("{name} is {} (expected {wanted})", view_type(&view)));
            }
            Ok(view) => {
                let tensor = Tensor::from_bytes(DType::F32, shape.clone(), view.data())?;
                let values = tensor.as_f32().unwrap_or_default();
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    problems.push(format!("{name} holds a value that is not finite (element {at})"));
                }
                found.insert(name.clone(), tensor);
            }
        }
    }
    for (name, view) in tensor_file::views(&file) {
        let is_record = name.starts_with(STATE_PREFIX) || name.starts_with(PREPROCESS_PREFIX);
        if !is_record && !expected.iter().any(|(known, _)| *known == name) {
            problems.push(format!(
                "{name} ({}) belongs to no parameter of the model",
                view_type(&view)
            ));
        }
    }
    if problems.is_empty() {
        return Ok(found);
    }
    let count = problems.len();
    if count > MISMATCHES_SHOWN {
        problems.truncate(MISMATCHES_SHOWN);
        problems.push(format!("and {} more", count - MISMATCHES_SHOWN));
    }
    Err(Error::input(format!(
        "{}: these weights cannot be used:\n  {}\ngive whole weights of this model, or change its shapes",
        path.display(),
        problems.join("\n  ")
    )))
}

/// The weights file that a path names. A run folder names its newest checkpoint.
pub fn locate(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(LAST)
    } else {
        path.to_path_buf()
    }
}

/// Name, shape and initial value of every parameter and of all state of a plan.
pub fn initial_values(plan: &Plan) -> Vec<(String, Vec<usize>, Init)> {
    let initial = |buffer: &ir::plan::Buffer| match &buffer.role {
        Role::Parameter { shape, init } | Role::State { shape, init } => {
            Some((buffer.name.clone(), shape.clone(), *init))
        }
        _ => None,
    };
    plan.interface().filter_map(initial).collect()
}

/// Name and shape of every parameter of a plan.
pub fn parameters(plan: &Plan) -> Vec<(String, Vec<usize>)> {
    let parameter = |buffer: &ir::plan::Buffer| match &buffer.role {
        Role::Parameter { shape, .. } => Some((buffer.name.clone(), shape.clone())),
        _ => None,
    };
    plan.interface().filter_map(parameter).collect()
}

/// Initial values. Each element is a pure function of `seed`, its tensor's name and its position; other tensors and the
/// number of threads have no effect. Values that do not fit into this machine's memory are refused.
pub fn initial(values: &[(String, Vec<usize>, Init)], seed: u64) -> Result<Vec<(String, Tensor)>, Error> {
    let counts = values.iter().map(|(_, shape, _)| elements(shape).unwrap_or(0));
    let bytes = counts.fold(0u64, |sum, count| sum.saturating_add(4 * count as u64));
    let memory = available_bytes();
    if bytes > memory {
        return Err(Error::work(format!(
            "the initial values need {} MiB of memory and this machine has {} MiB; use a smaller model",
            bytes >> 20,
            memory >> 20
        )));
    }
    values
        .iter()
        .map(|(name, shape, init)| {
            let count = elements(shape).ok_or_else(|| {
                Error::input(format!("{name} has more elements than can be counted: {shape:?}"))
            })?;
            let data = match *init {
                Init::Constant(value) => vec![value as f32; count],
                Init::Normal(deviation) => normal(seed, name, count, deviation),
            };
            Ok((name.clone(), Tensor::f32(shape.clone(), data)?))
        })
        .collect()
}

/// Normal draws with mean 0.
fn normal(seed: u64, name: &str, count: usize, deviation: f64) -> Vec<f32> {
    let key = stream_key(seed, name);
    let mut values = vec![0f32; count];
    let threads = if count < 1 << 16 {
        1
    } else {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    };
    // Even, because draws come in pairs.
    let part = count.div_ceil(threads).next_multiple_of(2).max(2);
    std::thread::scope(|scope| {
        for (index, part_values) in values.chunks_mut(part).enumerate() {
            scope.spawn(move || {
                for (offset, pair) in part_values.chunks_mut(2).enumerate() {
                    let (a, b) = normal_pair(key, (index * part / 2 + offset) as u64);
                    for (value, draw) in pair.iter_mut().zip([a, b]) {
                        *value = (draw * deviation) as f32;
                    }
                }
            });
        }
    });
    values
}

/// A key for the random stream of one tensor.
fn stream_key(seed: u64, name: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |key, &byte| (key << 8) | u64::from(byte))
}

/// Two independent standard normal draws: Box and Muller's transform of two uniform ones.
fn normal_pair(key: u64, index: u64) -> (f64, f64) {
    // 53 bits, in (0, 1].
    let uniform = |counter: u64| ((mix(key, counter) >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let radius = (-2.0 * uniform(2 * index).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * uniform(2 * index + 1)).sin_cos();
    (radius * cos, radius * sin)
}

/// Position `counter` of the SplitMix64 sequence that starts at `key` (Steele, Lea, Flood 2014).
pub(crate) fn mix(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_file::TensorFile;

    fn expected() -> Vec<(String, Vec<usize>)> {
        vec![
            ("conv1.weight".into(), vec![2, 3]),
            ("conv1.bias".into(), vec![2]),
        ]
    }

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor::f32(
            shape,
            (0..shape.iter().product()).map(|i: usize| i as f32).collect(),
        )
        .unwrap()
    }

    fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
        TensorFile {
            tensors: tensors.clone(),
            metadata: BTreeMap::new(),
        }
        .write(path)
        .unwrap();
    }

    #[test]
    fn written_weights_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let weights: BTreeMap<String, Tensor> = expected()
            .into_iter()
            .map(|(name, shape)| (name, tensor(&shape)))
            .collect();
        save(&path, &weights);
        assert_eq!(read(&path, &expected()).unwrap(), weights);
        // A run folder stands for the file that its `last` names.
        std::fs::rename(&path, folder.path().join(LAST)).unwrap();
        assert_eq!(read(folder.path(), &expected()).unwrap(), weights);
    }

    #[test]
    fn every_mismatch_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let weights: BTreeMap<String, Tensor> = [
            ("conv1.weight".to_string(), tensor(&[3, 2])),
            ("fc9.bias".to_string(), tensor(&[1])),
            ("state/conv1.weight".to_string(), tensor(&[1])),
        ]
        .into();
        save(&path, &weights);
        let message = read(&path, &expected()).unwrap_err().to_string();
        for part in [
            "w.safetensors",
            "conv1.weight is f32[3, 2] (expected f32[2, 3])",
            "conv1.bias is missing (expected f32[2])",
            "fc9.bias (f32[1]) belongs to no parameter",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert!(!message.contains("state/"), "{message}");
    }

    #[test]
    fn another_element_type_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let weights: BTreeMap<String, Tensor> =
            [("conv1.bias".to_string(), Tensor::i64([2], vec![1, 2]).unwrap())].into();
        save(&path, &weights);
        let error = read(&path, &expected()[1..]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("conv1.bias is i64[2] (expected f32[2])"),
            "{error}"
        );
    }

    #[test]
    fn initial_draws_are_normal_and_depend_on_seed_and_name_alone() {
        let shapes = |n: usize| vec![("a.weight".to_string(), vec![n], Init::Normal(0.01))];
        let draw = |n, seed| {
            initial(&shapes(n), seed)
                .unwrap()
                .remove(0)
                .1
                .as_f32()
                .unwrap()
                .to_vec()
        };
        // Large enough for several threads, and odd.
        let n = 300_001;
        let values = draw(n, 7);
        assert_eq!(values, draw(n, 7));
        assert_eq!(
            values[..1000],
            draw(1000, 7),
            "an element depends on how many there are"
        );
        assert_ne!(values[..1000], draw(1000, 8));
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let moment = |p: i32| values.iter().map(|&v| (f64::from(v) / 0.01).powi(p)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 * 5.0 / (n as f64).sqrt(), "mean {mean}");
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.05, "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.1, "kurtosis {}", moment(4));
        let products = values
            .windows(2)
            .map(|w| f64::from(w[0]) * f64::from(w[1]) / 1e-4)
            .sum::<f64>();
        assert!(
            (products / n as f64).abs() < 0.01,
            "neighbours are correlated: {products}"
        );
        let other = vec![("b.weight".to_string(), vec![1000], Init::Normal(0.01))];
        assert_ne!(
            initial(&other, 7).unwrap()[0].1.as_f32().unwrap(),
            &values[..1000]
        );
    }

    #[test]
    fn constants_are_constant_and_impossible_shapes_are_refused() {
        let values = [("b".to_string(), vec![3], Init::Constant(0.1))];
        assert_eq!(initial(&values, 0).unwrap()[0].1.as_f32().unwrap(), [0.1f32; 3]);
        let values = [("b".to_string(), vec![usize::MAX, 3], Init::Constant(0.1))];
        assert!(
            initial(&values, 0)
                .unwrap_err()
                .to_string()
                .contains("more elements")
        );
    }
}
