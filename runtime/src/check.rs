//! Conformance cases: inputs with reference outputs that travel in an artifact, so that a target machine can show
//! that it computes the same results as the compiler's machine or an independent framework.
//!
//! A case is a safetensors file. Tensors named `set/NAME` are set, the program runs, and tensors named
//! `expect/NAME` are compared with what is there then. The metadata entry `alexc.case` is JSON: the program's mode,
//! how often it runs, and the tolerance: the largest difference in a tensor, relative to the largest magnitude
//! expected in it. Tensors that would be large are not stored but drawn: parameters and state as training starts with
//! them, inputs as [`crate::kernel_check::Fill`] says. Cases of single kernels are the matter of [`crate::kernel_check`].

pub use crate::comparison::Comparison;

use crate::artifact::{Artifact, Case, mode_name};
use crate::device::DeviceSpec;
use crate::executor::Executor;
use crate::kernel_check::{self, Fill};
use crate::tensor::{Data, Tensor};
use crate::tensor_file::TensorFile;
use crate::{Error, weights};
use ir::DType;
use ir::plan::{Mode, Plan, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const METADATA: &str = "alexc.case";
const SET: &str = "set/";
const EXPECT: &str = "expect/";
const MAX_RUNS: u32 = 1000;

/// The settings of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRules {
    /// The program to run.
    pub mode: Mode,
    /// The number of runs before the comparison.
    pub runs: u32,
    /// The largest difference allowed, relative to the largest magnitude expected in the tensor.
    pub tolerance: f64,
    /// The seed of parameters and state that are not set; if there is none, parameters must be set and state is 0.
    #[serde(default)]
    pub initial_seed: Option<u64>,
    /// Inputs that are drawn, with their seeds.
    #[serde(default)]
    pub drawn: BTreeMap<String, u64>,
}

/// Makes a case for an artifact.
pub fn case(
    name: &str,
    rules: &CaseRules,
    set: &BTreeMap<String, Tensor>,
    expect: &BTreeMap<String, Tensor>,
) -> Result<Case, Error> {
    let rules = serde_json::to_string(rules)
        .map_err(|error| Error::work(format!("the case {name} cannot be written: {error}")))?;
    let prefixed = |prefix: &'static str, tensors: &BTreeMap<String, Tensor>| {
        let pairs = tensors
            .iter()
            .map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
        pairs.collect::<Vec<_>>()
    };
    let tensors = prefixed(SET, set)
        .into_iter()
        .chain(prefixed(EXPECT, expect))
        .collect();
    let file = TensorFile {
        tensors,
        metadata: [(METADATA.to_string(), rules)].into(),
    };
    Ok(Case {
        name: name.to_string(),
        bytes: file.to_bytes()?,
    })
}

/// Replays every case of an artifact.
pub fn check(artifact: &Artifact, devices: &[DeviceSpec]) -> Result<Vec<Comparison>, Error> {
    if artifact.cases.is_empty() {
        return Err(Error::input(format!(
            "the artifact of {} holds no conformance cases; there is nothing to check",
            artifact.name
        )));
    }
    let mut comparisons = Vec::new();
    for case in &artifact.cases {
        let found =
            replay(artifact, case, devices).map_err(|error| error.at(format!("case {}", case.name)))?;
        comparisons.extend(found);
    }
    Ok(comparisons)
}

