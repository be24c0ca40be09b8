//! `bench`: warm timing.

use super::OutputArgs;
use crate::bench::{BenchOptions, CompileTime, bench};
use crate::{Artifact, DeviceSpec, Error};
use ir::plan::Mode;

/// Flags of `bench`, but for those that decide what is compiled.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Number of runs to time; default: as many as fit into a few seconds
    #[arg(long, value_name = "K")]
    pub iters: Option<usize>,
    /// Also time every launch
    #[arg(long)]
    pub launches: bool,
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl BenchArgs {
    /// Times the program for `mode` and prints the result.
    pub fn run(
        &self,
        artifact: &Artifact,
        devices: &[DeviceSpec],
        mode: Mode,
        compile: Option<CompileTime>,
    ) -> Result<(), Error> {
        let options = BenchOptions {
            iters: self.iters,
            compile,
            launches: self.launches,
        };
        let report = bench(artifact.require(mode)?, devices, &options)?;
        self.output.print(&report, || report.to_string())
    }
}
