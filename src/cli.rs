//! The command line of `alexc`.

use crate::compile::{Emit, EmitTo, Model, Request, compile};
use clap::{Args, Parser, Subcommand, ValueEnum};
use codegen::bridge::HostTarget;
use ir::plan::Mode;
use runtime::recipe::Recipe;
use runtime::{Artifact, DeviceSpec, Error, TensorFile};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Compiles and trains convolutional networks: one text file to kernels for the machine at hand.
#[derive(Parser)]
#[command(name = "alexc", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compiles a model ahead of time to one artifact.
    #[command(
        after_help = "Example:\n  alexc compile models/alexnet.ir --mode train --batch 128 -o alexnet.alx"
    )]
    Compile(CompileArgs),
    /// Parses and verifies a model; prints every error.
    #[command(after_help = "Example:\n  alexc check models/alexnet.ir")]
    Check {
        /// The model.
        model: PathBuf,
    },
    /// Prints the canonical text of a model; comments stay.
    #[command(after_help = "Example:\n  alexc fmt models/alexnet.ir")]
    Fmt {
        /// The model.
        model: PathBuf,
    },
    /// Writes initial parameters.
    #[command(after_help = "Example:\n  alexc init models/alexnet.ir --seed 1 -o weights.safetensors")]
    Init {
        /// The model.
        model: PathBuf,
        /// Of the random draws.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The file to write.
        #[arg(short = 'o', long = "output")]
        output: PathBuf,
    },
    /// Runs a model on given weights and inputs: tensors in, tensors out.
    #[command(
        after_help = "Example:\n  alexc run models/alexnet-owt.ir --weights w.safetensors --inputs x.safetensors --out y.safetensors"
    )]
    Run(RunArgs),
    /// Times a model, warm.
    #[command(after_help = "Example:\n  alexc bench models/alexnet.ir --mode train --batch 128 --json")]
    Bench(BenchArgs),
}

/// The model and how it is compiled.
#[derive(Args, Clone)]
struct ModelArgs {
    /// The model's text.
    model: PathBuf,
    /// Samples of one run.
    #[arg(long)]
    batch: Option<usize>,
    /// Where it runs: `cpu`, `cpu:K`, `cpu:A-B`.
    #[arg(long, default_value = "cpu")]
    devices: String,
    /// How far the program is optimised.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    opt_level: u8,
    /// The arithmetic of contractions.
    #[arg(long, default_value = "f32", value_parser = ["f32"])]
    precision: String,
    /// The recipe; the model's own (`MODEL.toml`) if there is one.
    #[arg(long)]
    recipe: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Infer,
    Train,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Infer => Mode::Infer,
            ModeArg::Train => Mode::Train,
        }
    }
}

#[derive(Args)]
struct CompileArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What one run does.
    #[arg(long, value_enum, default_value = "infer")]
    mode: ModeArg,
    /// The artifact to write; the model's name with `.alx` if nothing is emitted.
    #[arg(short = 'o', long = "output")]
    output: Option<PathBuf>,
    /// The processor: `cpu` is this machine's, `avx2` any x86-64 one with AVX2, `avx512` any with AVX-512.
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "avx2", "avx512"])]
    target: String,
    /// Shows a stage, on standard output or in a file: graph, optimized, dot, program, mlir, llvm, asm, plan, costs.
    #[arg(long, value_name = "STAGE[=FILE]")]
    emit: Vec<EmitTo>,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Parameters: a safetensors file, a checkpoint or a run folder.
    #[arg(long)]
    weights: PathBuf,
    /// Inputs by name.
    #[arg(long)]
    inputs: PathBuf,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Writes the loss and the gradient of every parameter; the inputs hold `labels`.
    #[arg(long)]
    grads: bool,
    /// Keeps dropout on while computing gradients.
    #[arg(long)]
    dropout: bool,
}

#[derive(Args)]
struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What one run does.
    #[arg(long, value_enum, default_value = "infer")]
    mode: ModeArg,
    /// Runs to time; without, as many as a few seconds hold.
    #[arg(long)]
    iters: Option<usize>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    /// Times every launch in one more run.
    #[arg(long)]
    launches: bool,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Compile(args) => run_compile(&args),
        Command::Check { model } => Model::read(&model, colour()).map(drop),
        Command::Fmt { model } => {
            let text = runtime::files::read_text(&model, 16 << 20)?;
            let formatted = ir::text::format(&text, &model.display().to_string())
                .map_err(|mistakes| Error::input(ir::text::render(&mistakes, &text, colour())))?;
            print!("{formatted}");
            Ok(())
        }
        Command::Init { model, seed, output } => run_init(&model, seed, &output),
        Command::Run(args) => run_run(&args),
        Command::Bench(args) => run_bench(&args),
    }
}

