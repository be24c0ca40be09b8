//! `alexrun`: an artifact and this program are all that a target machine needs. It links neither LLVM nor MLIR.

use clap::{Parser, Subcommand};
use ir::plan::Mode;
use runtime::cli::{BenchArgs, CheckArgs, DeviceArgs, RunArgs, exit};
use runtime::{Artifact, Error};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs artifacts that alexc compiled: trains, evaluates, predicts, times and checks them.
///
/// Exit codes: 0 success, 1 the work failed, 2 bad usage or bad input, 130 stopped by Ctrl-C with everything saved.
/// An artifact holds native code: use only those whose authors you would run programs of.
#[derive(Parser)]
#[command(name = "alexrun", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tensors in, tensors out, by the model's own names
    #[command(
        after_help = "Example:\n  alexrun run m.alx --weights w.safetensors --inputs x.safetensors --out y.safetensors"
    )]
    Run(On<RunArgs>),
    /// Time runs, warm
    #[command(after_help = "Example:\n  alexrun bench m.alx --mode infer --iters 20 --json")]
    Bench {
        /// The program to time; without, the training step if there is one
        #[arg(long, value_parser = ["infer", "train", "gradients"])]
        mode: Option<String>,
        /// What and where.
        #[command(flatten)]
        on: On<BenchArgs>,
    },
    /// Replay the conformance cases stored in the artifact
    #[command(after_help = "Example:\n  alexrun check m.alx --devices cpu:0")]
    Check(On<CheckArgs>),
}

/// A command on an artifact.
#[derive(clap::Args)]
struct On<A: clap::Args> {
    /// The artifact (.alx), as alexc compile wrote it
    artifact: PathBuf,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    args: A,
}

fn main() -> ExitCode {
    exit(run(Arguments::parse().command))
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(on) => on.args.run(&Artifact::read(&on.artifact)?, &on.devices.parse()?),
        Command::Bench { mode, on } => {
            let artifact = Artifact::read(&on.artifact)?;
            let mode = chosen_mode(&artifact, mode.as_deref());
            on.args.run(&artifact, &on.devices.parse()?, mode, None)
        }
        Command::Check(on) => on.args.run(&Artifact::read(&on.artifact)?, &on.devices.parse()?),
    }
}

/// The mode that was asked for, or the artifact's main one.
fn chosen_mode(artifact: &Artifact, asked: Option<&str>) -> Mode {
    let modes = [Mode::Train, Mode::Gradients, Mode::Infer];
    let is_asked = |mode: &Mode| asked == Some(runtime::artifact::mode_name(*mode));
    let is_there = |mode: &Mode| artifact.program(*mode).is_some();
    let found = if asked.is_some() {
        modes.into_iter().find(is_asked)
    } else {
        modes.into_iter().find(is_there)
    };
    found.unwrap_or(Mode::Infer)
}
