//! Which profile and which measured times a compilation counts with, and what its launches then cost.

use crate::cache::folder::cache_folder;
use crate::kernel_times;
use clap::Args;
use codegen::bridge::HostTarget;
use codegen::{CompiledProgram, Target};
use ir::plan::Plan;
use ir::profile::{CpuClass, Precision, Profile, SHIPPED};
use ir::program::Program;
use passes::cost::{Candidate, Costs, KernelCost, KernelTimes, makespan};
use runtime::console::Console;
use runtime::device::cpu::Cores;
use runtime::{DeviceSpec, Error, files};
use std::path::{Path, PathBuf};

/// The largest profile file accepted.
const PROFILE_BYTES: u64 = 1 << 20;

/// Flags that say what costs are computed from.
#[derive(Args, Clone, Debug, Default)]
pub struct CostArgs {
    /// The device that costs are computed for: cpu-avx2, cpu-avx512, cpu-amx, gtx580, h200 or a file, as alexc devices
    /// --calibrate writes it
    #[arg(long, value_name = "FILE|NAME")]
    pub profile: Option<String>,
    /// The file of measured kernel times; without, the one in the cache folder
    #[arg(long, value_name = "FILE")]
    pub kernel_times: Option<PathBuf>,
}

/// What costs of one device are computed from.
#[derive(Clone, Debug)]
pub struct DeviceCosts {
    /// Its limits.
    pub profile: Profile,
    /// What its kernels were measured to take.
    pub times: KernelTimes,
    /// Whether programs are refused that need more memory than the profile has: one that was asked for by name.
    pub is_limit: bool,
}

impl DeviceCosts {
    /// Costs with a precision of contractions.
    pub fn costs(&self, precision: Precision) -> Costs<'_> {
        Costs {
            profile: &self.profile,
            precision,
            times: Some(&self.times),
        }
    }
}

impl CostArgs {
    /// Of each device: the profile that is named, or its usual one; with the times measured there.
    pub fn choose(&self, devices: &[DeviceSpec], targets: &[Target]) -> Result<Vec<DeviceCosts>, Error> {
        let named = self.profile.as_deref().map(read_named).transpose()?;
        let cache = match kernel_times::path(self.kernel_times.as_deref()) {
            Some(path) => kernel_times::read_or_warn(&path),
            None => kernel_times::Cache::default(),
        };
        // Times of this machine are none of another's.
        let here = named.as_ref().is_none_or(|named| named.name == machine());
        let profiles = profiles(named, devices, targets)?;
        let of_device = |((profile, device), target): ((Profile, &DeviceSpec), &Target)| {
            let here = here && device.code() == target.code() && is_of_here(target);
            let name = device_name(device)?.filter(|_| here);
            let times = name.map(|name| cache.times(&name)).unwrap_or_default();
            Ok(DeviceCosts {
                profile,
                times,
                is_limit: self.profile.is_some(),
            })
        };
        profiles
            .into_iter()
            .zip(devices)
            .zip(targets)
            .map(of_device)
            .collect()
    }
}

/// Whether code for a target is what this machine's processor gets where no target is named; GPUs are not looked at.
fn is_of_here(target: &Target) -> bool {
    match target {
        Target::Host(host) => *host == HostTarget::native(),
        Target::Gpu(..) => true,
    }
}

/// The profile that costs of a processor are computed from, where none is named.
#[derive(Clone, Debug)]
pub struct UsualProfile {
    /// Its figures.
    pub profile: Profile,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// This machine was calibrated: the file.
    Calibrated(PathBuf),
    /// It ships for a class of processors.
    Shipped(CpuClass),
}

impl UsualProfile {
    /// The profile for a processor: the calibrated one of this machine if the code is for it, or that of the target's class.
    pub fn of(host: &HostTarget) -> UsualProfile {
        let is_native = *host == HostTarget::native();
        if let Some((profile, file)) = is_native.then(calibrated).flatten() {
            return UsualProfile {
                profile,
                origin: Origin::Calibrated(file),
            };
        }
        let class = CpuClass::of_features(&host.features);
        UsualProfile {
            profile: class.profile(),
            origin: Origin::Shipped(class),
        }
    }
}

