//! Runs the step of a plan on several devices at once.
//!
//! One thread per device walks the device's two queues: kernels, and transfers to it. It takes the next launch whose waits
//! are over, and prefers a transfer, because others may wait for it. So a device that waits for another one transfers its
//! inputs meanwhile. A device that works concurrently with its thread transfers while it computes. Waits between similar
//! devices are short, so a thread polls for a while before it sleeps.
//!
//! A launch counts as done when its results are visible. A device that only starts launches is asked to complete them if
//! another queue waits for the last one.

use crate::Error;
use crate::device::{BufferId, Device, LaunchId, PeerBuffer};
use ir::order;
use ir::plan::{CommandKind, Plan};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time that a thread polls before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

/// The queues of a plan's step.
pub struct Queues {
    /// Positions in the step, one list per queue.
    queues: Vec<Vec<usize>>,
    /// The queue of each launch of the step, and its position there.
    places: Vec<(usize, usize)>,
    /// Whether a launch waits for it.
    awaited: Vec<bool>,
    /// The peer buffers that transfers read.
    peer_buffers: HashMap<usize, Box<dyn PeerBuffer>>,
}

impl Queues {
    /// The queues of a plan that has passed its check, on its devices.
    pub fn new(plan: &Plan, devices: &[Box<dyn Device>]) -> Result<Queues, Error> {
        let mut queues = Queues {
            queues: vec![vec![]; order::count(plan)],
            places: vec![],
            awaited: vec![false; plan.step.len()],
            peer_buffers: HashMap::new(),
        };
        for (position, launch) in plan.step.iter().enumerate() {
            let queue = order::queue(launch);
            queues.places.push((queue, queues.queues[queue].len()));
            queues.queues[queue].push(position);
            launch
                .after
                .iter()
                .for_each(|&other| queues.awaited[other] = true);
            if let CommandKind::Transfer { from, .. } = launch.work {
                let peer_buffer = devices[plan.buffers[from].device].peer_buffer(BufferId(from))?;
                queues.peer_buffers.insert(from, peer_buffer);
            }
        }
        Ok(queues)
    }

    /// Executes one transfer.
    pub fn transfer(&self, device: &mut dyn Device, from: usize, to: usize) -> Result<(), Error> {
        device.copy_from_peer(BufferId(to), &*self.peer_buffers[&from])
    }

    /// Runs the step once, to its end. `first` is the position of its first launch in the plan. After a failure on one
    /// device the others stop at their next poll.
    pub fn run(&self, plan: &Plan, first: usize, devices: &mut [Box<dyn Device>]) -> Result<(), Error> {
        // A transfer without waits starts at once, so earlier writes must be complete.
        devices.iter_mut().try_for_each(|device| device.complete())?;
        let progress = Progress {
            done: self.queues.iter().map(|_| AtomicUsize::new(0)).collect(),
            failed: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        };
        let progress = &progress;
        let ended: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let walk = |number: usize, device: &mut Box<dyn Device>| {
                let walk = Walk {
                    queues: self,
                    plan,
                    first,
                    progress,
                    number,
                };
                walk.run(&mut **device)
            };
            let mut devices = devices.iter_mut().enumerate();
            let own = devices.next();
            let others: Vec<_> = devices
                .map(|(number, device)| scope.spawn(move || walk(number, device)))
                .collect();
            let own = own.map(|(number, device)| walk(number, device));
            let others = others.into_iter().map(|other| match other.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            own.into_iter().chain(others).collect()
        });
        ended.into_iter().collect()
    }
}

/// The progress of all queues.
struct Progress {
    /// Finished launches, per queue.
    done: Vec<AtomicUsize>,
    failed: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Progress {
    fn advance(&self, queue: usize, done: usize) {
        // SeqCst here and in `wait`: either the sleeper sees what is done or we see the sleeper.
        self.done[queue].store(done, SeqCst);
        self.wake_sleepers();
    }

    fn fail(&self) {
        self.failed.store(true, SeqCst);
        self.wake_sleepers();
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    fn wait(&self, ready: impl Fn() -> bool) {
        let over = || self.failed.load(SeqCst) || ready();
        let start = Instant::now();
        while start.elapsed() < SPIN {
            if over() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        while !over() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

/// Stops the others unless the walk ended well, also when it panics.
struct StopOthers<'p>(&'p Progress, bool);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fail();
        }
    }
}

/// The walk of one device through its queues.
struct Walk<'w> {
    queues: &'w Queues,
    plan: &'w Plan,
    first: usize,
    progress: &'w Progress,
    number: usize,
}

impl Walk<'_> {
    fn run(&self, device: &mut dyn Device) -> Result<(), Error> {
        let mut stop = StopOthers(self.progress, false);
        let walked = device.begin().and_then(|()| self.walk(device));
        // Also after a failure: devices must not stay in a run. It is over here, since the next one's transfers read what
        // it leaves.
        let ended = walked.and(device.end()).and(device.complete());
        stop.1 = ended.is_ok();
        ended
    }

    fn ready(&self, position: Option<&usize>) -> bool {
        let is_done = |other: &usize| {
            let (queue, place) = self.queues.places[*other];
            self.progress.done[queue].load(SeqCst) > place
        };
        position.is_some_and(|&position| self.plan.step[position].after.iter().all(is_done))
    }

    fn walk(&self, device: &mut dyn Device) -> Result<(), Error> {
        let [kernels, transfers] = [2 * self.number, 2 * self.number + 1];
        let (mut launched, mut received) = (0, 0);
        loop {
            let kernel = self.queues.queues[kernels].get(launched);
            let transfer = self.queues.queues[transfers].get(received);
            if self.progress.failed.load(SeqCst) || (kernel.is_none() && transfer.is_none()) {
                return Ok(());
            }
            if self.ready(transfer)
                && let Some(&position) = transfer
                && let CommandKind::Transfer { from, to } = self.plan.step[position].work
            {
                self.queues.transfer(device, from, to)?;
                received += 1;
                self.progress.advance(transfers, received);
            } else if self.ready(kernel)
                && let Some(&position) = kernel
            {
                device.launch(LaunchId(self.first + position))?;
                launched += 1;
                if self.queues.awaited[position] {
                    device.complete()?;
                    self.progress.advance(kernels, launched);
                }
            } else {
                self.progress.wait(|| self.ready(transfer) || self.ready(kernel));
            }
        }
    }
}
