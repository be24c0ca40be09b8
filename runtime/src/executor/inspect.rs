//! Runs of a plan one launch at a time: to measure every launch, and to find the launch that first wrote a value that is
//! not finite.

use super::Executor;
use crate::Error;
use crate::device::BufferId;
use ir::DType;
use ir::plan::{Buffer, CommandKind, Role};
use std::time::Instant;

/// Rounds in which every launch is timed.
const PROFILED: usize = 4;

/// The time of one launch.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LaunchTime {
    /// The names of the nodes that it computes.
    pub label: String,
    /// Its kernel's symbol, or `transfer`.
    pub kernel: String,
    /// The position of its device.
    pub device: usize,
    /// Nanoseconds from launch to completion.
    pub ns: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// The minimum of bytes that it moves.
    pub bytes: u64,
    /// The number of launches whose times are added here.
    pub turns: usize,
}

/// The place where a value that is not finite was first written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The launch that wrote it; `None` if a tensor that was set contains it.
    pub launch: Option<String>,
    /// The buffer it is in.
    pub buffer: String,
}

impl std::fmt::Display for NonFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match &self.launch {
            Some(launch) => write!(
                f,
                "{launch} is the first to give a value that is not finite, in {}",
                self.buffer
            ),
            None => write!(f, "{} was given with a value that is not finite", self.buffer),
        }
    }
}

impl Executor {
    /// Runs once and returns the time of every launch.
    pub fn profile(&mut self) -> Result<Vec<LaunchTime>, Error> {
        // The emulator's own time means nothing; on other devices the fastest round counts.
        let rounds = if self.counts().is_some() { 1 } else { PROFILED };
        let times = self.launch_times(rounds)?;
        let fastest = times
            .iter()
            .map(|times| times.iter().min().copied().unwrap_or(u64::MAX));
        let launches = self.plan.step.iter().zip(fastest);
        let times = launches.map(|(launch, ns)| {
            let (kernel, flops, bytes) = match launch.work {
                CommandKind::Kernel { kernel, .. } => {
                    let kernel = &self.plan.kernels[kernel];
                    (kernel.symbol.clone(), kernel.flops, kernel.bytes)
                }
                CommandKind::Transfer { from, .. } => {
                    ("transfer".to_string(), 0, 2 * self.plan.buffers[from].bytes)
                }
            };
            LaunchTime {
                label: launch.label.clone(),
                kernel,
                device: launch.device,
                ns,
                flops,
                bytes,
                turns: 1,
            }
        });
        Ok(times.collect())
    }

    /// Returns the nanoseconds of every launch of a step in each of `rounds` runs, by the device's clock if it has one.
    pub fn launch_times(&mut self, rounds: usize) -> Result<Vec<Vec<u64>>, Error> {
        self.prepare()?;
        self.poison_temporaries()?;
        let mut times = vec![vec![]; self.plan.step.len()];
        for _ in 0..rounds {
            let mut start = Instant::now();
            self.observe(|executor, position| {
                let device = &mut executor.devices[executor.plan.step[position].device];
                let own = device.elapsed_ns()?;
                let host = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                times[position].push(own.unwrap_or(host));
                start = Instant::now();
                Ok(true)
            })?;
        }
        Ok(times)
    }

    /// Runs once more and finds the first launch after which one of its f32 buffers has a value that is not finite. It
    /// reads every buffer back, so it is slow. It updates parameters, as any run does.
    pub fn first_non_finite(&mut self) -> Result<Option<NonFinite>, Error> {
        for id in 0..self.plan.buffers.len() {
            let role = &self.plan.buffers[id].role;
            if matches!(
                role,
                Role::Input { .. } | Role::Parameter { .. } | Role::State { .. }
            ) && self.has_non_finite(id)?
            {
                return Ok(Some(NonFinite {
                    launch: None,
                    buffer: self.plan.buffers[id].name.clone(),
                }));
            }
        }
        self.prepare()?;
        // Other runs may have left such values in the arena.
        self.fill_temporaries(0)?;
        let mut found = None;
        self.observe(|executor, position| {
            let launch = executor.plan.step[position].clone();
            for id in launch.buffers() {
                if executor.has_non_finite(id)? {
                    let buffer = executor.plan.buffers[id].name.clone();
                    found = Some(NonFinite {
                        launch: Some(launch.label),
                        buffer,
                    });
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// Runs the step one launch at a time. After each, `look` gets its position in the step and returns whether to
    /// continue.
    fn observe(
        &mut self,
        mut look: impl FnMut(&mut Executor, usize) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let prepare = self.plan.prepack.len();
        for position in 0..self.plan.step.len() {
            self.launch_all(prepare + position..prepare + position + 1)?;
            if !look(self, position)? {
                break;
            }
        }
        Ok(())
    }

    fn has_non_finite(&mut self, id: usize) -> Result<bool, Error> {
        let Buffer {
            dtype: DType::F32,
            bytes,
            device,
            ..
        } = self.plan.buffers[id]
        else {
            return Ok(false);
        };
        let mut values = vec![0f32; bytes as usize / 4];
        self.devices[device].read(BufferId(id), bytemuck::cast_slice_mut(&mut values))?;
        Ok(values.iter().any(|value| !value.is_finite()))
    }
}
