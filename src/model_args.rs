//! The flags that say which model is compiled, for what, and how.

use crate::cache::{self, Cache, Description, Entry, Key};
use crate::compile::{Emitted, MODEL_BYTES, Model, Request, compile_and_report};
use crate::compile_times::CompileTimes;
use crate::costs::CostArgs;
use clap::Args;
use codegen::Target;
use codegen::bridge::{GpuTarget, HostTarget};
use codegen::gpu::Precision;
use ir::plan::Mode;
use passes::Splits;
use runtime::bench::CompileTime;
use runtime::cli::DeviceArgs;
use runtime::console::Console;
use runtime::recipe::Recipe;
use runtime::{Artifact, Error};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

/// The model and how it is compiled.
#[derive(Args, Clone)]
pub struct ModelArgs {
    /// The model (.ir)
    pub model: PathBuf,
    /// Samples of one run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub batch: Option<u64>,
    /// The recipe (.toml); without, the one beside the model
    #[arg(long, value_name = "R.toml")]
    pub recipe: Option<PathBuf>,
    /// How far to optimise: 0 is one kernel an operation
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub opt_level: u8,
    /// The arithmetic of contractions
    #[arg(long, default_value = "f32", value_parser = ["f32", "tf32", "bf16"])]
    pub precision: String,
    /// How kernels may be split between two devices: also along the batch, or by channels and layers only
    #[arg(long, default_value = "all", value_parser = ["all", "without-batch"])]
    pub splits: String,
    /// Where it will run.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// What costs are computed from.
    #[command(flatten)]
    pub costs: CostArgs,
    /// Compile anew, and keep nothing (see alexc cache)
    #[arg(long)]
    pub no_cache: bool,
}

/// Devices of a program at the most.
const MAX_DEVICES: usize = 2;

/// Whether messages may be coloured.
pub fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal()
}

/// What a model was compiled to.
pub struct Output {
    /// The artifact.
    pub artifact: Artifact,
    /// Stages that were asked for.
    pub emitted: Emitted,
    /// What compiling took, or finding what was compiled before.
    pub time: CompileTime,
    /// The parts of compiling; none if it was compiled before.
    pub times: Option<CompileTimes>,
}

impl ModelArgs {
    /// Samples of one run, if they were given.
    pub fn batch(&self) -> Option<usize> {
        self.batch.map(|batch| batch as usize)
    }

    /// How kernels may be split between two devices.
    pub fn splits(&self) -> Splits {
        match &self.splits[..] {
            "without-batch" => Splits::WithoutBatch,
            _ => Splits::All,
        }
    }

    /// The recipe that was named, or the model's own.
    pub fn recipe(&self) -> Result<Recipe, Error> {
        match &self.recipe {
            Some(path) => Recipe::read(path),
            None => self.own_recipe(),
        }
    }

    /// The recipe beside the model, or the usual one.
    pub fn own_recipe(&self) -> Result<Recipe, Error> {
        Recipe::beside(&self.model).map_or_else(|| Ok(Recipe::default()), |path| Recipe::read(&path))
    }

    /// Compiles the model for these modes.
    pub fn compile(&self, modes: &[Mode], batch: usize, recipe: Recipe) -> Result<Output, Error> {
        self.compile_as(&self.request(modes.to_vec(), batch, recipe)?)
    }

    /// What these flags ask for: no conformance cases, no stages shown.
    fn request(&self, modes: Vec<Mode>, batch: usize, recipe: Recipe) -> Result<Request, Error> {
        Ok(Request {
            modes,
            batch,
            recipe,
            dropout: false,
            opt_level: self.opt_level,
            targets: self.targets(None)?,
            splits: self.splits(),
            with_cases: false,
            emit: vec![],
        })
    }

    /// The same for one mode: training at the recipe's batch, all else at one sample, unless a batch was given.
    pub fn request_for(&self, mode: Mode) -> Result<Request, Error> {
        let recipe = self.recipe()?;
        let usual = match mode {
            Mode::Train => recipe.train.batch,
            Mode::Infer | Mode::Gradients => 1,
        };
        self.request(vec![mode], self.batch().unwrap_or(usual), recipe)
    }

