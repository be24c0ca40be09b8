//! The emulator of a GPU: it executes the very PTX that a GPU would get, and reports what a GPU would let pass.
//!
//! | module | what it does |
//! |---|---|
//! | [`decode`], [`moves`], [`names`] | instructions as written to [`code`], instructions as executed |
//! | [`flow`] | where threads that took different paths meet again |
//! | [`lanes`] | registers of all threads of a block, as arrays |
//! | [`arithmetic`], [`convert`], [`matrix`], [`warpgroup`] | results of instructions, rounded as the ISA says; [`products`] of `wgmma` in flight |
//! | [`global`], [`shared`] | memory that remembers who touched it |
//! | [`block`] | runs a block, instruction by instruction; [`access`] its loads and stores, [`warp`] what lanes exchange |
//! | [`counts`] | operations, bytes, coalescing, bank conflicts |
//! | [`predict`] | the time that a GPU would take, and what bounds it |
//! | [`fault`] | what a kernel did wrong, and where |
//!
//! Reported, with kernel, instruction, block and thread: accesses out of bounds and misaligned; reads of memory that nothing
//! wrote, or that a copy is still bringing; races between threads of a block with no barrier between, and between blocks;
//! barriers that not all threads reach; instructions that the emulator does not know. Blocks run on all cores. A barrier
//! among the threads of a warp does not count as one: kernels here use those of the whole block.

mod access;
mod arithmetic;
mod block;
mod code;
mod convert;
pub mod counts;
mod decode;
mod fault;
mod flow;
mod global;
mod lanes;
mod matrix;
mod moves;
mod names;
pub mod predict;
mod products;
mod shared;
mod warp;
mod warpgroup;

use super::cuda::driver::Gpu;
use super::{BufferId, Device, LaunchId, PeerBuffer, ptx};
use crate::Error;
use crate::artifact::Compiled;
use block::{Block, Kernel, Stopped};
use counts::{Counts, Detail};
use fault::FaultLocation;
use global::{Global, SimAllocation, Span};
use ir::plan::{Command, Plan};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Architectures whose PTX is understood.
const TARGETS: [&str; 4] = ["sm_80", "sm_90", "sm_90a", "sm_100"];
/// The maximum number of threads of a block on GPUs.
const MAX_THREADS: u32 = 1024;
/// Of blocks after these, one in so many is counted in detail.
const DETAILED: u64 = 4;
const DETAILED_EVERY: u64 = 61;

/// The emulator, opened for one program.
pub struct Sim {
    name: String,
    memory: u64,
    global: Global,
    spans: Vec<Option<Span>>,
    kernels: HashMap<String, Kernel>,
    plan: Plan,
    position: usize,
    counts: BTreeMap<String, Counts>,
    workers: usize,
}

impl Sim {
    /// Reads the kernels of `program` and allocates the buffers that its plan puts on device `position`.
    pub fn open(name: String, program: &Compiled, position: usize) -> Result<Sim, Error> {
        let plan = program.plan.clone();
        plan.check().map_err(|error| Error::input(error.to_string()))?;
        let Some(ptx) = program.ptx.last() else {
            return Err(Error::input(
                "the program has no PTX; compile the model with --devices sim or --target sm_90",
            ));
        };
        let module =
            ptx::parse(&ptx.text).map_err(|error| Error::input(format!("{}.ptx: {error}", ptx.target)))?;
        if !TARGETS.contains(&&module.target[..]) || module.target != ptx.target {
            return Err(Error::input(format!(
                "the PTX is for {} and was to be for {}; the emulator knows {}",
                module.target,
                ptx.target,
                TARGETS.join(", ")
            )));
        }
        let memory = super::cpu::available_bytes();
        super::capacity::check(&plan, position, memory / 3, &name)?;
        let mut kernels = HashMap::new();
        for kernel in super::kernels_of(&plan, position) {
            let kernel = &plan.kernels[kernel];
            let symbol = &kernel.symbol;
            let fail = |what: String| {
                Err(Error::input(format!(
                    "kernel {symbol}: {what}; compile the model again"
                )))
            };
            let Some(entry) = module.entries.iter().find(|entry| entry.name == *symbol) else {
                return fail("it is not in the PTX".to_string());
            };
            if entry.parameters.len() != kernel.argument_bytes.len() {
                let (found, expected) = (entry.parameters.len(), kernel.argument_bytes.len());
                return fail(format!(
                    "it takes {found} arguments and the plan passes {expected}"
                ));
            }
            if kernel.threads == 0 || kernel.threads > MAX_THREADS || kernel.tasks >= 1 << 31 {
                return fail(format!(
                    "{} blocks of {} threads cannot be launched",
                    kernel.tasks, kernel.threads
                ));
            }
            let program = decode::decode(&module, entry).map_err(|unknown| {
                Error::input(format!(
                    "kernel {symbol}, line {}, `{}`: {}. The emulator executes what alexc generates; use PTX of this version",
                    unknown.line, unknown.text, unknown.why
                ))
            })?;
            let meetings = flow::meetings(&program.steps);
            kernels.insert(symbol.clone(), Kernel { program, meetings });
        }
        let (global, spans) = Global::new(&plan, position);
        Ok(Sim {
            name,
            memory,
            global,
            spans,
            kernels,
            plan,
            position,
            counts: BTreeMap::new(),
            workers: std::thread::available_parallelism().map_or(1, |n| n.get()),
        })
    }

