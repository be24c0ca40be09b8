//! NVIDIA GPUs, through the CUDA driver API, which is loaded on first use.
//!
//! | module | what it does |
//! |---|---|
//! | [`driver`] | finds the driver; devices, their contexts, copies between two of them |
//! | [`memory`] | allocations, streams, events, pinned staging buffers |
//! | [`module`] | PTX to machine code, by the driver |
//! | [`peer_buffer`] | handles through which other devices copy buffers |
//! | [`shadow`] | double-buffered inputs, which are written while a run is under way |
//!
//! One allocation holds the arena of a plan, and one everything else. The first run of a sequence of launches executes kernel
//! by kernel, so that a fault names its kernel. The second run records a CUDA graph, which later runs replay.
//!
//! A launched graph executes until a call waits for it: a read of memory, a write to memory that is not an input, or the start
//! of another run. Inputs that are written meanwhile go to shadow buffers. After the wait, the copy stream commits them before
//! any other copy.

pub mod driver;
mod memory;
mod module;
mod peer_buffer;
mod shadow;

use super::sim::counts::Counts;
use super::{BufferId, Device, LaunchId, PeerBuffer};
use crate::Error;
use crate::artifact::Compiled;
use cudarc::driver::{result, sys};
use driver::Gpu;
use ir::plan::{Allocation, Plan};
use memory::{DeviceMemory, Event, Staging, Stream};
use module::Function;
use peer_buffer::CudaPeerBuffer;
use shadow::ShadowBuffers;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;

/// Bytes that buffers within an allocation are aligned to.
const ALIGN: u64 = 256;
/// The maximum number of blocks and threads of a launch (CUDA programming guide, technical specifications).
const MAX_BLOCKS: u64 = (1 << 31) - 1;
const MAX_THREADS: u32 = 1024;

/// A GPU, opened for one program.
pub struct Cuda {
    // The fields below are freed before the GPU is released.
    graphs: HashMap<Vec<usize>, Sequence>,
    launches: Vec<Option<ReadyLaunch>>,
    spans: Vec<Option<Span>>,
    staging: Staging,
    shadows: ShadowBuffers,
    stream: Stream,
    /// Around the launches of a run.
    clock: (Event, Event),
    elapsed_ns: Option<u64>,
    _allocations: Vec<DeviceMemory>,
    /// Launches of the run that began.
    begun: Vec<usize>,
    /// The number of launches that are executing. It stays set after a failure, so that every later call fails too.
    under_way: Option<usize>,
    gpu: Gpu,
}

/// The memory of a buffer.
#[derive(Clone, Copy)]
struct Span {
    address: u64,
    bytes: usize,
}

/// A launch with its function, arguments and sizes.
struct ReadyLaunch {
    label: String,
    kernel: String,
    function: Function,
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    arguments: Vec<u64>,
}

/// A sequence of launches that has run.
enum Sequence {
    /// Once, kernel by kernel.
    Known,
    /// As a graph.
    Recorded(Graph),
}

/// A graph that can be launched.
struct Graph(sys::CUgraphExec);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated by `record`, destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

// SAFETY: handles of the driver may be used from any thread; everything goes through `&mut self`.
unsafe impl Send for Cuda {}

impl Cuda {
    /// Loads the kernels of `program` and allocates the buffers that its plan puts on device `position`.
    pub fn open(number: u32, program: &Compiled, position: usize) -> Result<Cuda, Error> {
        let plan = &program.plan;
        plan.check().map_err(|error| Error::input(error.to_string()))?;
        let gpu = driver::open(number)?;
        super::capacity::check(plan, position, gpu.free_memory()?, &format!("cuda:{number}"))?;
        let kernels = super::kernels_of(plan, position);
        let functions = module::load(&gpu, module::choose(&gpu, &program.ptx)?, &plan.kernels, &kernels)?;
        let (allocations, spans) = allocate(&gpu, plan, position)?;
        let all = plan.prepack.iter().chain(&plan.step);
        let launches = all.map(|launch| {
            let number = launch.kernel_position().filter(|_| launch.device == position);
            let Some(number) = number else {
                return Ok(None);
            };
            let kernel = &plan.kernels[number];
            if kernel.tasks > MAX_BLOCKS || kernel.threads == 0 || kernel.threads > MAX_THREADS {
                return Err(Error::input(format!(
                    "kernel {}: {} blocks of {} threads cannot be launched; compile the model again",
                    kernel.symbol, kernel.tasks, kernel.threads
                )));
            }
            let buffers = launch.buffers();
            let arguments = buffers
                .iter()
                .map(|&buffer| spans[buffer].map_or(0, |span| span.address));
            Ok(Some(ReadyLaunch {
                label: launch.label.clone(),
                kernel: kernel.symbol.clone(),
                function: functions[&number],
                blocks: kernel.tasks as u32,
                threads: kernel.threads,
                shared_bytes: kernel.shared_bytes,
                arguments: arguments.collect(),
            }))
        });
        Ok(Cuda {
            graphs: HashMap::new(),
            launches: launches.collect::<Result<_, Error>>()?,
            spans,
            staging: Staging::new(&gpu)?,
            shadows: ShadowBuffers::new(plan, position),
            stream: Stream::new(&gpu)?,
            clock: (Event::timing(&gpu)?, Event::timing(&gpu)?),
            elapsed_ns: None,
            _allocations: allocations,
            begun: vec![],
            under_way: None,
            gpu,
        })
    }