/// Whether messages may be coloured.
fn colour() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal()
}

impl ModelArgs {
    fn recipe(&self) -> Result<Recipe, Error> {
        match self.recipe.clone().or_else(|| Recipe::beside(&self.model)) {
            Some(path) => Recipe::read(&path),
            None => Ok(Recipe::default()),
        }
    }

    fn compile(
        &self,
        modes: &[Mode],
        dropout: bool,
        emit: &[Emit],
        target: HostTarget,
    ) -> Result<Output, Error> {
        let model = Model::read(&self.model, colour())?;
        let recipe = self.recipe()?;
        let batch = self.batch.unwrap_or(if modes.contains(&Mode::Train) {
            recipe.train.batch
        } else {
            1
        });
        if !(1..=1 << 20).contains(&batch) {
            return Err(Error::input(format!(
                "--batch {batch}: expected 1 to 1048576; choose a smaller batch"
            )));
        }
        let begin = Instant::now();
        let request = Request {
            modes: modes.to_vec(),
            batch,
            recipe,
            dropout,
            opt_level: self.opt_level,
            target,
            emit: emit.to_vec(),
        };
        let (artifact, emitted) = compile(&model, &request)?;
        Ok(Output {
            artifact,
            emitted,
            milliseconds: begin.elapsed().as_secs_f64() * 1e3,
        })
    }

    fn devices(&self) -> Result<Vec<DeviceSpec>, Error> {
        DeviceSpec::parse_list(&self.devices)
    }
}

struct Output {
    artifact: Artifact,
    emitted: crate::compile::Emitted,
    milliseconds: f64,
}

fn run_compile(args: &CompileArgs) -> Result<(), Error> {
    let mode: Mode = args.mode.into();
    // A training artifact also holds the program to evaluate with.
    let modes = if mode == Mode::Train {
        vec![Mode::Infer, Mode::Train]
    } else {
        vec![mode]
    };
    let stages: Vec<Emit> = args.emit.iter().map(|e| e.stage).collect();
    let target = match &args.target[..] {
        "avx2" => HostTarget::avx2(),
        "avx512" => HostTarget::avx512(),
        _ => HostTarget::native(),
    };
    let output = args.model.compile(&modes, false, &stages, target)?;
    for emit in &args.emit {
        let text = &output.emitted[&emit.stage];
        match &emit.file {
            None => print!("{text}"),
            Some(path) => runtime::files::write_bytes(path, text.as_bytes())?,
        }
    }
    let path = match (&args.output, args.emit.is_empty()) {
        (Some(path), _) => path.clone(),
        (None, true) => args.model.model.with_extension("alx"),
        (None, false) => return Ok(()),
    };
    output.artifact.write(&path)?;
    eprintln!("wrote {} ({:.1} s)", path.display(), output.milliseconds / 1e3);
    Ok(())
}

fn run_init(path: &Path, seed: u64, output: &Path) -> Result<(), Error> {
    let model = Model::read(path, colour())?;
    let tensors = runtime::weights::initial(&crate::compile::initial_values(&model.graph), seed)?;
    let file = TensorFile {
        tensors: tensors.into_iter().collect(),
        ..TensorFile::default()
    };
    file.write(output)
}

fn run_run(args: &RunArgs) -> Result<(), Error> {
    let mode = if args.grads { Mode::Gradients } else { Mode::Infer };
    let inputs = TensorFile::read(&args.inputs)?;
    let batch = inputs
        .tensors
        .values()
        .find_map(|tensor| tensor.shape().first().copied());
    let model = ModelArgs {
        batch: args.model.batch.or(batch),
        ..args.model.clone()
    };
    let output = model.compile(&[mode], args.dropout, &[], HostTarget::native())?;
    let request = runtime::run::RunRequest {
        weights: &args.weights,
        inputs: &args.inputs,
        grads: args.grads,
        seed: 0,
    };
    runtime::run::run(&output.artifact, &args.model.devices()?, &request)?.write(&args.out)
}

fn run_bench(args: &BenchArgs) -> Result<(), Error> {
    let mode = Mode::from(args.mode);
    let output = args.model.compile(&[mode], true, &[], HostTarget::native())?;
    let options = runtime::bench::BenchOptions {
        iters: args.iters,
        compile_ms: Some(output.milliseconds),
        launches: args.launches,
    };
    let report = runtime::bench::bench(output.artifact.require(mode)?, &args.model.devices()?, &options)?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string(&report).expect("reports are plain data")
        );
    } else {
        print!("{report}");
    }
    Ok(())
}
