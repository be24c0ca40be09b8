//! Conformance of single kernels: each one runs alone on inputs drawn from a seed, and samples of its results are compared
//! with references that travel in the artifact. So a machine that computes wrongly learns which kernel does.
//!
//! A case is a safetensors file without tensors, whose metadata entry `alexc.kernels` is the JSON of [`KernelCases`].

use crate::Error;
use crate::artifact::{Artifact, Case};
use crate::comparison::Comparison;
use crate::device::DeviceSpec;
use crate::executor::Executor;
use crate::tensor_file::TensorFile;
use ir::DType;
use ir::plan::{Mode, Plan};
use serde::{Deserialize, Serialize};

/// The metadata entry.
pub const METADATA: &str = "alexc.kernels";

/// The kernels of a program, each with its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCases {
    /// The program.
    pub mode: Mode,
    /// One per kernel.
    pub kernels: Vec<KernelCase>,
}

/// A case of a single kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCase {
    /// The names of the nodes that it computes.
    pub label: String,
    /// Positions of launches, where `prepack` comes first: launches that prepack inputs, the kernel, and the launch that adds
    /// partial results.
    pub launches: Vec<usize>,
    /// Its inputs.
    pub inputs: Vec<Fill>,
    /// Its results.
    pub outputs: Vec<Samples>,
    /// The largest difference allowed, relative to the largest magnitude expected.
    pub tolerance: f64,
}

/// A buffer filled with drawn numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// Position among the plan's buffers.
    pub buffer: usize,
    /// The seed of the numbers.
    pub seed: u64,
    /// Whether all are above 0.
    pub positive: bool,
}

/// Elements of a buffer with what they should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// Position among the plan's buffers.
    pub buffer: usize,
    /// Offsets in elements.
    pub at: Vec<u64>,
    /// The expected value at each.
    pub expected: Vec<f64>,
}

impl Fill {
    /// The number at an offset: between −1 and 1, or between ⅛ and 1⅛; integers are 0 or 1.
    pub fn number(&self, dtype: DType, offset: u64) -> f64 {
        let drawn = ir::nest::uniform(self.seed as i64, (offset >> 32) as i64, 0, offset as u32);
        match dtype {
            DType::F32 if self.positive => f64::from((drawn + 0.125) as f32),
            DType::F32 => f64::from((drawn * 2.0 - 1.0) as f32),
            DType::I64 | DType::U8 => (drawn * 2.0).floor(),
        }
    }

    fn bytes(&self, plan: &Plan) -> Option<Vec<u8>> {
        let buffer = plan.buffers.get(self.buffer)?;
        let numbers = (0..buffer.bytes / buffer.dtype.bytes() as u64).map(|i| self.number(buffer.dtype, i));
        Some(match buffer.dtype {
            DType::F32 => numbers.flat_map(|x| (x as f32).to_le_bytes()).collect(),
            DType::I64 => numbers.flat_map(|x| (x as i64).to_le_bytes()).collect(),
            DType::U8 => numbers.map(|x| x as u8).collect(),
        })
    }
}

impl KernelCases {
    /// The case as it is stored in an artifact.
    pub fn to_case(&self, name: &str) -> Result<Case, Error> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::work(format!("the case {name} cannot be written: {error}")))?;
        let file = TensorFile {
            metadata: [(METADATA.to_string(), text)].into(),
            ..TensorFile::default()
        };
        Ok(Case {
            name: name.to_string(),
            bytes: file.to_bytes()?,
        })
    }
}

/// Runs every kernel of a case alone.
pub fn replay(
    artifact: &Artifact,
    name: &str,
    text: &str,
    devices: &[DeviceSpec],
) -> Result<Vec<Comparison>, Error> {
    let cases: KernelCases = serde_json::from_str(text)
        .map_err(|error| Error::input(format!("its kernels cannot be read: {error}")))?;
    let mut executor = Executor::new(artifact.require(cases.mode)?, devices)?;
    run(&mut executor, &cases, name)
}

/// Runs every kernel of a program alone; `name` is for the report.
pub fn run(executor: &mut Executor, cases: &KernelCases, name: &str) -> Result<Vec<Comparison>, Error> {
    let mut comparisons = vec![];
    for case in &cases.kernels {
        let error = one(executor, case).map_err(|error| error.at(&case.label))?;
        comparisons.push(Comparison {
            case: name.to_string(),
            tensor: case.label.clone(),
            error,
            tolerance: case.tolerance,
            passed: error <= case.tolerance,
        });
    }
    Ok(comparisons)
}

/// The worst relative error of a kernel's samples.
fn one(executor: &mut Executor, case: &KernelCase) -> Result<f64, Error> {
    let plan = executor.plan();
    let damaged = |what: &str| Error::input(format!("{what}; the case is damaged, compile the model again"));
    let mut set = vec![];
    for fill in &case.inputs {
        let bytes = fill
            .bytes(plan)
            .ok_or_else(|| damaged("it fills a buffer that is not there"))?;
        set.push((fill.buffer, bytes));
    }
    let types: Option<Vec<DType>> = case
        .outputs
        .iter()
        .map(|samples| plan.buffers.get(samples.buffer).map(|buffer| buffer.dtype))
        .collect();
    let types = types.ok_or_else(|| damaged("it looks at a buffer that is not there"))?;
    let look: Vec<usize> = case.outputs.iter().map(|samples| samples.buffer).collect();
    let found = executor.probe(&set, &look, &case.launches, &look)?;
    let mut worst: f64 = 0.0;
    for ((samples, dtype), bytes) in case.outputs.iter().zip(types).zip(&found) {
        let scale = samples.expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        for (&at, &expected) in samples.at.iter().zip(&samples.expected) {
            let size = dtype.bytes();
            let element = usize::try_from(at)
                .ok()
                .and_then(|at| bytes.get(at * size..(at + 1) * size));
            let element = element.ok_or_else(|| damaged("it looks beyond a buffer"))?;
            let found = match dtype {
                DType::F32 => f64::from(f32::from_le_bytes(element.try_into().expect("four bytes"))),
                DType::I64 => i64::from_le_bytes(element.try_into().expect("eight bytes")) as f64,
                DType::U8 => f64::from(element[0]),
            };
            let error = match (found - expected).abs() {
                0.0 => 0.0,
                difference if difference.is_finite() => difference / scale.max(f64::MIN_POSITIVE),
                _ => f64::INFINITY,
            };
            worst = worst.max(error);
        }
    }
    Ok(worst)
}
