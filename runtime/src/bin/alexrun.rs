//! `alexrun`: an artifact and this program are all that a target machine needs. It links neither LLVM nor MLIR.

use clap::{Parser, Subcommand};
use ir::plan::Mode;
use runtime::cli::{BenchArgs, CheckArgs, DeviceArgs, EvalArgs, PredictArgs, RunArgs, TrainArgs, exit};
use runtime::recipe::Recipe;
use runtime::{Artifact, Error};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run artifacts that alexc compiled: train, evaluate, predict, measure and check.
///
/// Exit codes: 0 success, 1 the work failed, 2 bad usage or bad input, 130 stopped by Ctrl-C with everything saved.
/// An artifact contains native code. Use only artifacts from authors whose programs you would run.
#[derive(Parser)]
#[command(name = "alexrun", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the model on given tensors, which have the model's own names
    #[command(
        after_help = "Example:\n  alexrun run m.alx --weights w.safetensors --inputs x.safetensors --out y.safetensors"
    )]
    Run(On<RunArgs>),
    /// Train a model on a folder of images; compile the artifact with --mode train
    #[command(
        after_help = "Example:\n  alexrun train m.alx --data data/shapes --out runs/a\n  alexrun train m.alx --data data/shapes --out runs/a --resume"
    )]
    Train {
        /// The recipe (.toml); default: the recipe that the artifact was compiled with
        #[arg(long, value_name = "R.toml")]
        recipe: Option<PathBuf>,
        /// Artifact, devices and flags.
        #[command(flatten)]
        on: On<TrainArgs>,
    },
    /// Compute top-1 and top-5 error over the validation images
    #[command(after_help = "Example:\n  alexrun eval m.alx --weights runs/a --data data/shapes --views 10")]
    Eval {
        /// Preprocessing for weights that do not record theirs; default: the artifact's recipe
        #[arg(long, value_name = "R.toml")]
        recipe: Option<PathBuf>,
        /// Artifact, devices and flags.
        #[command(flatten)]
        on: On<EvalArgs>,
    },
    /// Predict the classes of images, with probabilities
    #[command(after_help = "Example:\n  alexrun predict m.alx --weights runs/a --top 3 cat.jpg dog.png")]
    Predict {
        /// Preprocessing for weights that do not record theirs; default: the artifact's recipe
        #[arg(long, value_name = "R.toml")]
        recipe: Option<PathBuf>,
        /// Artifact, devices and flags.
        #[command(flatten)]
        on: On<PredictArgs>,
    },
    /// Measure the time of a run, after warm-up
    #[command(after_help = "Example:\n  alexrun bench m.alx --mode infer --iters 20 --json")]
    Bench {
        /// The program to time; default: the training step if the artifact has one
        #[arg(long, value_parser = ["infer", "train", "gradients"])]
        mode: Option<String>,
        /// Artifact, devices and flags.
        #[command(flatten)]
        on: On<BenchArgs>,
    },
    /// Run the conformance cases that are stored in the artifact
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
    runtime::files::let_limits_be_errors();
    exit(run(Arguments::parse().command))
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Run(on) => on.args.run(&Artifact::read(&on.artifact)?, &on.devices.parse()?),
        Command::Train { recipe, on } => {
            let artifact = Artifact::read(&on.artifact)?;
            let compiled = artifact_recipe(&artifact, &on.artifact)?;
            let batch = artifact.require(Mode::Train)?.plan.batch;
            let recipe = on
                .args
                .recipe(recipe.as_deref(), Some(batch), || Ok(compiled.clone()))?;
            check_compiled_in(&compiled, &recipe)?;
            on.args.run(artifact, recipe, on.devices.parse()?)
        }
        Command::Eval { recipe, on } => {
            let artifact = Artifact::read(&on.artifact)?;
            let recipe = recipe.map_or_else(
                || artifact_recipe(&artifact, &on.artifact),
                |path| Recipe::read(&path),
            )?;
            on.args.run(&artifact, &recipe.data, &on.devices.parse()?)
        }
        Command::Predict { recipe, on } => {
            let artifact = Artifact::read(&on.artifact)?;
            let recipe = recipe.map_or_else(
                || artifact_recipe(&artifact, &on.artifact),
                |path| Recipe::read(&path),
            )?;
            on.args.run(&artifact, &recipe.data, &on.devices.parse()?)
        }
        Command::Bench { mode, on } => {
            let artifact = Artifact::read(&on.artifact)?;
            let mode = chosen_mode(&artifact, mode.as_deref());
            on.args.run(&artifact, &on.devices.parse()?, mode, None)
        }
        Command::Check(on) => on.args.run(&Artifact::read(&on.artifact)?, &on.devices.parse()?),
    }
}

/// The recipe that an artifact was compiled with.
fn artifact_recipe(artifact: &Artifact, path: &Path) -> Result<Recipe, Error> {
    match &artifact.recipe {
        Some(text) => Recipe::parse(text, &path.join("recipe.toml")),
        None => Ok(Recipe::default()),
    }
}

/// The update and dropout are compiled into the training step; a recipe that asks for others would not get them.
fn check_compiled_in(compiled: &Recipe, recipe: &Recipe) -> Result<(), Error> {
    let mut same_rate = recipe.sgd.clone();
    same_rate.lr = compiled.sgd.lr;
    let differs = if same_rate != compiled.sgd {
        "[sgd] (but for lr)"
    } else if recipe.train.dropout != compiled.train.dropout {
        "[train] dropout"
    } else {
        return Ok(());
    };
    Err(Error::input(format!(
        "the recipe differs in {differs} from the one the artifact was compiled with, which decides; compile the \
         model with this recipe"
    )))
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