    fn span(&self, buffer: BufferId, bytes: usize) -> Result<Span, Error> {
        match self.spans.get(buffer.0) {
            Some(Some(span)) if span.bytes >= bytes => Ok(*span),
            Some(Some(span)) => Err(Error::work(format!(
                "buffer {} of {} has {} bytes; {bytes} were to be moved",
                buffer.0, self.name, span.bytes
            ))),
            _ => Err(Error::work(format!("{} has no buffer {}", self.name, buffer.0))),
        }
    }

    fn run(&mut self, launch: &Command, kernel: usize) -> Result<(), Error> {
        let plan = &self.plan.kernels[kernel];
        let kernel = &self.kernels[&plan.symbol];
        let blocks = plan.tasks;
        let mut arguments = vec![];
        for buffer in launch.buffers() {
            arguments.push(self.span(BufferId(buffer), 0)?);
        }
        let addresses: Vec<u64> = arguments.iter().map(Span::address).collect();
        let first = self.global.stamps(blocks);
        let view = self.global.view(&arguments, first, blocks);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let stopped: Mutex<Option<(u64, Stopped)>> = Mutex::new(None);
        let work = || {
            let mut counts = Counts::default();
            let mut block = Block::new(
                kernel,
                plan.threads as usize,
                plan.shared_bytes as usize,
                blocks,
                &addresses,
            );
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= blocks || stop.load(Relaxed) {
                    break;
                }
                let mut memory = view.block(number);
                let detailed = number < DETAILED || number % DETAILED_EVERY == 0;
                if let Err(fault) = block.run(number, detailed, &mut memory) {
                    stop.store(true, Relaxed);
                    let mut stopped = stopped.lock().expect("no worker panics");
                    if stopped.as_ref().is_none_or(|(other, _)| number < *other) {
                        *stopped = Some((number, fault));
                    }
                    break;
                }
                counts.distinct_read_bytes += memory.distinct_read_bytes;
                counts.distinct_written_bytes += memory.distinct_written_bytes;
            }
            counts.read_bytes = block.read_bytes;
            counts.written_bytes = block.written_bytes;
            for (step, executed) in kernel.program.steps.iter().zip(&block.executed) {
                let name = kernel.program.sources[step.source as usize].1.split_whitespace();
                let opcode = name
                    .into_iter()
                    .find(|word| !word.starts_with('@'))
                    .unwrap_or_default();
                let kind = short_name(opcode);
                *counts.instructions.entry(kind).or_default() += executed;
            }
            (counts, block.detail)
        };
        let workers = self.workers.min(blocks as usize).max(1);
        let parts: Vec<(Counts, Detail)> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = others
                .into_iter()
                .map(|other| other.join().expect("workers do not panic"));
            std::iter::once(own).chain(others).collect()
        });
        if let Some((number, (at, fault))) = stopped.into_inner().expect("no worker panics") {
            let (line, instruction) = &kernel.program.sources[kernel.program.steps[at].source as usize];
            let location = FaultLocation {
                label: &launch.label,
                kernel: &plan.symbol,
                instruction,
                line: *line,
                block: number,
            };
            return Err(location.report(&fault));
        }
        let looked = (0..blocks)
            .filter(|number| *number < DETAILED || number % DETAILED_EVERY == 0)
            .count();
        let scale = |count: u64| (count as f64 * blocks as f64 / looked.max(1) as f64).round() as u64;
        let total = self.counts.entry(plan.symbol.clone()).or_default();
        total.launches += 1;
        total.blocks += blocks;
        for (mut counts, detail) in parts {
            counts.sectors = scale(detail.sectors);
            counts.min_sectors = scale(detail.min_sectors);
            counts.shared_cycles = scale(detail.shared_cycles);
            counts.conflicts = scale(detail.conflicts);
            total.add(&counts);
        }
        Ok(())
    }
}