    fn span(&self, buffer: BufferId, bytes: usize) -> Result<Span, Error> {
        let number = self.gpu.number;
        match self.spans.get(buffer.0) {
            Some(Some(span)) if span.bytes >= bytes => Ok(*span),
            Some(Some(span)) => Err(Error::work(format!(
                "buffer {} of cuda:{number} has {} bytes; {bytes} were to be moved",
                buffer.0, span.bytes
            ))),
            _ => Err(Error::work(format!("cuda:{number} has no buffer {}", buffer.0))),
        }
    }

    /// Puts a launch into the stream.
    fn submit(&self, launch: usize) -> Result<(), Error> {
        let Some(Some(launch)) = self.launches.get(launch) else {
            return Err(Error::work(format!(
                "cuda:{} has no launch {launch}",
                self.gpu.number
            )));
        };
        let mut parameters: Vec<*mut c_void> = launch
            .arguments
            .iter()
            .map(|address| std::ptr::from_ref(address).cast_mut().cast())
            .collect();
        let (grid, block) = ((launch.blocks, 1, 1), (launch.threads, 1, 1));
        // SAFETY: the function takes as many pointers as there are arguments (`module::load` checked), each to a buffer as
        // large as the plan's check demands. That kernels stay within them is the compiler's contract.
        unsafe {
            result::launch_kernel(
                launch.function.0,
                grid,
                block,
                launch.shared_bytes,
                self.stream.0,
                &mut parameters,
            )
        }
        .map_err(|error| self.gpu.failed(launch.doing(), error))
    }

    /// Runs a sequence kernel by kernel, waiting after each.
    fn step_through(&self, sequence: &[usize]) -> Result<(), Error> {
        for &launch in sequence {
            self.submit(launch)?;
            let doing = self.launches[launch]
                .as_ref()
                .map_or(String::new(), ReadyLaunch::doing);
            self.stream.wait(&self.gpu, doing)?;
        }
        Ok(())
    }

    /// Records a sequence as a graph.
    fn record(&self, sequence: &[usize]) -> Result<Graph, Error> {
        let fail = |error| self.gpu.failed("recording a graph", error);
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives and is not capturing.
        unsafe { result::stream::begin_capture(self.stream.0, mode) }.map_err(fail)?;
        let submitted = sequence.iter().try_for_each(|&launch| self.submit(launch));
        // SAFETY: the stream is capturing; also after a failure it must stop.
        let graph = unsafe { result::stream::end_capture(self.stream.0) };
        submitted?;
        let graph = graph.map_err(fail)?;
        let mut made = std::ptr::null_mut();
        // SAFETY: the graph was just made; no flags.
        let instantiated = unsafe { sys::cuGraphInstantiateWithFlags(&mut made, graph, 0) }.result();
        // SAFETY: the graph was just made; what can be launched is a copy of it.
        let destroyed = unsafe { result::graph::destroy(graph) };
        instantiated.map_err(fail)?;
        let made = Graph(made);
        destroyed.map_err(fail)?;
        Ok(made)
    }

    /// Starts what was launched since the run began.
    fn start(&mut self) -> Result<(), Error> {
        let sequence = std::mem::take(&mut self.begun);
        self.elapsed_ns = None;
        if sequence.is_empty() {
            return Ok(());
        }
        self.staging.before(&self.gpu, &self.stream)?;
        match self.graphs.get(&sequence) {
            None => {
                self.step_through(&sequence)?;
                self.graphs.insert(sequence, Sequence::Known);
                return Ok(());
            }
            Some(Sequence::Known) => {
                let graph = self.record(&sequence)?;
                self.graphs.insert(sequence.clone(), Sequence::Recorded(graph));
            }
            Some(Sequence::Recorded(_)) => {}
        }
        let Some(Sequence::Recorded(graph)) = self.graphs.get(&sequence) else {
            unreachable!("the sequence was recorded above");
        };
        self.clock.0.record(&self.gpu, &self.stream)?;
        // SAFETY: both handles live; the graph's buffers are not touched before `finish`.
        unsafe { result::graph::launch(graph.0, self.stream.0) }
            .map_err(|error| self.gpu.failed("launching a graph", error))?;
        self.under_way = Some(sequence.len());
        let recorded = self.clock.1.record(&self.gpu, &self.stream);
        self.or_the_fault(recorded)
    }

