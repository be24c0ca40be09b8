//! The threads that share a kernel's tasks.
//!
//! A network is a few dozen launches of which many take microseconds, so a fork must cost less than waking a
//! thread: workers spin for a while after the last launch before they sleep, and the caller works too and never
//! waits for a worker that took nothing. Tasks are dealt out in small chunks, so that uneven tasks and cores
//! that another process slows down still end together.
//!
//! # How a launch is published
//! `state` holds a generation and the number of chunks not yet taken. Whoever takes a chunk decrements it by
//! compare-and-swap. The other fields describe the launch and are rewritten only when every chunk is *done*,
//! hence taken. So a successful swap proves that the fields read before it belonged to that launch: had they
//! been rewritten, no chunk would have been left to take. A worker that wakes late finds nothing and does nothing.

use super::cores::{Affinity, Chosen};
use crate::Error;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A kernel: does tasks `begin..end` on the buffers whose addresses it is given.
pub type KernelFunction = unsafe extern "C" fn(arguments: *const *mut u8, begin: i64, end: i64);

/// A kernel with its arguments.
pub struct Invocation {
    /// The kernel.
    pub function: KernelFunction,
    /// The addresses of its buffers.
    pub arguments: Box<[*mut u8]>,
    /// How many tasks there are.
    pub tasks: i64,
}

/// How long a worker looks for the next launch before it sleeps.
const SPIN: Duration = Duration::from_micros(60);
/// Chunks a thread, so that a slow one is left with a small part.
const CHUNKS_PER_THREAD: i64 = 8;
/// Bits of `state` that count chunks.
const CHUNK_BITS: u32 = 24;
const CHUNK_MASK: u64 = (1 << CHUNK_BITS) - 1;

/// Threads bound to cores; the caller is one of them while it runs a plan.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// The caller's core, when threads are bound.
    home: Option<Affinity>,
    /// What the caller was bound to before.
    before: Option<Affinity>,
}

