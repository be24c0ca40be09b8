//! Loads PTX, which the driver compiles to machine code. Modules stay loaded as long as the process lives, because a model's
//! programs are opened repeatedly. A module belongs to its GPU's context, which stays open with it.

use super::driver::{self, Gpu, dotted};
use crate::Error;
use crate::artifact::{Ptx, sha256};
use crate::device::ptx;
use cudarc::driver::{result, sys};
use ir::plan::CompiledKernel;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_void};
use std::sync::{Mutex, OnceLock};

/// A kernel of a module.
#[derive(Clone, Copy, Debug)]
pub struct Function(pub(super) sys::CUfunction);

/// Bytes of the driver's messages that are kept.
const LOG: usize = 8192;
/// Shared memory that a launch may ask for without telling the driver before (CUDA programming guide).
const DEFAULT_SHARED: u32 = 48 * 1024;

/// A module, and what keeps the context open that it is part of.
struct Module {
    handle: sys::CUmodule,
    _gpu: Gpu,
}

// SAFETY: the handle is a name that the driver gives out; it may be called from any thread.
unsafe impl Send for Module {}

/// Modules by device and text.
static LOADED: OnceLock<Mutex<HashMap<(u32, String), Module>>> = OnceLock::new();

/// The best of several PTX texts for a GPU.
pub fn choose<'p>(gpu: &Gpu, texts: &'p [Ptx]) -> Result<&'p Ptx, Error> {
    if texts.is_empty() {
        return Err(Error::input(
            "the program has no PTX; compile the model with --devices cuda:0 or --target sm_90",
        ));
    }
    let runs = texts.iter().filter(|ptx| gpu.runs(&ptx.target));
    let best = runs.max_by_key(|ptx| {
        let digits = ptx.target.trim_start_matches("sm_").trim_end_matches('a');
        (digits.parse::<u32>().unwrap_or(0), ptx.target.ends_with('a'))
    });
    best.ok_or_else(|| {
        let have: Vec<&str> = texts.iter().map(|ptx| &ptx.target[..]).collect();
        gpu.too_old(&have.join(", "))
    })
}

/// Loads a text, and checks that it has these kernels of a plan with as many parameters as they are passed. The kernels by
/// their positions.
pub fn load(
    gpu: &Gpu,
    text: &Ptx,
    plan: &[CompiledKernel],
    kernels: &BTreeSet<usize>,
) -> Result<HashMap<usize, Function>, Error> {
    let parsed =
        ptx::parse(&text.text).map_err(|error| Error::input(format!("{}.ptx: {error}", text.target)))?;
    for &kernel in kernels {
        let kernel = &plan[kernel];
        let entry = parsed.entries.iter().find(|entry| entry.name == kernel.symbol);
        let found = entry.map(|entry| entry.parameters.len());
        if found != Some(kernel.argument_bytes.len()) {
            return Err(Error::input(format!(
                "kernel {}: the PTX has {}, and the plan passes {} arguments; compile the model again",
                kernel.symbol,
                found.map_or("no such entry".to_string(), |n| format!("one of {n} parameters")),
                kernel.argument_bytes.len()
            )));
        }
    }
    gpu.enter()?;
    let key = (gpu.number, sha256(text.text.as_bytes()));
    let mut loaded = LOADED
        .get_or_init(Mutex::default)
        .lock()
        .expect("nothing panics while it loads a module");
    let module = match loaded.get(&key) {
        Some(module) => module.handle,
        None => {
            let handle = compile(gpu, &text.text, &parsed.version)?;
            let _gpu = driver::open(gpu.number)?;
            loaded.insert(key, Module { handle, _gpu });
            handle
        }
    };
    kernels
        .iter()
        .map(|&kernel| Ok((kernel, function(gpu, module, &plan[kernel])?)))
        .collect()
}

fn compile(gpu: &Gpu, text: &str, version: &str) -> Result<sys::CUmodule, Error> {
    let text =
        CString::new(text).map_err(|_| Error::input("the PTX has a byte 0; compile the model again"))?;
    let mut log = vec![0u8; LOG];
    use sys::CUjit_option_enum as Option;
    let mut options = [
        Option::CU_JIT_ERROR_LOG_BUFFER,
        Option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: the text ends with a 0; two options have two values, the first of which points to as many bytes as the
    // second says, and all live until the call is over.
    let made = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    made.result().map_err(|error| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(LOG);
        let said = String::from_utf8_lossy(&log[..end]).trim().to_string();
        let doing = format!(
            "making machine code of PTX {version} with a driver of CUDA {} ({said}); a newer driver may know it",
            dotted(gpu.driver)
        );
        gpu.failed(doing, error)
    })?;
    Ok(module)
}

fn function(gpu: &Gpu, module: sys::CUmodule, kernel: &CompiledKernel) -> Result<Function, Error> {
    let symbol = &kernel.symbol;
    let fail = |error| gpu.failed(format_args!("preparing kernel {symbol}"), error);
    let name = CString::new(&symbol[..]).expect("a plan's symbols are letters, digits and _");
    // SAFETY: modules are never unloaded, and their contexts never let go.
    let function = unsafe { result::module::get_function(module, name) }.map_err(fail)?;
    if kernel.shared_bytes > DEFAULT_SHARED {
        let which = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = kernel.shared_bytes as i32;
        // SAFETY: the function is of a module that stays loaded.
        unsafe { result::function::set_function_attribute(function, which, bytes) }.map_err(fail)?;
    }
    Ok(Function(function))
}