    /// What to generate code for, one target a device: what the devices run; a name stands for those of its kind.
    pub fn targets(&self, name: Option<&str>) -> Result<Vec<Target>, Error> {
        let devices = self.devices.parse()?;
        if devices.len() > MAX_DEVICES {
            return Err(Error::input(format!(
                "--devices {}: a program runs on {MAX_DEVICES} devices at the most; name fewer, or ranges of cores as cpu:0-3",
                self.devices.devices
            )));
        }
        let precision = Precision::from_name(&self.precision).expect("clap lets only known names through");
        let named = |name: &str| match (name, GpuTarget::from_name(name)) {
            (_, Some(gpu)) => Target::Gpu(gpu, precision),
            ("avx2", _) => Target::Host(HostTarget::avx2()),
            ("avx512", _) => Target::Host(HostTarget::avx512()),
            _ => Target::Host(HostTarget::native()),
        };
        let mut targets = vec![];
        for device in &devices {
            let is_its_kind = |target: &Target| devices.len() == 1 || target.code() == device.code();
            let target = match name.map(named).filter(is_its_kind) {
                Some(target) => target,
                None if device.code() == ir::plan::PTX => named(device.architecture()?),
                None => named("cpu"),
            };
            targets.push(target);
        }
        let is_gpu = |target: &Target| matches!(target, Target::Gpu(..));
        if precision != Precision::F32 && !targets.iter().any(is_gpu) {
            return Err(Error::input(format!(
                "--precision {}: processors compute in f32; use it with --devices cuda:0 or sim, or with --target sm_90",
                self.precision
            )));
        }
        let mut gpus = targets.iter().filter(|target| is_gpu(target));
        let first = gpus.next();
        if gpus.any(|other| Some(other) != first) {
            return Err(Error::input(format!(
                "--devices {}: these GPUs are of different architectures; name one that both run, as --target sm_80",
                self.devices.devices
            )));
        }
        Ok(targets)
    }

    /// Compiles the model as requested, and computes what it costs; or finds in the cache what was compiled before.
    pub fn compile_as(&self, request: &Request) -> Result<Output, Error> {
        let begin = Instant::now();
        let milliseconds = || begin.elapsed().as_secs_f64() * 1e3;
        let text = runtime::files::read_text(&self.model, MODEL_BYTES)?;
        let costs = self.costs.choose(&self.devices.parse()?, &request.targets)?;
        // Stages and cases are not kept.
        let cache = match self.no_cache || request.with_cases || !request.emit.is_empty() {
            true => Cache::none(),
            false => Cache::open()?,
        };
        let key = Key::of(&cache::key::build(), &text, request, &costs);
        if let Some(mut found) = cache.find(&key).filter(|found| found.artifact.model == text) {
            if found.artifact.recipe.is_some() {
                found.artifact.recipe = Some(request.recipe.to_toml()?);
            }
            for warning in &found.description.warnings {
                let remedy = "it was compiled before; --no-cache compiles it again";
                Console::stderr().warn(&format!("{warning} ({remedy})"));
            }
            return Ok(Output {
                artifact: found.artifact,
                emitted: Emitted::new(),
                time: CompileTime {
                    ms: milliseconds(),
                    cached: true,
                },
                times: None,
            });
        }
        let model = Model::parse(text, &self.model, colour())?;
        let mut warnings = vec![];
        let mut times = CompileTimes::default();
        let (artifact, emitted) = compile_and_report(&model, request, &costs, &mut times, &mut |warning| {
            Console::stderr().warn(warning);
            warnings.push(warning.to_string());
        })?;
        let ms = milliseconds();
        times.total = ms / 1e3;
        let description = Description::new(&artifact.name, request, ms, warnings);
        let entry = Entry {
            description,
            artifact,
        };
        cache.store(&key, &entry);
        Ok(Output {
            artifact: entry.artifact,
            emitted,
            time: CompileTime { ms, cached: false },
            times: Some(times),
        })
    }
}
