//! A block of a kernel. All its threads execute an instruction before the next one begins.
//!
//! Threads that take different paths at a branch wait for each other at the reconvergence point (`flow`). Until then one path
//! executes after the other, each with the threads that took it.

use super::arithmetic;
use super::code::*;
use super::counts::Detail;
use super::decode::{Preset, Program};
use super::fault::Fault;
use super::global::Access;
use super::lanes::{Mask, Registers, WARP};
use super::matrix;
use super::products::{EARLY, Products};
use super::shared::Shared;

/// A decoded kernel with its reconvergence points.
pub struct Kernel {
    pub program: Program,
    /// The reconvergence point of each branch.
    pub meetings: Vec<u32>,
}

/// The state of a worker that runs blocks of one launch, one after the other.
pub struct Block<'k> {
    pub(super) kernel: &'k Kernel,
    threads: usize,
    pub(super) registers: Registers,
    pub(super) shared: Shared,
    pub(super) products: Products,
    /// Of each thread: word `w` of thread `t` is at `w·lanes + t`; and whether it was written in this block.
    pub(super) local: Vec<(u32, bool)>,
    /// How often threads executed each step.
    pub executed: Vec<u64>,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub detail: Detail,
    /// Whether this block is counted in detail.
    pub(super) detailed: bool,
}

/// Threads on one path through the kernel, up to its reconvergence point (SIMT divergence).
struct DivergentPath {
    at: usize,
    until: usize,
    mask: Mask,
}

/// A fault with the step it happened at.
pub type Stopped = (usize, Fault);

