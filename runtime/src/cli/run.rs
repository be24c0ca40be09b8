//! `run`: tensors in, tensors out.

use crate::run::{RunRequest, run};
use crate::{Artifact, DeviceSpec, Error};
use std::path::PathBuf;

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Parameters: a safetensors file, a checkpoint or a run folder
    #[arg(long, value_name = "W.safetensors")]
    pub weights: PathBuf,
    /// Inputs by the model's names; with --grads also labels, one i64 per sample
    #[arg(long, value_name = "X.safetensors")]
    pub inputs: PathBuf,
    /// File for the outputs, by the model's names; with --grads loss and grad.NAME of each parameter
    #[arg(long, value_name = "Y.safetensors")]
    pub out: PathBuf,
    /// Write loss and gradients instead of the model's outputs
    #[arg(long)]
    pub grads: bool,
    /// Seed for dropout, if the program contains it
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: u64,
}

impl RunArgs {
    /// Runs a program of `artifact` and writes what it gives.
    pub fn run(&self, artifact: &Artifact, devices: &[DeviceSpec]) -> Result<(), Error> {
        let request = RunRequest {
            weights: &self.weights,
            inputs: &self.inputs,
            grads: self.grads,
            seed: self.seed,
        };
        run(artifact, devices, &request)?.write(&self.out)
    }
}
