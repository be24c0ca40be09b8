//! The host's processor: buffers in huge pages where they are large, kernels from a host shared object, tasks
//! spread over a pool of pinned threads.

mod cores;
mod library;
mod memory;
mod pool;

pub use cores::{Cores, HOST_ARCH, host_features, missing_features};
pub use memory::available_bytes;

use super::cuda::driver::Gpu;
use super::sim::counts::Counts;
use super::{BufferId, Device, LaunchId, PeerBuffer};
use crate::Error;
use crate::artifact::{Compiled, HostObject};
use ir::plan::{Allocation, Command, CommandKind, CompiledKernel, Plan};
use library::Library;
use memory::Mapping;
use pool::{Invocation, Pool};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The processor, opened for one program.
pub struct Cpu {
    name: String,
    memory: u64,
    pool: Pool,
    /// The memory of every buffer of the plan; null and empty for buffers of other devices.
    spans: Vec<Span>,
    /// One per launch of the plan; `None` for launches of other devices.
    invocations: Vec<Option<Invocation>>,
    // The invocations point into these two, so they live as long.
    mappings: Vec<Arc<Mapping>>,
    _library: Library,
}

// SAFETY: the raw pointers in `spans` and `invocations` point into `mappings` and `_library`, which the value owns
// and moves with it; nothing else refers to them, and all access goes through `&mut self`.
unsafe impl Send for Cpu {}

/// The memory of a buffer.
#[derive(Clone, Copy)]
struct Span {
    start: *mut u8,
    bytes: usize,
    /// The mapping that holds the buffer; a peer buffer keeps it.
    mapping: usize,
}

/// The peer buffer of this device.
struct HostPeerBuffer {
    span: Span,
    _mapping: Arc<Mapping>,
}

// SAFETY: it only reads, from memory that it keeps; that nobody writes there meanwhile is its readers' duty (see
// `PeerBuffer`).
unsafe impl Send for HostPeerBuffer {}
// SAFETY: as above.
unsafe impl Sync for HostPeerBuffer {}

