//! `check`: replays the conformance cases of an artifact.

use super::OutputArgs;
use crate::check::{Comparison, check};
use crate::{Artifact, DeviceSpec, Error};
use serde::Serialize;

/// Flags of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Output format.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    passed: bool,
    comparisons: &'a [Comparison],
}

impl CheckArgs {
    /// Replays every case and prints how each tensor came out; one that differs too much is a failure.
    pub fn run(&self, artifact: &Artifact, devices: &[DeviceSpec]) -> Result<(), Error> {
        let comparisons = check(artifact, devices)?;
        let failed = comparisons.iter().filter(|comparison| !comparison.passed).count();
        let report = Report {
            model: &artifact.name,
            passed: failed == 0,
            comparisons: &comparisons,
        };
        self.output
            .print(&report, || comparisons.iter().map(line).collect())?;
        if failed > 0 {
            let count = comparisons.len();
            return Err(Error::work(format!(
                "{failed} of {count} tensors differ from their reference"
            )));
        }
        Ok(())
    }
}

fn line(comparison: &Comparison) -> String {
    let Comparison {
        case,
        tensor,
        error,
        tolerance,
        passed,
    } = comparison;
    let verdict = if *passed { "ok    " } else { "FAILED" };
    format!("{verdict} {case}: {tensor}: relative error {error:.2e} (allowed {tolerance:.0e})\n")
}
