//! Tensors in, tensors out: one run of a program on given weights and inputs, by the model's own names.

use crate::artifact::{Artifact, mode_name};
use crate::device::DeviceSpec;
use crate::eval::class_of;
use crate::executor::Executor;
use crate::interface::Interface;
use crate::tensor_file::TensorFile;
use crate::{Error, Tensor, weights};
use ir::plan::{LABELS, LEARNING_RATE, Mode, RANDOM_STATE, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// A request to run a program.
#[derive(Clone, Copy, Debug)]
pub struct RunRequest<'a> {
    /// Parameters: a safetensors file, a checkpoint or a run folder.
    pub weights: &'a Path,
    /// Inputs by name, `labels` among them for gradients (and allowed without).
    pub inputs: &'a Path,
    /// Whether loss and gradients are wanted rather than the model's outputs.
    pub grads: bool,
    /// Of dropout, where it is compiled in.
    pub seed: u64,
}

/// Runs a program of `artifact` and gives its outputs: for gradients `loss` and `grad.NAME` of each parameter.
pub fn run(artifact: &Artifact, devices: &[DeviceSpec], request: &RunRequest) -> Result<TensorFile, Error> {
    let mode = if request.grads {
        Mode::Gradients
    } else {
        Mode::Infer
    };
    let program = artifact.require(mode)?;
    let parameters = weights::read(request.weights, &weights::parameters(&program.plan))?;
    let inputs = TensorFile::read(request.inputs)?.tensors;
    let mut executor = Executor::new(program, devices)?;
    for (name, tensor) in &parameters {
        executor.set(name, tensor)?;
    }
    set_inputs(&mut executor, &inputs, request).map_err(|error| error.at(request.inputs.display()))?;
    executor.run()?;
    let mut tensors = BTreeMap::new();
    for name in executor.names(|role| matches!(role, Role::Output { .. })) {
        let tensor = executor.get(&name)?;
        tensors.insert(name, tensor);
    }
    Ok(TensorFile {
        tensors,
        metadata: BTreeMap::new(),
    })
}

fn set_inputs(
    executor: &mut Executor,
    inputs: &BTreeMap<String, Tensor>,
    request: &RunRequest,
) -> Result<(), Error> {
    let names = executor.names(|role| matches!(role, Role::Input { .. }));
    // One file serves both ways to run: classes are of no use to inference, and no mistake.
    let known = |name: &String| names.contains(name) || name == LABELS;
    if let Some(name) = inputs.keys().find(|name| !known(name)) {
        let (mode, names) = (mode_name(executor.plan().mode), names.join(", "));
        return Err(Error::input(format!(
            "{name} is not an input of the model ({mode}), which has: {names}"
        )));
    }
    let labels = inputs.get(LABELS).and_then(Tensor::as_i64).unwrap_or_default();
    if let Some(classes) = Interface::classes_of(executor.plan())
        && names.iter().any(|name| name == LABELS)
    {
        for &label in labels {
            class_of(label, classes)?;
        }
    }
    for name in names {
        match (inputs.get(&name), name.as_str()) {
            (Some(tensor), _) => executor.set(&name, tensor)?,
            (None, RANDOM_STATE) => executor.set_i64(RANDOM_STATE, &[request.seed as i64, 0])?,
            (None, LEARNING_RATE) => executor.set_f32(LEARNING_RATE, &[0.0])?,
            (None, _) => {
                return Err(Error::input(format!(
                    "the input {name} is missing; add it to the file"
                )));
            }
        }
    }
    Ok(())
}