impl PeerBuffer for HostPeerBuffer {
    fn read(&self, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.len() != self.span.bytes {
            let (found, expected) = (bytes.len(), self.span.bytes);
            return Err(Error::work(format!(
                "a buffer of {expected} bytes was to fill {found}"
            )));
        }
        // SAFETY: the span has these bytes, initialised since it was allocated, and `bytes` is memory that others cannot
        // name; nobody writes there meanwhile, as `PeerBuffer` demands.
        unsafe { std::ptr::copy_nonoverlapping(self.span.start, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn on_gpu(&self) -> Option<(&Gpu, u64)> {
        None
    }
}

impl Cpu {
    /// Loads the kernels of `program` and allocates the buffers that its plan puts on device `position`.
    pub fn open(cores: &Cores, program: &Compiled, position: usize) -> Result<Cpu, Error> {
        let plan = &program.plan;
        plan.check().map_err(|error| Error::input(error.to_string()))?;
        let host = host_object(program)?;
        let chosen = cores.resolve()?;
        let memory = memory::available_bytes();
        let (mappings, spans) = allocate(plan, position, memory)?;
        let library = Library::load(&host.code)?;
        let invocations = plan
            .prepack
            .iter()
            .chain(&plan.step)
            .map(|launch| match &launch.work {
                CommandKind::Kernel { kernel, .. } if launch.device == position => {
                    resolve(&plan.kernels[*kernel], launch, &library, &spans).map(Some)
                }
                _ => Ok(None),
            });
        let invocations = invocations.collect::<Result<Vec<_>, Error>>()?;
        let pool = Pool::start(&chosen)?;
        let name = format!("cpu{cores}");
        Ok(Cpu {
            name,
            memory,
            pool,
            spans,
            invocations,
            mappings,
            _library: library,
        })
    }

    fn span(&self, buffer: BufferId, bytes: usize) -> Result<Span, Error> {
        match self.spans.get(buffer.0) {
            Some(&span) if span.bytes >= bytes => Ok(span),
            Some(span) => Err(Error::work(format!(
                "buffer {} of {} has {} bytes; {bytes} were to be moved",
                buffer.0, self.name, span.bytes
            ))),
            None => Err(Error::work(format!("{} has no buffer {}", self.name, buffer.0))),
        }
    }
}

impl Device for Cpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> u64 {
        self.memory
    }

    fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<(), Error> {
        let span = self.span(buffer, bytes.len())?;
        // SAFETY: the span has at least these bytes, lies in memory of ours that `bytes` cannot overlap, and no
        // kernel runs, because launches end before `launch` returns.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), span.start, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, bytes: &mut [u8]) -> Result<(), Error> {
        let span = self.span(buffer, bytes.len())?;
        // SAFETY: as in `write`; the memory was zeroed when it was allocated, so every byte is initialised.
        unsafe { std::ptr::copy_nonoverlapping(span.start, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn fill(&mut self, buffer: BufferId, byte: u8) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        if span.bytes > 0 {
            // SAFETY: the whole span is ours and no kernel runs, as in `write`.
            unsafe { std::ptr::write_bytes(span.start, byte, span.bytes) };
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.pool.pin_caller();
        Ok(())
    }

    fn launch(&mut self, launch: LaunchId) -> Result<(), Error> {
        match self.invocations.get(launch.0) {
            Some(Some(invocation)) => {
                // SAFETY: `resolve` took the function from the library and the arguments from spans that are
                // as large as the plan's check demands; both live as long as `self`. That tasks are independent
                // and stay within the bytes they were promised is the compiler's contract for kernels.
                unsafe { self.pool.run(invocation) };
                Ok(())
            }
            _ => Err(Error::work(format!("{} has no launch {}", self.name, launch.0))),
        }
    }

    fn complete(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.pool.release_caller();
        Ok(())
    }

    fn shrink(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn peer_buffer(&self, buffer: BufferId) -> Result<Box<dyn PeerBuffer>, Error> {
        let span = self.span(buffer, 0)?;
        Ok(Box::new(HostPeerBuffer {
            span,
            _mapping: self.mappings[span.mapping].clone(),
        }))
    }

    fn copy_from_peer(&mut self, buffer: BufferId, from: &dyn PeerBuffer) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        if span.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the whole span is ours, initialised, and no kernel runs, as in `write`; other devices read it only when
        // nothing writes there, as `PeerBuffer` demands.
        from.read(unsafe { std::slice::from_raw_parts_mut(span.start, span.bytes) })
    }

    fn elapsed_ns(&mut self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    fn counts(&self) -> Option<&BTreeMap<String, Counts>> {
        None
    }
}

/// The code for this processor; refuses that for another before any of it is mapped.
fn host_object(program: &Compiled) -> Result<&HostObject, Error> {
    let Some(host) = &program.host else {
        return Err(Error::input(
            "the program has no kernels for the CPU; compile the model with --devices cpu".to_string(),
        ));
    };
    if host.arch != HOST_ARCH {
        return Err(Error::input(format!(
            "the kernels are for {} and this machine is {HOST_ARCH}; compile the model here",
            host.arch
        )));
    }
    let missing = missing_features(&host.features);
    if !missing.is_empty() {
        return Err(Error::input(format!(
            "the kernels need {}, which this processor has not; compile the model on this machine",
            missing.join(", ")
        )));
    }
    Ok(host)
}

/// The memory of every buffer on this device.
fn allocate(plan: &Plan, position: usize, memory: u64) -> Result<(Vec<Arc<Mapping>>, Vec<Span>), Error> {
    super::capacity::check(plan, position, memory, "this machine")?;
    let arena = plan.arena_bytes[position];
    let mapping = |bytes: u64, what: &str| {
        Mapping::zeroed(bytes as usize).map(Arc::new).map_err(|error| {
            Error::work(format!(
                "no memory for {what} ({bytes} bytes): {error}; use a smaller --batch"
            ))
        })
    };
    let mut mappings = vec![mapping(arena, "the arena")?];
    let arena_start = mappings[0].start();
    let mut spans = Vec::with_capacity(plan.buffers.len());
    for buffer in &plan.buffers {
        let bytes = buffer.bytes as usize;
        spans.push(match buffer.allocation {
            _ if buffer.device != position => Span {
                start: std::ptr::null_mut(),
                bytes: 0,
                mapping: 0,
            },
            Allocation::Dedicated => {
                mappings.push(mapping(buffer.bytes, &buffer.name)?);
                Span {
                    start: mappings[mappings.len() - 1].start(),
                    bytes,
                    mapping: mappings.len() - 1,
                }
            }
            // The plan's check keeps offset + bytes within the arena.
            Allocation::Arena(offset) => Span {
                start: arena_start.wrapping_add(offset as usize),
                bytes,
                mapping: 0,
            },
        });
    }
    Ok((mappings, spans))
}

/// A launch with its symbol and its buffers looked up.
fn resolve(
    kernel: &CompiledKernel,
    launch: &Command,
    library: &Library,
    spans: &[Span],
) -> Result<Invocation, Error> {
    let CompiledKernel { symbol, tasks, .. } = kernel;
    let tasks = i64::try_from(*tasks).map_err(|_| {
        Error::input(format!(
            "kernel {symbol} has {tasks} tasks, more than can be counted"
        ))
    })?;
    let arguments = launch
        .buffers()
        .iter()
        .map(|&buffer| spans[buffer].start)
        .collect();
    Ok(Invocation {
        function: library.kernel(symbol)?,
        arguments,
        tasks,
    })
}