impl<'k> Block<'k> {
    /// A worker for blocks of `threads` threads, with this number of bytes of dynamic shared memory.
    pub fn new(
        kernel: &'k Kernel,
        threads: usize,
        shared_bytes: usize,
        blocks: u64,
        arguments: &[u64],
    ) -> Block<'k> {
        let program = &kernel.program;
        let mut registers = Registers::new(threads, program.registers);
        let lanes = registers.lanes;
        for &(preset, register) in &program.presets {
            let all = register as usize * lanes..(register as usize + 1) * lanes;
            let mut words = |value: &dyn Fn(usize) -> u32| {
                registers.narrow[all.clone()]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, word)| *word = value(i));
            };
            match preset {
                Preset::Word(value) => words(&|_| value),
                Preset::Thread => words(&|i| i as u32),
                Preset::Threads => words(&|_| threads as u32),
                Preset::Blocks => words(&|_| blocks as u32),
                Preset::Lane => words(&|i| (i % WARP) as u32),
                Preset::Warp => words(&|i| (i / WARP) as u32),
                Preset::Block => {}
                Preset::Long(value) => registers.wide[all].fill(value),
                Preset::Parameter(number) => registers.wide[all].fill(arguments[number]),
            }
        }
        Block {
            kernel,
            threads,
            registers,
            shared: Shared::new(program.shared_bytes + shared_bytes, threads),
            products: Products::default(),
            local: vec![(0, false); program.local_bytes.div_ceil(4) * lanes],
            executed: vec![0; program.steps.len()],
            read_bytes: 0,
            written_bytes: 0,
            detail: Detail::default(),
            detailed: false,
        }
    }

    /// Runs a block.
    pub fn run(&mut self, number: u64, detailed: bool, memory: &mut Access) -> Result<(), Stopped> {
        for &(preset, register) in &self.kernel.program.presets {
            if preset == Preset::Block {
                let lanes = self.registers.lanes;
                let all = register as usize * lanes..(register as usize + 1) * lanes;
                self.registers.narrow[all].fill(number as u32);
            }
        }
        self.shared.begin();
        self.products.begin(self.threads);
        self.local.iter_mut().for_each(|word| word.1 = false);
        self.detailed = detailed;
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma")
        {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { self.run_avx512(memory) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { self.run_avx2(memory) };
        }
        self.run_plain(memory)
    }

    /// [`Block::run_plain`] for processors with registers of 512 bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run_avx512(&mut self, memory: &mut Access) -> Result<(), Stopped> {
        self.run_plain(memory)
    }

    /// The same for registers of 256 bits.
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run_avx2(&mut self, memory: &mut Access) -> Result<(), Stopped> {
        self.run_plain(memory)
    }

    #[inline(always)]
    fn run_plain(&mut self, memory: &mut Access) -> Result<(), Stopped> {
        let kernel = self.kernel;
        let steps = &kernel.program.steps[..];
        let mut live = Mask::first(self.threads);
        let mut paths = vec![DivergentPath {
            at: 0,
            until: steps.len(),
            mask: live.clone(),
        }];
        while let Some(path) = paths.last_mut() {
            let at = path.at;
            if at == path.until || at >= steps.len() || path.mask.is_empty() {
                paths.pop();
                continue;
            }
            path.at += 1;
            let step = &steps[at];
            let guarded = step
                .guard
                .map(|(p, negated)| self.registers.holding(p, negated, &path.mask));
            let mask = guarded.as_ref().unwrap_or(&path.mask);
            self.executed[at] += mask.count();
            let multiplies = matches!(step.code, Code::WarpgroupMultiply { .. });
            if let Some(names) = kernel.program.names.get(step.source as usize)
                && !multiplies
                && self.products.make_any(names)
                && let Some(thread) = mask.threads().next()
            {
                return Err((at, Fault::new(thread, EARLY)));
            }
            match step.code {
                Code::Branch { to } => {
                    let taken = mask.clone();
                    let stay = path.mask.without(&taken);
                    if taken.is_empty() {
                        continue;
                    }
                    if stay.is_empty() {
                        path.at = to;
                        continue;
                    }
                    let (next, until) = (path.at, kernel.meetings[at] as usize);
                    path.at = until;
                    for (at, mask) in [(next, stay), (to, taken)] {
                        paths.push(DivergentPath { at, until, mask });
                    }
                }
                Code::Exit => {
                    let gone = mask.clone();
                    live = live.without(&gone);
                    for path in &mut paths {
                        path.mask = path.mask.without(&gone);
                    }
                }
                Code::Barrier => {
                    let all = Mask::first(self.threads);
                    if let Some(thread) = all.without(mask).threads().next() {
                        let missing = all.without(mask).count();
                        let what = match live.without(mask).is_empty() {
                            true => "they have exited",
                            false => "they took another path",
                        };
                        let first = mask.threads().next().unwrap_or(0);
                        let what = format!(
                            "a barrier that {missing} of {} threads do not reach, as thread {thread}: {what}",
                            self.threads
                        );
                        return Err((at, Fault::new(first, what)));
                    }
                    self.shared.barrier();
                }
                _ if arithmetic::execute(step, &mut self.registers, mask) => {}
                _ => {
                    let mask = mask.clone();
                    self.other(step, &mask, memory).map_err(|fault| (at, fault))?;
                }
            }
        }
        Ok(())
    }

    /// Everything that touches memory or other threads.
    #[inline(always)]
    fn other(&mut self, step: &Step, mask: &Mask, memory: &mut Access) -> Result<(), Fault> {
        match step.code {
            Code::Load { memory: space, of } => self.load(step, space, of, mask, memory),
            Code::Store { memory: space, of } => self.store(step, space, of, mask, memory),
            Code::CopyAsync { bytes } => self.copy(step, bytes, mask, memory),
            Code::Commit => {
                self.shared.commit();
                Ok(())
            }
            Code::Wait(left) => {
                self.shared.wait(left);
                Ok(())
            }
            Code::Mma { bf16 } => matrix::multiply(step, bf16, &mut self.registers, mask).map_err(|thread| {
                Fault::new(thread, "does not take part in an instruction of its whole warp")
            }),
            Code::WarpgroupMultiply { columns, bf16 } => self.warpgroup_multiply(step, columns, bf16, mask),
            Code::WarpgroupCommit => {
                self.products.commit(mask);
                Ok(())
            }
            Code::WarpgroupWait(left) => self.products.wait(left, mask, &self.shared),
            Code::ShowWrites => {
                mask.threads().for_each(|thread| self.shared.show(thread));
                Ok(())
            }
            Code::LoadMatrix { count, transposed } => self.load_matrix(step, count, transposed, mask),
            Code::Shuffle(how) => self.shuffle(step, how, mask),
            Code::Vote(how) => self.vote(step, how, mask),
            Code::Atomic {
                memory: space,
                how,
                of,
                result,
            } => self.atomic(step, (space, how, of), result, mask, memory),
            Code::Trap => Err(Fault::new(
                mask.threads().next().unwrap_or(0),
                "the kernel gave up (trap)",
            )),
            _ => Ok(()),
        }
    }
}