/// The peer buffer of this device.
struct SimPeerBuffer {
    span: Span,
    allocation: Arc<SimAllocation>,
    what: String,
}

impl PeerBuffer for SimPeerBuffer {
    fn read(&self, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.len() != self.span.bytes {
            let (found, expected) = (bytes.len(), self.span.bytes);
            return Err(Error::work(format!(
                "{} has {expected} bytes and was to fill {found}",
                self.what
            )));
        }
        self.allocation.send(self.span, bytes).map_err(|byte| {
            let what = &self.what;
            Error::work(format!(
                "a transfer reads {what} at byte {byte}, which nothing wrote"
            ))
        })
    }

    fn on_gpu(&self) -> Option<(&Gpu, u64)> {
        None
    }
}

/// An opcode without types: of loads and stores with the memory, of copies as `cp.async`, of tensor cores with what they
/// multiply.
fn short_name(opcode: &str) -> String {
    let parts: Vec<&str> = opcode.split('.').collect();
    match parts[0] {
        "ld" | "st" | "atom" | "red" => {
            let spaces = ["global", "shared", "local", "param", "const"];
            let space = parts
                .iter()
                .find(|part| spaces.contains(part))
                .unwrap_or(&"generic");
            format!("{}.{space}", parts[0])
        }
        "cp" => parts[..parts.len().min(3)]
            .join(".")
            .replace(".ca", "")
            .replace(".cg", ""),
        "mma" if parts.contains(&"bf16") => "mma.bf16".to_string(),
        "mma" => "mma.tf32".to_string(),
        "wgmma" if parts.contains(&"mma_async") => format!("wgmma.{}.{}", parts[4], parts[parts.len() - 1]),
        "wgmma" => parts[..parts.len().min(2)].join("."),
        name => name.to_string(),
    }
}

impl Device for Sim {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> u64 {
        self.memory
    }

    fn write(&mut self, buffer: BufferId, bytes: &[u8]) -> Result<(), Error> {
        let span = self.span(buffer, bytes.len())?;
        self.global.write(span, bytes);
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, bytes: &mut [u8]) -> Result<(), Error> {
        let span = self.span(buffer, bytes.len())?;
        self.global.read(span, bytes);
        Ok(())
    }

    fn fill(&mut self, buffer: BufferId, byte: u8) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        self.global.fill(span, byte);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn launch(&mut self, launch: LaunchId) -> Result<(), Error> {
        let found = self
            .plan
            .prepack
            .iter()
            .chain(&self.plan.step)
            .nth(launch.0)
            .cloned();
        let here = found.filter(|found| found.device == self.position);
        let kernel = here.as_ref().and_then(Command::kernel_position);
        match here.zip(kernel) {
            Some((found, kernel)) => self.run(&found, kernel),
            None => Err(Error::work(format!("{} has no launch {}", self.name, launch.0))),
        }
    }

    fn complete(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn shrink(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn peer_buffer(&self, buffer: BufferId) -> Result<Box<dyn PeerBuffer>, Error> {
        let span = self.span(buffer, 0)?;
        Ok(Box::new(SimPeerBuffer {
            span,
            allocation: self.global.allocation(span),
            what: format!("buffer {} of {}", self.plan.buffers[buffer.0].name, self.name),
        }))
    }

    fn copy_from_peer(&mut self, buffer: BufferId, from: &dyn PeerBuffer) -> Result<(), Error> {
        let span = self.span(buffer, 0)?;
        let mut bytes = vec![0; span.bytes];
        from.read(&mut bytes)?;
        self.global.write(span, &bytes);
        Ok(())
    }

    fn elapsed_ns(&mut self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    fn counts(&self) -> Option<&BTreeMap<String, Counts>> {
        Some(&self.counts)
    }
}