/// Keeps the two busiest words on cache lines of their own.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// Generation, and chunks not yet taken.
    state: Line<AtomicU64>,
    /// Chunks finished.
    done: Line<AtomicI64>,
    function: AtomicPtr<()>,
    arguments: AtomicPtr<*mut u8>,
    tasks: AtomicI64,
    chunk: AtomicI64,
    chunks: AtomicI64,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Pool {
    /// Starts one thread for each core but the first, which is the caller's.
    pub fn start(chosen: &Chosen) -> Result<Pool, Error> {
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            done: Line(AtomicI64::new(0)),
            function: AtomicPtr::new(std::ptr::null_mut()),
            arguments: AtomicPtr::new(std::ptr::null_mut()),
            tasks: AtomicI64::new(0),
            chunk: AtomicI64::new(1),
            chunks: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let affinity = |core: usize| chosen.pin.then(|| Affinity::one(core));
        let home = chosen.cores.first().copied().and_then(affinity);
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
            home,
            before: None,
        };
        let (report, reports) = mpsc::channel();
        for &core in chosen.cores.iter().skip(1) {
            let (shared, report, home) = (pool.shared.clone(), report.clone(), affinity(core));
            let worker = std::thread::Builder::new()
                .name(format!("alexc-cpu-{core}"))
                .spawn(move || {
                    let bound = home.map_or(Ok(()), |home| home.apply());
                    let _ = report.send(bound.map_err(|error| format!("core {core}: {error}")));
                    drop(report);
                    shared.work();
                });
            let worker = worker.map_err(|error| {
                Error::work(format!("no thread for core {core}: {error}; use fewer cores"))
            })?;
            pool.workers.push(worker);
        }
        drop(report);
        match reports.iter().find_map(Result::err) {
            Some(problem) => Err(Error::work(format!("a thread cannot be bound to {problem}"))),
            None => Ok(pool),
        }
    }

    /// Binds the calling thread to the pool's first core, until [`Pool::release_caller`].
    pub fn pin_caller(&mut self) {
        if let (Some(home), None) = (&self.home, &self.before)
            && let Ok(before) = Affinity::current()
            && home.apply().is_ok()
        {
            self.before = Some(before);
        }
    }

    /// Gives the calling thread its cores back, so that threads it starts later are not bound to one.
    pub fn release_caller(&mut self) {
        if let Some(before) = self.before.take() {
            // If it fails the thread stays on its core, which is only slower.
            let _ = before.apply();
        }
    }

    /// Does all tasks of `call` and returns when they are done.
    ///
    /// # Safety
    /// The function and the memory behind its arguments must stay valid during the call, its tasks must be
    /// independent of each other, and nothing else may use that memory meanwhile.
    pub unsafe fn run(&mut self, call: &Invocation) {
        let threads = self.workers.len() as i64 + 1;
        if call.tasks <= 0 {
            return;
        }
        if threads == 1 || call.tasks == 1 {
            // SAFETY: the caller's promise.
            unsafe { (call.function)(call.arguments.as_ptr(), 0, call.tasks) };
            return;
        }
        let chunk = (call.tasks / (threads * CHUNKS_PER_THREAD)).max(1);
        let chunks = call.tasks / chunk + i64::from(call.tasks % chunk != 0);
        let shared = &*self.shared;
        shared.done.0.store(0, Relaxed);
        shared.function.store(call.function as *mut (), Relaxed);
        shared
            .arguments
            .store(call.arguments.as_ptr().cast_mut(), Relaxed);
        shared.tasks.store(call.tasks, Relaxed);
        shared.chunk.store(chunk, Relaxed);
        shared.chunks.store(chunks, Relaxed);
        let generation = (shared.state.0.load(Relaxed) >> CHUNK_BITS).wrapping_add(1);
        // SeqCst here and in `sleep`: either the sleeper sees the chunks or we see the sleeper.
        shared
            .state
            .0
            .store((generation << CHUNK_BITS) | chunks as u64, SeqCst);
        let sleepers = shared.sleepers.load(SeqCst);
        if sleepers > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if chunks > sleepers as i64 {
                shared.wake.notify_all();
            } else {
                (1..chunks).for_each(|_| shared.wake.notify_one());
            }
        }
        while shared.take_one() {}
        let mut turns = 0u32;
        while shared.done.0.load(Acquire) < chunks {
            turns += 1;
            // With more threads than free cores, spinning would keep the last worker from ending.
            if turns < 2000 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.release_caller();
        self.shared.stop.store(true, SeqCst);
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Takes a chunk and does it; false when none is left.
    fn take_one(&self) -> bool {
        loop {
            let state = self.state.0.load(Acquire);
            let left = (state & CHUNK_MASK) as i64;
            if left == 0 {
                return false;
            }
            let function = self.function.load(Relaxed);
            let arguments = self.arguments.load(Relaxed);
            let (tasks, chunk, chunks) = (
                self.tasks.load(Relaxed),
                self.chunk.load(Relaxed),
                self.chunks.load(Relaxed),
            );
            if self
                .state
                .0
                .compare_exchange_weak(state, state - 1, AcqRel, Relaxed)
                .is_err()
            {
                continue;
            }
            let begin = (chunks - left) * chunk;
            let end = begin.saturating_add(chunk).min(tasks);
            // SAFETY: the swap succeeded, so the fields above are those that `run` published with this state
            // (see the module's explanation): a function of this type, whose arguments `run`'s caller keeps
            // valid until every chunk is done.
            let function = unsafe { std::mem::transmute::<*mut (), KernelFunction>(function) };
            // SAFETY: as above; the chunk is ours alone.
            unsafe { function(arguments.cast_const(), begin, end) };
            self.done.0.fetch_add(1, Release);
            return true;
        }
    }

    /// The life of a worker.
    fn work(&self) {
        while !self.stop.load(Relaxed) {
            if self.take_one() {
                continue;
            }
            let start = Instant::now();
            let found = loop {
                for _ in 0..32 {
                    std::hint::spin_loop();
                }
                if self.has_work(Relaxed) {
                    break true;
                }
                if start.elapsed() > SPIN {
                    break false;
                }
            };
            if !found {
                self.sleep();
            }
        }
    }

    fn has_work(&self, ordering: std::sync::atomic::Ordering) -> bool {
        self.state.0.load(ordering) & CHUNK_MASK != 0
    }

    fn sleep(&self) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        while !self.has_work(SeqCst) && !self.stop.load(SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds its number to each of its tasks' elements; uneven, as real tasks are.
    unsafe extern "C" fn add(arguments: *const *mut u8, begin: i64, end: i64) {
        // SAFETY: the tests pass one buffer with an i64 a task and one with a single i64.
        let (out, value) = unsafe { ((*arguments).cast::<i64>(), *(*arguments.add(1)).cast::<i64>()) };
        for task in begin..end {
            for _ in 0..(task % 7) * 10 {
                std::hint::spin_loop();
            }
            // SAFETY: as above, and no other task writes this element.
            unsafe { *out.add(task as usize) += value + task };
        }
    }

    fn pool(threads: usize) -> Pool {
        Pool::start(&Chosen {
            cores: vec![0; threads],
            pin: false,
        })
        .unwrap()
    }

    fn call(out: &mut [i64], value: &mut i64) -> Invocation {
        let tasks = out.len() as i64;
        let arguments = Box::new([out.as_mut_ptr().cast(), std::ptr::from_mut(value).cast()]);
        Invocation {
            function: add,
            arguments,
            tasks,
        }
    }

    #[test]
    fn every_task_is_done_exactly_once_over_many_launches() {
        for threads in [1, 2, 3, 8] {
            let mut pool = pool(threads);
            let mut total = 0;
            let mut out = vec![0i64; 1000];
            for launch in 0..3000usize {
                let tasks = [0, 1, 2, 3, 17, 64, 999, 1000][launch % 8];
                let mut value = launch as i64;
                total += tasks as i64 * value + (0..tasks as i64).sum::<i64>();
                // SAFETY: `out` and `value` outlive the call, and only it uses them.
                unsafe { pool.run(&call(&mut out[..tasks], &mut value)) };
                if launch % 500 == 0 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(SPIN * 5);
                }
            }
            assert_eq!(out.iter().sum::<i64>(), total, "{threads} threads");
        }
    }

    #[test]
    fn pools_come_and_go() {
        for _ in 0..50 {
            let mut pool = pool(4);
            let (mut out, mut value) = (vec![0i64; 64], 1);
            // SAFETY: as above.
            unsafe { pool.run(&call(&mut out, &mut value)) };
            assert_eq!(out[63], 64);
        }
    }

    #[test]
    fn the_caller_is_bound_during_a_run_only() {
        let mut pool = Pool::start(&Chosen {
            cores: vec![0],
            pin: true,
        })
        .unwrap();
        let cores = |affinity: Affinity| format!("{:?}", affinity.numbers());
        let before = cores(Affinity::current().unwrap());
        pool.pin_caller();
        assert_eq!(cores(Affinity::current().unwrap()), "[0]");
        pool.release_caller();
        assert_eq!(cores(Affinity::current().unwrap()), before);
    }
}