    /// Waits for the run that is executing, and commits the inputs of the next one.
    fn finish(&mut self) -> Result<(), Error> {
        let Some(launches) = self.under_way else {
            return Ok(());
        };
        let doing = format!("running the kernels of {launches} launches");
        // After a fault every call fails, including this one.
        self.gpu.enter().map_err(|error| error.at(&doing))?;
        self.stream.wait(&self.gpu, doing)?;
        self.elapsed_ns = Some(self.clock.1.since(&self.gpu, &self.clock.0)?);
        let address = |buffer: usize| self.spans[buffer].map(|span| span.address);
        self.shadows.commit(&self.gpu, &mut self.staging, address)?;
        self.under_way = None;
        Ok(())
    }

    /// The result of a call that was made during a run. If it failed, the run may have failed before; that error is returned.
    fn or_the_fault<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if done.is_err() {
            self.finish()?;
        }
        done
    }

    /// Starts copying bytes that are written during a run to the shadow buffer, if there is one.
    fn write_beside(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<bool, Error> {
        let place = (buffer.0, self.span(buffer, bytes.len())?.bytes);
        self.gpu.enter()?;
        self.shadows.write(&self.gpu, &mut self.staging, place, bytes)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Memory that the GPU still uses must not be freed. A failure here was reported before, or has no user any more.
        let _ = self.gpu.enter();
        let _ = self.finish();
        let _ = self.staging.wait(&self.gpu);
    }
}

impl ReadyLaunch {
    fn doing(&self) -> String {
        format!("running {} (kernel {})", self.label, self.kernel)
    }
}

impl Device for Cuda {
    fn name(&self) -> String {
        format!("cuda:{}", self.gpu.number)
    }

    fn memory(&self) -> u64 {
        self.gpu.memory
    }

    fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<(), Error> {
        if self.under_way.is_some() {
            let written = self.write_beside(buffer, bytes);
            if self.or_the_fault(written)? {
                return Ok(());
            }
        }
        let span = self.span(buffer, bytes.len())?;
        self.finish()?;
        self.gpu.enter()?;
        self.staging.write(&self.gpu, span.address, bytes)
    }

    fn read(&mut self, buffer: BufferId, bytes: &mut [u8]) -> Result<(), Error> {
        let span = self.span(buffer, bytes.len())?;
        self.finish()?;
        self.gpu.enter()?;
        self.staging.read(&self.gpu, span.address, bytes)
    }

    fn fill(&mut self, buffer: BufferId, byte: u8) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        self.finish()?;
        self.gpu.enter()?;
        self.staging.fill(&self.gpu, span.address, span.bytes, byte)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.finish()?;
        self.begun.clear();
        self.gpu.enter()
    }

    fn launch(&mut self, launch: LaunchId) -> Result<(), Error> {
        self.begun.push(launch.0);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.start()
    }

    fn shrink(&mut self) -> Result<(), Error> {
        self.complete()?;
        self.shadows.free();
        Ok(())
    }

    fn peer_buffer(&self, buffer: BufferId) -> Result<Box<dyn PeerBuffer>, Error> {
        let span = self.span(buffer, 0)?;
        Ok(Box::new(CudaPeerBuffer {
            span,
            gpu: driver::open(self.gpu.number)?,
        }))
    }

    fn copy_from_peer(&mut self, buffer: BufferId, from: &dyn PeerBuffer) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        self.finish()?;
        self.staging.wait(&self.gpu)?;
        match from.on_gpu() {
            Some((other, address)) => {
                other.copy_to(address, &self.gpu, span.address, span.bytes)?;
                self.gpu.enter()
            }
            None => {
                let mut bytes = vec![0; span.bytes];
                from.read(&mut bytes)?;
                self.write(buffer, &bytes)
            }
        }
    }

    fn complete(&mut self) -> Result<(), Error> {
        self.start()?;
        self.finish()?;
        self.gpu.enter()?;
        self.staging.wait(&self.gpu)
    }

    fn elapsed_ns(&mut self) -> Result<Option<u64>, Error> {
        self.finish()?;
        Ok(self.elapsed_ns)
    }

    fn counts(&self) -> Option<&BTreeMap<String, Counts>> {
        None
    }
}

/// Two allocations: the arena, and all buffers that outlive a run.
fn allocate(
    gpu: &Gpu,
    plan: &Plan,
    position: usize,
) -> Result<(Vec<DeviceMemory>, Vec<Option<Span>>), Error> {
    let mut own = 0;
    let mut offsets = vec![];
    for buffer in &plan.buffers {
        offsets.push(own);
        if buffer.device == position && buffer.allocation == Allocation::Dedicated {
            own = (own + buffer.bytes).next_multiple_of(ALIGN);
        }
    }
    let arena = DeviceMemory::new(gpu, plan.arena_bytes[position], "the arena")?;
    let rest = DeviceMemory::new(gpu, own, "parameters, inputs and outputs")?;
    let spans = plan.buffers.iter().zip(offsets).map(|(buffer, offset)| {
        let address = match buffer.allocation {
            Allocation::Arena(offset) => arena.address + offset,
            Allocation::Dedicated => rest.address + offset,
        };
        (buffer.device == position).then_some(Span {
            address,
            bytes: buffer.bytes as usize,
        })
    });
    let spans = spans.collect();
    Ok((vec![arena, rest], spans))
}