fn replay(artifact: &Artifact, case: &Case, devices: &[DeviceSpec]) -> Result<Vec<Comparison>, Error> {
    let file = TensorFile::from_bytes(&case.bytes, Path::new(&case.name))?;
    if let Some(text) = file.metadata.get(kernel_check::METADATA) {
        return kernel_check::replay(artifact, &case.name, text, devices);
    }
    let text = file.metadata.get(METADATA).map_or("", String::as_str);
    let rules: CaseRules = serde_json::from_str(text)
        .map_err(|error| Error::input(format!("its rules cannot be read: {error}")))?;
    if rules.runs == 0 || rules.runs > MAX_RUNS {
        return Err(Error::input(format!(
            "it asks for {} runs; expected 1 to {MAX_RUNS}",
            rules.runs
        )));
    }
    let mut executor = Executor::new(artifact.require(rules.mode)?, devices)?;
    let must_be_set = executor.names(|role| matches!(role, Role::Input { .. } | Role::Parameter { .. }));
    if let Some(name) = must_be_set
        .iter()
        .filter(|name| !rules.drawn.contains_key(*name))
        .find(|name| {
            let parameter = executor.names(|role| matches!(role, Role::Parameter { .. }));
            let starts = rules.initial_seed.is_some() && parameter.contains(name);
            !starts && !file.tensors.contains_key(&format!("{SET}{name}"))
        })
    {
        return Err(Error::input(format!(
            "it does not set {name}, which {} needs",
            mode_name(rules.mode)
        )));
    }
    // State that the case does not set starts as it does in training.
    let state = executor.names(|role| matches!(role, Role::State { .. }));
    let initial = weights::initial_values(executor.plan())
        .into_iter()
        .filter(|(name, ..)| state.contains(name));
    for (name, tensor) in weights::initial(&initial.collect::<Vec<_>>(), 0)? {
        executor.set(&name, &tensor)?;
    }
    if let Some(seed) = rules.initial_seed {
        executor.initialise(seed)?;
    }
    for (name, &seed) in &rules.drawn {
        let drawn = draw(executor.plan(), name, seed)?;
        executor.set(name, &drawn)?;
    }
    let part = |prefix: &'static str| {
        file.tensors
            .iter()
            .filter_map(move |(name, t)| name.strip_prefix(prefix).map(|name| (name, t)))
    };
    for (name, tensor) in part(SET) {
        executor.set(name, tensor)?;
    }
    for _ in 0..rules.runs {
        executor.run()?;
    }
    let compare = |(name, expected): (&str, &Tensor)| {
        let found = executor.get(name)?;
        if found.type_name() != expected.type_name() {
            let (expected, found) = (expected.type_name(), found.type_name());
            return Err(Error::input(format!(
                "{name} is {found} and the case expects {expected}"
            )));
        }
        let error = relative_error(&found, expected);
        let (case, tensor, tolerance) = (case.name.clone(), name.to_string(), rules.tolerance);
        Ok(Comparison {
            case,
            tensor,
            error,
            tolerance,
            passed: error <= tolerance,
        })
    };
    part(EXPECT).map(compare).collect()
}

/// An input of a plan, drawn from a seed.
pub fn draw(plan: &Plan, name: &str, seed: u64) -> Result<Tensor, Error> {
    let buffer = plan
        .find(name)
        .ok_or_else(|| Error::input(format!("it draws {name}, which is not there")))?;
    let (dtype, shape) = (
        plan.buffers[buffer].dtype,
        plan.buffers[buffer].role.shape().unwrap_or_default(),
    );
    let fill = Fill {
        buffer,
        seed,
        positive: false,
    };
    let numbers = (0..shape.iter().product::<usize>() as u64).map(|at| fill.number(dtype, at));
    let data = match dtype {
        DType::F32 => Data::F32(numbers.map(|x| x as f32).collect()),
        DType::I64 => Data::I64(numbers.map(|x| x as i64).collect()),
        DType::U8 => Data::U8(numbers.map(|x| x as u8).collect()),
    };
    Tensor::new(shape.to_vec(), data)
}

/// The largest difference of two tensors of one type, relative to the largest magnitude in `expected`.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let (Data::F32(found), Data::F32(expected)) = (found.data(), expected.data()) else {
        return if found == expected { 0.0 } else { f64::INFINITY };
    };
    let scale = expected.iter().map(|&e| f64::from(e).abs()).fold(0.0, f64::max);
    let mut largest = 0.0f64;
    for (&f, &e) in found.iter().zip(expected) {
        let difference = (f64::from(f) - f64::from(e)).abs();
        largest = if difference.is_finite() {
            largest.max(difference)
        } else {
            f64::INFINITY
        };
        if largest.is_infinite() {
            break;
        }
    }
    if largest == 0.0 {
        0.0
    } else {
        largest / scale.max(f64::MIN_POSITIVE)
    }
}