/// The profile of each device: the one named, or the calibrated one of this machine, or a shipped one of its kind. Cores of
/// one processor share what they have.
fn profiles(
    named: Option<Profile>,
    devices: &[DeviceSpec],
    targets: &[Target],
) -> Result<Vec<Profile>, Error> {
    let shipped = |name: &str| Profile::shipped(name).expect("the profile of this name ships");
    let mut profiles = vec![];
    let mut counts = vec![];
    for (device, target) in devices.iter().zip(targets) {
        let profile = match (&named, device, target) {
            (Some(named), ..) => named.clone(),
            (None, DeviceSpec::Cpu(_), Target::Host(host)) => UsualProfile::of(host).profile,
            _ => shipped("h200"),
        };
        counts.push(match device {
            DeviceSpec::Cpu(cores) if profile.gpu.is_none() => match (cores, &named) {
                (Cores::All, Some(named)) => named.units,
                (_, Some(named)) => core_count(cores)?.min(named.units),
                (_, None) => core_count(cores)?,
            },
            _ => 0,
        });
        profiles.push(profile);
    }
    let busy = counts.iter().sum();
    let parts = profiles
        .into_iter()
        .zip(&counts)
        .map(|(profile, &count)| match count {
            0 => profile,
            _ => profile.part(count, busy),
        });
    Ok(parts.collect())
}

fn read_named(name: &str) -> Result<Profile, Error> {
    if let Some(profile) = Profile::shipped(name) {
        return Ok(profile);
    }
    let path = Path::new(name);
    if !path.exists() {
        let known: Vec<&str> = SHIPPED.iter().map(|(known, _)| *known).collect();
        return Err(Error::input(format!(
            "--profile {name}: no profile has this name ({}), and no file is there; check it, or measure this machine \
             with alexc devices --calibrate",
            known.join(", ")
        )));
    }
    let remedy = "correct the file, or measure this machine with alexc devices --calibrate";
    read_profile(path).map_err(|error| Error::input(format!("{error}; {remedy}")))
}

/// Reads a profile file.
pub fn read_profile(path: &Path) -> Result<Profile, Error> {
    let text = files::read_text(path, PROFILE_BYTES)?;
    Profile::parse(&text).map_err(|error| Error::input(format!("{}: {error}", path.display())))
}

/// Writes a profile file, atomically, and makes its folder.
pub fn write_profile(profile: &Profile, path: &Path) -> Result<(), Error> {
    if let Some(problem) = profile.problem() {
        return Err(Error::work(format!(
            "what was measured contradicts itself: {problem}; close other programs and measure again"
        )));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::writing(folder, &error))?;
    }
    files::write_bytes(path, profile.to_toml().as_bytes())
}

/// Where the profile of this machine is kept.
pub fn calibrated_path() -> Option<PathBuf> {
    cache_folder().map(|folder| folder.join("cpu.toml"))
}

/// The calibrated profile of this machine, and its file. One that cannot be read is said and left out.
fn calibrated() -> Option<(Profile, PathBuf)> {
    let path = calibrated_path().filter(|path| path.exists())?;
    match read_profile(&path) {
        Ok(profile) => (profile.name == machine()).then_some((profile, path)),
        Err(error) => {
            let remedy = "it is ignored; write it again with alexc devices --calibrate";
            Console::stderr().warn(&format!("{error}; {remedy}"));
            None
        }
    }
}

/// The name of this machine's processor: under it profiles and times are kept.
pub fn machine() -> String {
    let host = HostTarget::native();
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("processor", |(_, name)| name.trim());
    format!("{model} ({}, {} lanes)", host.cpu, host.lanes)
}

/// The name that times of a device are kept under; `None` for the emulator, whose time is nobody's.
pub fn device_name(device: &DeviceSpec) -> Result<Option<String>, Error> {
    Ok(match device {
        DeviceSpec::Cpu(cores) => {
            let count = core_count(cores)?;
            Some(format!("{}, {count} cores", machine()))
        }
        DeviceSpec::Cuda(number) => {
            let gpus = runtime::device::cuda::driver::all().unwrap_or_default();
            let gpu = gpus.into_iter().find(|gpu| gpu.number == *number);
            gpu.map(|gpu| gpu.name.clone())
        }
        DeviceSpec::Sim(_) => None,
    })
}

