//! Devices hold the buffers of a plan and run its kernels.
//!
//! One file (or folder) per device. To add one: a variant of [`DeviceSpec`] with its spelling in
//! [`DeviceSpec::parse`], an implementation of [`Device`], and an arm in [`open`]. The executor knows only the
//! trait. `unsafe` of this crate lives below this module and nowhere else.

pub mod capacity;
pub mod cpu;
pub mod cuda;
pub mod ptx;
pub mod sim;

use crate::Error;
use crate::artifact::Compiled;
use ir::plan::{Command, Plan};
use std::collections::{BTreeMap, BTreeSet};

/// Position in [`ir::plan::Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// Position in the launches of a plan: those of `prepack`, then those of `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaunchId(pub usize);

/// A device that was opened for one program: it holds the program's buffers, zeroed at first, and its kernels.
///
/// Launches execute in the given order. A run may still execute after [`Device::end`], while the host prepares the next one.
/// Every other call waits for the run if it must: a read returns finished results, and a write affects later runs only. An
/// error in the run is returned by the call that waits for it.
pub trait Device: Send {
    /// The name as on the command line, as `cpu:0-3`.
    fn name(&self) -> String;

    /// Bytes of memory that programs may fill.
    fn memory(&self) -> u64;

    /// Copies `bytes` to the start of a buffer. A run that is executing still reads the old contents.
    fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<(), Error>;

    /// Copies the beginning of a buffer into `bytes`.
    fn read(&mut self, buffer: BufferId, bytes: &mut [u8]) -> Result<(), Error>;

    /// Sets every byte of a buffer.
    fn fill(&mut self, buffer: BufferId, byte: u8) -> Result<(), Error>;

    /// A run begins: launches follow, until [`Device::end`].
    fn begin(&mut self) -> Result<(), Error>;

    /// Starts a launch; it may still run when this returns.
    fn launch(&mut self, launch: LaunchId) -> Result<(), Error>;

    /// Waits for all launches and writes so far, so that other devices may read the results. It does not end the run.
    fn complete(&mut self) -> Result<(), Error>;

    /// Ends a run: all its launches are submitted when this returns, but may not be finished.
    fn end(&mut self) -> Result<(), Error>;

    /// Frees memory that only makes runs faster.
    fn shrink(&mut self) -> Result<(), Error>;

    /// The handle through which other devices copy a buffer, after [`Device::complete`].
    fn peer_buffer(&self, buffer: BufferId) -> Result<Box<dyn PeerBuffer>, Error>;

    /// Copies a buffer of another device into one of the same size, and waits for it.
    fn copy_from_peer(&mut self, buffer: BufferId, from: &dyn PeerBuffer) -> Result<(), Error>;

    /// Nanoseconds that the last run took by the device's own clock, if it has one; waits for the run.
    fn elapsed_ns(&mut self) -> Result<Option<u64>, Error>;

    /// The counts of each kernel so far, by symbol, if the device counts.
    fn counts(&self) -> Option<&BTreeMap<String, sim::counts::Counts>>;
}

/// A buffer that another device reads while its own device continues with other work. It keeps the memory alive.
///
/// Do not read it during a write. `Plan::check` proves that a wait separates every conflicting read and write; the executor
/// enforces these waits, and those at step boundaries.
pub trait PeerBuffer: Send + Sync {
    /// Copies all of it.
    fn read(&self, bytes: &mut [u8]) -> Result<(), Error>;

    /// Its address, if it is on a GPU.
    fn on_gpu(&self) -> Option<(&cuda::driver::Gpu, u64)>;
}

/// A device as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The host's processor, or some of its cores.
    Cpu(cpu::Cores),
    /// A GPU, by the driver's number.
    Cuda(u32),
    /// The emulator of a GPU; the number tells two of them apart.
    Sim(Option<u32>),
}

