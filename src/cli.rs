//! The command line of `alexc`: the compiler's own commands, and those it shares with `alexrun`, on artifacts that
//! were just compiled.

use crate::compile::{EmitTo, Model, Request};
use crate::model_args::{ModelArgs, colour};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use codegen::bridge::GpuTarget;
use ir::plan::Mode;
use runtime::cli::{BenchArgs, EvalArgs, OutputArgs, PredictArgs, RunArgs, TrainArgs, print};
use runtime::console::Console;
use runtime::data::{SynthOptions, synth};
use runtime::{Error, TensorFile};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compiles and trains convolutional networks: one text file to kernels for the machine at hand.
///
/// Exit codes: 0 success, 1 the work failed, 2 bad usage or bad input, 130 stopped by Ctrl-C with everything saved.
#[derive(Parser)]
#[command(name = "alexc", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a model ahead of time to one artifact
    #[command(
        after_help = "Examples:\n  alexc compile models/alexnet.ir --mode train --batch 128 -o alexnet.alx\n  \
                            alexc compile models/alexnet.ir --emit program --emit mlir=kernels.mlir"
    )]
    Compile(CompileArgs),
    /// Parse and verify a model, and print every error
    #[command(after_help = "Example:\n  alexc check models/alexnet.ir")]
    Check {
        /// The model (.ir)
        model: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the canonical text of a model; comments stay
    #[command(after_help = "Example:\n  alexc fmt models/alexnet.ir")]
    Fmt {
        /// The model (.ir)
        model: PathBuf,
    },
    /// Write initial parameters
    #[command(after_help = "Example:\n  alexc init models/alexnet.ir --seed 1 -o weights.safetensors")]
    Init {
        /// The model (.ir)
        model: PathBuf,
        /// Of the random draws
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The file to write
        #[arg(short = 'o', long = "output", value_name = "W.safetensors")]
        output: PathBuf,
    },
    /// Tensors in, tensors out, by the model's own names
    #[command(
        after_help = "Example:\n  alexc run models/alexnet-owt.ir --weights w.safetensors --inputs \
                            x.safetensors --out y.safetensors --grads"
    )]
    Run {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: RunArgs,
        /// With --grads: keep dropout on
        #[arg(long, requires = "grads")]
        dropout: bool,
    },
    /// Train
    #[command(
        after_help = "Examples:\n  alexc train models/alexnet-cifar.ir --data data/shapes --out runs/shapes\n  \
                            alexc train models/alexnet-cifar.ir --data data/shapes --out runs/shapes --resume"
    )]
    Train {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: TrainArgs,
    },
    /// Top-1 and top-5 error over validation images
    #[command(
        after_help = "Example:\n  alexc eval models/alexnet-cifar.ir --weights runs/shapes --data data/shapes"
    )]
    Eval {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: EvalArgs,
    },
    /// Classes of images, with probabilities
    #[command(
        after_help = "Example:\n  alexc predict models/alexnet-cifar.ir --weights runs/shapes --top 3 cat.jpg"
    )]
    Predict {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        args: PredictArgs,
    },
    /// Time runs, warm
    #[command(after_help = "Example:\n  alexc bench models/alexnet.ir --mode train --batch 128 --json")]
    Bench {
        #[command(flatten)]
        model: ModelArgs,
        /// What one run does
        #[arg(long, value_enum, default_value = "infer")]
        mode: ModeArg,
        #[command(flatten)]
        args: BenchArgs,
    },
    /// Make data sets
    #[command(subcommand)]
    Data(DataCommand),
    /// What was fused and placed, why, and what else it could have been
    #[command(
        after_help = "Examples:\n  alexc explain models/alexnet.ir --mode train --batch 128 --devices cpu:0,cpu:1\n  \
                            alexc explain models/alexnet-owt.ir --node conv2 --json"
    )]
    Explain {
        #[command(flatten)]
        model: ModelArgs,
        /// What one run does
        #[arg(long, value_enum, default_value = "infer")]
        mode: ModeArg,
        /// The node of the graph to explain: the rules that led to it and the cost of the alternatives
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Verify and time the kernels of a model here, so that costs are measured ones
    #[command(
        after_help = "Examples:\n  alexc tune models/alexnet.ir --mode train --batch 128\n  alexc tune models/alexnet.ir --mode train --opt-level 0"
    )]
    Tune {
        #[command(flatten)]
        model: ModelArgs,
        /// What one run does
        #[arg(long, value_enum, default_value = "infer")]
        mode: ModeArg,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// What is here to run on
    #[command(after_help = "Examples:\n  alexc devices --json\n  alexc devices --calibrate -o here.toml")]
    Devices {
        /// Write a profile of this machine, for costs; without -o into the cache folder, where it is found again
        #[arg(long)]
        calibrate: bool,
        /// The profile to write
        #[arg(short = 'o', long = "output", value_name = "FILE", requires = "calibrate")]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write an artifact that measures a GPU's limits: `alexrun bench` runs it where the GPU is
    #[command(after_help = "Example:\n  alexc peaks --target sm_90 -o peaks.alx")]
    Peaks {
        /// The architecture
        #[arg(long, default_value = "sm_90", value_parser = ["sm_80", "sm_90", "sm_90a", "sm_100"])]
        target: String,
        /// Do little, so as to try it on the emulator
        #[arg(long)]
        small: bool,
        /// The artifact to write
        #[arg(short = 'o', long = "output", value_name = "OUT.alx")]
        output: PathBuf,
    },
    /// What compiling has kept, so that the same model is not compiled twice
    #[command(
        after_help = "The cache is in ALEXC_CACHE_DIR, else in XDG_CACHE_HOME/alexc, else in ~/.cache/alexc. It holds at most \
                      ALEXC_CACHE_LIMIT bytes (as 500M; without, 2G; 0 switches it off); the least recently used \
                      entries go first.\n\nExamples:\n  alexc cache --json\n  alexc cache --clear"
    )]
    Cache {
        /// Remove all entries; the profile and the measured times of this machine stay
        #[arg(long)]
        clear: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  alexc completions bash > ~/.local/share/bash-completion/completions/alexc"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum DataCommand {
    /// Write a folder tree of JPEG files of drawn classes, `train/` and `val/`
    #[command(after_help = "Example:\n  alexc data synth data/shapes --classes 10 --per-class 400 --size 40")]
    Synth {
        /// The folder to make
        dir: PathBuf,
        /// Classes, which differ in shape and texture
        #[arg(long, default_value_t = 10)]
        classes: usize,
        /// Training images a class
        #[arg(long, default_value_t = 400)]
        per_class: usize,
        /// Validation images a class; a quarter of the training images if not given
        #[arg(long)]
        val_per_class: Option<usize>,
        /// Height and width in pixels
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// Of everything that varies
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
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
    /// What one run does; `train` also compiles the program to evaluate with
    #[arg(long, value_enum, default_value = "infer")]
    mode: ModeArg,
    /// The artifact to write; without, the model's name with .alx, or none if stages are shown
    #[arg(short = 'o', long = "output", value_name = "OUT.alx")]
    output: Option<PathBuf>,
    /// The processor (cpu: this one; avx2, avx512: any x86-64 that has it) or GPU; without, what --devices names
    #[arg(long, value_parser = ["cpu", "avx2", "avx512", "sm_80", "sm_90", "sm_90a", "sm_100"])]
    target: Option<String>,
    /// Take conformance cases along, for `alexrun check`: every kernel alone and the program as a whole
    #[arg(long)]
    with_cases: bool,
    /// Show a stage, on stdout or in a file: graph, optimized, dot, program, mlir, llvm, ptx, asm, plan, costs
    #[arg(long, value_name = "STAGE[=FILE]")]
    emit: Vec<EmitTo>,
}

/// Samples of one run where nothing says otherwise and images are many.
const EVALUATION_BATCH: usize = 64;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    runtime::files::let_limits_be_errors();
    runtime::cli::exit(run(Arguments::parse().command))
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Compile(args) => run_compile(&args),
        Command::Check { model, output } => run_check(&model, output),
        Command::Fmt { model } => {
            let text = runtime::files::read_text(&model, crate::compile::MODEL_BYTES)?;
            let formatted = ir::text::format(&text, &model.display().to_string())
                .map_err(|mistakes| Error::Report(ir::text::render(&mistakes, &text, colour())))?;
            print(formatted.trim_end())
        }
        Command::Init { model, seed, output } => run_init(&model, seed, &output),
        Command::Run { model, args, dropout } => run_run(&model, &args, dropout),
        Command::Train { model, args } => {
            let recipe = args.recipe(model.recipe.as_deref(), model.batch(), || model.own_recipe())?;
            let batch = recipe.train.batch;
            let output = model.compile(&[Mode::Infer, Mode::Train], batch, recipe.clone())?;
            args.run(output.artifact, recipe, model.devices.parse()?)
        }
        Command::Eval { model, args } => {
            let recipe = model.recipe()?;
            let batch = model.batch().unwrap_or(EVALUATION_BATCH);
            let output = model.compile(&[Mode::Infer], batch, recipe.clone())?;
            args.run(&output.artifact, &recipe.data, &model.devices.parse()?)
        }
        Command::Predict { model, args } => {
            let recipe = model.recipe()?;
            let output = model.compile(&[Mode::Infer], model.batch().unwrap_or(1), recipe.clone())?;
            args.run(&output.artifact, &recipe.data, &model.devices.parse()?)
        }
        Command::Bench { model, mode, args } => {
            let (mode, recipe) = (Mode::from(mode), model.recipe()?);
            let usual = if mode == Mode::Train {
                recipe.train.batch
            } else {
                1
            };
            let output = model.compile(&[mode], model.batch().unwrap_or(usual), recipe)?;
            args.run(&output.artifact, &model.devices.parse()?, mode, Some(output.time))
        }
        Command::Data(DataCommand::Synth {
            dir,
            classes,
            per_class,
            val_per_class,
            size,
            seed,
        }) => {
            let val_per_class = val_per_class.unwrap_or(per_class.div_ceil(4));
            synth(
                &dir,
                &SynthOptions {
                    classes,
                    per_class,
                    val_per_class,
                    size,
                    seed,
                },
            )?;
            Ok(())
        }
        Command::Explain {
            model,
            mode,
            node,
            output,
        } => crate::explain::command(&model, mode.into(), node.as_deref(), output),
        Command::Tune { model, mode, output } => crate::tune::command(&model, mode.into(), output),
        Command::Devices {
            calibrate: true,
            file,
            output,
        } => crate::calibrate::command(file, output),
        Command::Devices { output, .. } => crate::peak::report(output),
        Command::Peaks {
            target,
            small,
            output,
        } => {
            let target = GpuTarget::from_name(&target).expect("clap lets only known names through");
            crate::gpu_peak::artifact(&target, small)?.write(&output)
        }
        Command::Cache { clear, output } => crate::cache::command::command(clear, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "alexc", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

fn run_compile(args: &CompileArgs) -> Result<(), Error> {
    // Any core can run the kernels, maybe of another machine; a device of no known kind is a mistake all the same.
    args.model.devices.parse()?;
    let (mode, recipe) = (Mode::from(args.mode), args.model.recipe()?);
    let usual = if mode == Mode::Train {
        recipe.train.batch
    } else {
        1
    };
    let request = Request {
        modes: if mode == Mode::Train {
            vec![Mode::Infer, Mode::Train]
        } else {
            vec![mode]
        },
        batch: args.model.batch().unwrap_or(usual),
        recipe,
        dropout: false,
        opt_level: args.model.opt_level,
        targets: args.model.targets(args.target.as_deref())?,
        splits: args.model.splits(),
        with_cases: args.with_cases,
        emit: args.emit.iter().map(|e| e.stage).collect(),
    };
    let output = args.model.compile_as(&request)?;
    Console::stderr().say(&match &output.times {
        Some(times) => times.text(),
        None => format!("compiled before: read from the cache in {:.1} ms", output.time.ms),
    });
    for emit in &args.emit {
        let text = &output.emitted[&emit.stage];
        match &emit.file {
            None => print(text.trim_end())?,
            Some(path) => runtime::files::write_bytes(path, text.as_bytes())?,
        }
    }
    let path = match (&args.output, args.emit.is_empty()) {
        (Some(path), _) => path.clone(),
        (None, true) => args.model.model.with_extension("alx"),
        (None, false) => return Ok(()),
    };
    output.artifact.write(&path)?;
    let seconds = output.time.ms / 1e3;
    let cached = if output.time.cached {
        ", from the cache"
    } else {
        ""
    };
    Console::stderr().say(&format!("wrote {} ({seconds:.1} s{cached})", path.display()));
    Ok(())
}

fn run_check(path: &Path, output: OutputArgs) -> Result<(), Error> {
    let model = Model::read(path, colour())?;
    let layers = ir::count::layers(&model.graph).map_err(|error| Error::input(error.to_string()))?;
    let parameters: u64 = layers.iter().map(|l| l.parameters).sum();
    let multiply_adds: u64 = layers.iter().map(|l| l.multiply_adds).sum();
    let report = serde_json::json!({
        "model": model.graph.name(), "nodes": model.graph.len(),
        "parameters": parameters, "multiply_adds": multiply_adds,
    });
    let name = path.display();
    output.print(&report, || {
        format!("{name}: sound; {parameters} parameters, {multiply_adds} multiply-adds a sample")
    })
}

fn run_init(path: &Path, seed: u64, output: &Path) -> Result<(), Error> {
    let model = Model::read(path, colour())?;
    let tensors = runtime::weights::initial(&crate::compile::initial_values(&model.graph), seed)?;
    TensorFile {
        tensors: tensors.into_iter().collect(),
        ..TensorFile::default()
    }
    .write(output)
}

fn run_run(model: &ModelArgs, args: &RunArgs, dropout: bool) -> Result<(), Error> {
    let inputs = TensorFile::read(&args.inputs)?;
    let first = inputs
        .tensors
        .values()
        .find_map(|tensor| tensor.shape().first().copied());
    let batch = model.batch().or(first).unwrap_or(1).max(1);
    let request = Request {
        modes: vec![if args.grads { Mode::Gradients } else { Mode::Infer }],
        batch,
        recipe: model.recipe()?,
        dropout,
        opt_level: model.opt_level,
        targets: model.targets(None)?,
        splits: model.splits(),
        with_cases: false,
        emit: vec![],
    };
    args.run(&model.compile_as(&request)?.artifact, &model.devices.parse()?)
}
