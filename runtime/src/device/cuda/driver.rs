//! The CUDA driver, devices and their contexts. The driver is loaded on first use, so that this program starts without one.

use crate::Error;
use cudarc::driver::{DriverError, result, sys};

/// The oldest supported driver, in the driver's own numbers: CUDA 12.0.
const OLDEST: i32 = 12000;

/// An open GPU. All users in this process share its primary context.
pub struct Gpu {
    /// The driver's number of it.
    pub number: u32,
    /// The maker's name.
    pub name: String,
    /// Compute capability, as (9, 0).
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub processors: i32,
    /// Bytes of its memory.
    pub memory: u64,
    /// The driver's version, as 12040.
    pub driver: i32,
    device: sys::CUdevice,
    pub(super) context: sys::CUcontext,
}

// SAFETY: the handles are names that the driver gives out; it may be called from any thread.
unsafe impl Send for Gpu {}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: `open` retained the context once, and this is the one release. A failure leaves it to the process's end.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// The error for a failed driver call, with the operation that failed.
pub fn failed(doing: impl std::fmt::Display, error: DriverError) -> Error {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or("unknown".to_string(), |text| text.to_string_lossy().into_owned())
    };
    let (name, said) = (text(error.error_name()), text(error.error_string()));
    Error::work(format!(
        "{doing}: the driver says {said} ({name}). If another program uses the GPU, stop it; after a fault of a kernel, \
         start this program again"
    ))
}

/// Finds the driver; returns its version and how many GPUs it has.
fn find() -> Result<(i32, u32), Error> {
    // SAFETY: the library is the driver's, whose loading has no other effect.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::input(
            "no NVIDIA driver: libcuda.so is not found. Install the driver, or use --devices sim or --devices cpu",
        ));
    }
    let mut version = 0;
    // SAFETY: the pointer is to a number of ours; the function may be called before any other.
    let called = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    called.map_err(|error| failed("asking the driver for its version", error))?;
    if version < OLDEST {
        return Err(Error::input(format!(
            "the NVIDIA driver is too old: it is of CUDA {}, and CUDA {} is needed. Install a newer driver, or use \
             --devices sim or --devices cpu",
            dotted(version),
            dotted(OLDEST)
        )));
    }
    result::init().map_err(|error| {
        Error::input(format!(
            "{}, or use --devices sim or --devices cpu",
            failed("starting the NVIDIA driver", error)
        ))
    })?;
    let count = result::device::get_count().map_err(|error| failed("counting GPUs", error))?;
    Ok((version, count.max(0) as u32))
}

/// The usual form of a version: 12040 is 12.4.
pub fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Opens a GPU by the driver's number.
pub fn open(number: u32) -> Result<Gpu, Error> {
    let (driver, count) = find()?;
    if number >= count {
        let here = match count {
            0 => "no GPU".to_string(),
            1 => "one GPU, cuda:0".to_string(),
            _ => format!("{count} GPUs, cuda:0 to cuda:{}", count - 1),
        };
        return Err(Error::input(format!(
            "device cuda:{number}: there is {here}; use one that is there, or --devices sim"
        )));
    }
    let doing = format!("opening cuda:{number}");
    let fail = |error| failed(&doing, error);
    let device = result::device::get(number as i32).map_err(fail)?;
    let name = result::device::get_name(device).map_err(fail)?;
    use sys::CUdevice_attribute_enum as Attribute;
    // SAFETY: the device is one that the driver gave.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(fail);
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(fail)? as u64;
    // SAFETY: as above; `Gpu` releases it.
    let context = unsafe { result::primary_ctx::retain(device) }.map_err(fail)?;
    Ok(Gpu {
        number,
        name,
        capability,
        processors,
        memory,
        driver,
        device,
        context,
    })
}

/// Opens every GPU.
pub fn all() -> Result<Vec<Gpu>, Error> {
    let (_, count) = find()?;
    (0..count).map(open).collect()
}

impl Gpu {
    /// Makes this GPU current for the calling thread.
    pub fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }
            .map_err(|error| self.failed("entering the context", error))
    }

    /// A failed call, with the device's name.
    pub fn failed(&self, doing: impl std::fmt::Display, error: DriverError) -> Error {
        failed(format_args!("cuda:{}: {doing}", self.number), error)
    }

    /// Free bytes of memory.
    pub fn free_memory(&self) -> Result<u64, Error> {
        self.enter()?;
        let (free, _) =
            result::mem_get_info().map_err(|error| self.failed("asking for free memory", error))?;
        Ok(free as u64)
    }

    /// The architecture to generate code for: the newest known one that this GPU runs.
    pub fn architecture(&self) -> Result<&'static str, Error> {
        match self.capability {
            (9, 0) => Ok("sm_90a"),
            (major, _) if major >= 10 => Ok("sm_100"),
            (8, _) => Ok("sm_80"),
            _ => Err(self.too_old("sm_80")),
        }
    }

    /// Whether PTX for an architecture runs here. An `a` at its end ties it to one capability.
    pub fn runs(&self, target: &str) -> bool {
        let own = self.capability.0 * 10 + self.capability.1;
        let Some(digits) = target.strip_prefix("sm_") else {
            return false;
        };
        match digits.strip_suffix('a') {
            Some(exact) => exact.parse() == Ok(own),
            None => digits.parse().is_ok_and(|target: i32| target <= own),
        }
    }

    /// The error for a program without code for this GPU.
    pub fn too_old(&self, have: &str) -> Error {
        let (major, minor) = self.capability;
        Error::input(format!(
            "cuda:{} ({}) has compute capability {major}.{minor}, and the kernels are for {have}; compile the model for it \
             with --target sm_80 (8.0 and later is supported), or use --devices sim or --devices cpu",
            self.number, self.name
        ))
    }

    /// Copies device memory to another GPU, directly if peer access is possible, and waits for it.
    pub(super) fn copy_to(&self, from: u64, other: &Gpu, to: u64, bytes: usize) -> Result<(), Error> {
        self.enter()?;
        let mut reachable = 0;
        // SAFETY: both devices are open, and the pointer is to a number of ours.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&mut reachable, self.device, other.device) }.result();
        asked.map_err(|error| self.failed("asking for peer access", error))?;
        if reachable != 0 && self.number != other.number {
            // SAFETY: the other's context is retained. Access that was enabled before is not a failure.
            let enabled = unsafe { sys::cuCtxEnablePeerAccess(other.context, 0) };
            if enabled != sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED {
                let enabled = enabled.result();
                enabled.map_err(|error| self.failed("enabling peer access", error))?;
            }
        }
        let null = result::stream::null();
        // SAFETY: both ranges were allocated in these contexts with at least these bytes (the callers check).
        unsafe { result::memcpy_peer_async(other.context, to, self.context, from, bytes, null) }
            .map_err(|error| self.failed(format_args!("copying to cuda:{}", other.number), error))?;
        result::ctx::synchronize().map_err(|error| self.failed("waiting for a copy", error))
    }
}