impl DeviceSpec {
    /// Reads `cpu`, `cpu:K`, `cpu:A-B`, `cuda` (as `cuda:0`), `cuda:K`, `sim` or `sim:K`.
    pub fn parse(text: &str) -> Result<DeviceSpec, Error> {
        let (kind, place) = match text.split_once(':') {
            Some((kind, place)) => (kind, Some(place)),
            None => (text, None),
        };
        match kind {
            "cpu" => Ok(DeviceSpec::Cpu(
                cpu::Cores::parse(place).map_err(|e| e.at(format!("device {text:?}")))?,
            )),
            "cuda" | "sim" => {
                let number = place.map(str::parse).transpose().map_err(|_| {
                    let place = place.unwrap_or_default();
                    Error::input(format!(
                        "device {text:?}: {place:?} is not a device number; use {kind} or {kind}:K, such as {kind}:0"
                    ))
                })?;
                Ok(match kind {
                    "cuda" => DeviceSpec::Cuda(number.unwrap_or(0)),
                    _ => DeviceSpec::Sim(number),
                })
            }
            _ => Err(Error::input(format!(
                "device {text:?}: no such kind of device; use cpu (all cores), cpu:K (one core), cpu:A-B, cuda:K \
                 (a GPU) or sim (its emulator)"
            ))),
        }
    }

    /// Reads devices separated by commas.
    pub fn parse_list(text: &str) -> Result<Vec<DeviceSpec>, Error> {
        text.split(',').map(|one| DeviceSpec::parse(one.trim())).collect()
    }

    /// The architecture to generate code for, of a device that runs PTX.
    pub fn architecture(&self) -> Result<&'static str, Error> {
        match self {
            DeviceSpec::Cpu(_) | DeviceSpec::Sim(_) => Ok("sm_90"),
            DeviceSpec::Cuda(number) => cuda::driver::open(*number)?.architecture(),
        }
    }

    /// The code that it runs, as plans name it.
    pub fn code(&self) -> &'static str {
        match self {
            DeviceSpec::Cpu(_) => ir::plan::CPU,
            DeviceSpec::Cuda(_) | DeviceSpec::Sim(_) => ir::plan::PTX,
        }
    }
}

impl std::fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            DeviceSpec::Cpu(cores) => write!(f, "cpu{cores}"),
            DeviceSpec::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceSpec::Sim(None) => write!(f, "sim"),
            DeviceSpec::Sim(Some(number)) => write!(f, "sim:{number}"),
        }
    }
}

/// The kernels that a device launches, by position in the plan.
fn kernels_of(plan: &Plan, position: usize) -> BTreeSet<usize> {
    let launches = plan.prepack.iter().chain(&plan.step);
    let here = launches.filter(|launch| launch.device == position);
    here.filter_map(Command::kernel_position).collect()
}

/// Opens a device for `program`, as the device at `position` of its plan. The plan has passed its check.
pub fn open(spec: &DeviceSpec, program: &Compiled, position: usize) -> Result<Box<dyn Device>, Error> {
    match spec {
        DeviceSpec::Cpu(cores) => Ok(Box::new(cpu::Cpu::open(cores, program, position)?)),
        DeviceSpec::Cuda(number) => Ok(Box::new(cuda::Cuda::open(*number, program, position)?)),
        DeviceSpec::Sim(_) => Ok(Box::new(sim::Sim::open(spec.to_string(), program, position)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpu::Cores;

    #[test]
    fn devices_are_read_and_printed() {
        for (text, cores) in [
            ("cpu", Cores::All),
            ("cpu:0", Cores::Range { first: 0, last: 0 }),
            ("cpu:0-1", Cores::Range { first: 0, last: 1 }),
        ] {
            let spec = DeviceSpec::parse(text).unwrap();
            assert_eq!(spec, DeviceSpec::Cpu(cores));
            assert_eq!(spec.to_string(), text);
        }
        for (text, printed) in [
            ("cuda", "cuda:0"),
            ("cuda:1", "cuda:1"),
            ("sim", "sim"),
            ("sim:2", "sim:2"),
        ] {
            assert_eq!(DeviceSpec::parse(text).unwrap().to_string(), printed);
        }
        assert_eq!(DeviceSpec::parse_list("cpu:0, cpu:1").unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_device_says_what_is() {
        for (text, part) in [
            ("gpu", "no such kind of device"),
            ("", "no such kind of device"),
            ("cuda:x", "cuda:0"),
            ("sim:-1", "sim:0"),
            ("cpu:", "cpu:K"),
            ("cpu:x", "cpu:K"),
            ("cpu:-1", "cpu:K"),
            ("cpu:3-1", "3 is after 1"),
            ("cpu:99999999999999999999", "cpu:K"),
        ] {
            let error = DeviceSpec::parse(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