/// How many cores are meant; those named may be another machine's.
fn core_count(cores: &Cores) -> Result<u32, Error> {
    Ok(match *cores {
        Cores::All => cores.resolve()?.cores.len() as u32,
        Cores::Range { first, last } => u32::try_from(last - first).unwrap_or(u32::MAX - 1) + 1,
    })
}

/// The precision of a target's contractions.
pub fn precision(target: &Target) -> Precision {
    match target {
        Target::Host(_) => Precision::F32,
        Target::Gpu(_, precision) => *precision,
    }
}

/// What a search counts with, one a device.
pub fn of_devices<'a>(devices: &'a [DeviceCosts], targets: &[Target]) -> Vec<Costs<'a>> {
    let devices = devices.iter().zip(targets);
    devices
        .map(|(device, target)| device.costs(precision(target)))
        .collect()
}

/// The same where no device is named: by the profile that ships for its kind.
pub fn shipped(targets: &[Target]) -> Vec<Costs<'static>> {
    let of = |target: &Target| Costs {
        precision: precision(target),
        ..passes::cost::shipped(crate::compile::machine(target))[0]
    };
    targets.iter().map(of).collect()
}

/// What a program costs.
#[derive(Clone, Debug)]
pub struct ProgramCosts {
    /// One a launch of a step, in the plan's order.
    pub launches: Vec<KernelCost>,
    /// A whole step on its devices.
    pub step_us: f64,
}

/// Computes what a program costs on its devices.
pub fn of_program(program: &Program, compiled: &CompiledProgram, devices: &[Costs]) -> ProgramCosts {
    let first = compiled.plan.prepack.len();
    // What adds the parts of a kernel is counted with the kernel.
    let mut launches = vec![KernelCost::default(); compiled.plan.step.len()];
    let calls = program.kernels.iter().zip(&compiled.calls);
    for (call, micro_batches) in calls.filter(|(call, _)| !call.prepack) {
        let costs = &devices[program.device_of(call).0];
        let candidate = Candidate::of(program, call);
        let cost = match program.is_transfer(call) {
            true => {
                let from = program.value(call.operands[0]).device;
                costs.transfer(candidate.operands[0].bytes(), &devices[from.0])
            }
            false => costs.kernel(&candidate),
        };
        for micro_batch in micro_batches {
            launches[micro_batch.launches[0] - first] = cost.clone();
            for (&position, padding) in micro_batch.paddings.iter().zip(costs.paddings(&candidate)) {
                launches[position - first] = padding;
            }
        }
    }
    ProgramCosts {
        launches,
        step_us: makespan(program, devices).us,
    }
}

/// The table of `--emit costs`: JSON with a launch a line, its columns aligned.
pub fn table(plan: &Plan, costs: &ProgramCosts) -> String {
    let rows = plan.step.iter().zip(&costs.launches).map(|(launch, cost)| {
        let kernel = launch.kernel_position().map(|kernel| &plan.kernels[kernel]);
        let (flops, tasks) = kernel.map_or((0, 0), |kernel| (kernel.flops, kernel.tasks));
        let bound = match cost.predicted_us() > 0.0 {
            true => cost.bound().name(),
            false => "none",
        };
        let measured = cost
            .measured_us
            .map_or("null".to_string(), |us| format!("{us:.1}"));
        let label = serde_json::Value::from(&launch.label[..]);
        format!(
            "  {{\"predicted_us\": {:11.1}, \"measured_us\": {measured:>11}, \"bound\": {:9}, \
             \"compute_us\": {:11.1}, \"memory_us\": {:11.1}, \"operations\": {:15.0}, \"flops\": {:15}, \
             \"bytes\": {:12.0}, \"tasks\": {:7}, \"device\": {}, \"label\": {label}}}",
            cost.predicted_us(),
            format!("\"{bound}\""),
            cost.compute_us,
            cost.memory_us,
            cost.operations,
            flops,
            cost.bytes,
            tasks,
            launch.device,
        )
    });
    format!("[\n{}\n]\n", rows.collect::<Vec<_>>().join(",\n"))
}
