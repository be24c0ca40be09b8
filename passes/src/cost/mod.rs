//! What kernels, transfers and programs cost on a device, in microseconds.
//!
//! | module | what it holds |
//! |---|---|
//! | [`work`] | what a kernel asks of a device: operations, instructions, bytes |
//! | [`times`] | measured times of kernels, which win over computed ones |
//! | [`makespan`] | a program's time on its devices, by simulating their queues |
//!
//! A computed time is a roofline over a [`Profile`]: the larger of arithmetic at the peak times the stated efficiency
//! of its kind of nest, and bytes at the bandwidth of the cache or memory that holds them; plus one launch. A search
//! asks for the cost of a [`Candidate`], which need not be part of a program.

pub mod makespan;
pub mod times;
pub mod work;

pub use makespan::{Makespan, makespan};
pub use times::KernelTimes;
pub use work::{Kind, Work};

use ir::nest::Nest;
use ir::profile::{Precision, Profile};
use ir::program::{KernelCall, Program, Value};

/// A kernel that could be: a nest over stored values with their layouts.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What it computes.
    pub nest: &'a Nest,
    /// What it reads.
    pub operands: Vec<&'a Value>,
    /// What it writes.
    pub results: Vec<&'a Value>,
    /// Whether a result takes the memory of an operand.
    pub in_place: bool,
}

impl<'a> Candidate<'a> {
    /// A kernel of a program.
    pub fn of(program: &'a Program, call: &'a KernelCall) -> Candidate<'a> {
        let owners: Vec<_> = call.operands.iter().map(|&id| program.owner(id)).collect();
        Candidate {
            nest: &call.nest,
            operands: call.operands.iter().map(|&id| program.value(id)).collect(),
            results: call.results.iter().map(|&id| program.value(id)).collect(),
            in_place: call.results.iter().any(|&id| owners.contains(&program.owner(id))),
        }
    }
}

/// What costs are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Costs<'a> {
    /// The device.
    pub profile: &'a Profile,
    /// The arithmetic of contractions.
    pub precision: Precision,
    /// Measured times of this device, if there are any.
    pub times: Option<&'a KernelTimes>,
}

/// What a kernel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bytes.
    Memory,
    /// Its start.
    Launch,
}

impl Bound {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
        }
    }
}

/// The cost of one launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelCost {
    /// Operations: a multiply-add of a contraction is two, any other operation on scalars one.
    pub operations: f64,
    /// Bytes of operands and results, each once, halos included.
    pub bytes: f64,
    /// Microseconds of arithmetic.
    pub compute_us: f64,
    /// Microseconds of moving bytes.
    pub memory_us: f64,
    /// Microseconds of starting it.
    pub launch_us: f64,
    /// Microseconds that it was measured to take on this device.
    pub measured_us: Option<f64>,
}

impl KernelCost {
    /// The computed time.
    pub fn predicted_us(&self) -> f64 {
        self.compute_us.max(self.memory_us) + self.launch_us
    }

    /// The measured time, or the computed one.
    pub fn us(&self) -> f64 {
        self.measured_us.unwrap_or_else(|| self.predicted_us())
    }

    /// What bounds it, as computed.
    pub fn bound(&self) -> Bound {
        let work = self.compute_us.max(self.memory_us);
        if self.launch_us > work {
            Bound::Launch
        } else if self.compute_us >= self.memory_us {
            Bound::Compute
        } else {
            Bound::Memory
        }
    }
}

/// The shares of a device's peak and bandwidth that kernels of one kind reach: `(compute, memory)`.
type Share = (f64, f64);

/// The shares of each kind of nest. Fitted to measured kernels of AlexNet, forward and backward; one figure a kind, none
/// for a layer.
#[derive(Clone, Copy, Debug)]
struct Efficiency {
    contraction: Share,
    accumulation: Share,
    window: Share,
    row: Share,
    map: Share,
}

/// Processors with AVX2: single kernels by processor time on one core of a shared machine (Zen 3, 2026-11). Its 16
/// registers make small tiles.
const AVX2: Efficiency = Efficiency {
    contraction: (0.76, 0.55),
    accumulation: (0.6, 0.55),
    window: (0.9, 0.8),
    row: (0.5, 0.35),
    map: (0.5, 1.0),
};

/// Processors with AVX-512: README's kernels and totals on Zen 4 (conv3 at 98 % of the peak, its gradients at 77 % and
/// 93 %; one image through the fully connected layers at about half of the copy's bandwidth).
const AVX512: Efficiency = Efficiency {
    contraction: (0.92, 0.55),
    accumulation: (0.9, 0.55),
    ..AVX2
};

/// GPUs: the goals of tests/gpu/RESULTS.md, 60 % of the peak and 80 % of the bandwidth.
const GPU: Efficiency = Efficiency {
    contraction: (0.6, 0.8),
    accumulation: (0.6, 0.8),
    window: (0.5, 0.8),
    row: (0.5, 0.8),
    map: (0.5, 0.8),
};

impl Efficiency {
    fn of(profile: &Profile) -> &'static Efficiency {
        match (&profile.gpu, profile.lanes) {
            (Some(_), _) => &GPU,
            (None, 16..) => &AVX512,
            (None, _) => &AVX2,
        }
    }

    fn share(&self, kind: Kind) -> Share {
        match kind {
            Kind::Contraction => self.contraction,
            Kind::Accumulation => self.accumulation,
            Kind::Window => self.window,
            Kind::Row => self.row,
            Kind::Map => self.map,
        }
    }
}

impl Costs<'_> {
    /// The cost of a kernel.
    pub fn kernel(&self, candidate: &Candidate) -> KernelCost {
        let work = Work::of(candidate, self.profile);
        let mut cost = self.computed(&work);
        cost.measured_us = self.times.and_then(|times| times.find(candidate, self.precision));
        cost
    }

    /// The cost of a kernel of a program, without halos.
    pub fn call(&self, program: &Program, call: &KernelCall) -> KernelCost {
        self.kernel(&Candidate::of(program, call))
    }

    /// The cost of each launch that writes zeros around a result of a kernel.
    pub fn halos(&self, candidate: &Candidate) -> Vec<KernelCost> {
        let results = candidate.results.iter().filter(|value| value.layout.has_halo());
        results
            .map(|value| self.computed(&Work::of_halo(value)))
            .collect()
    }

    /// The time of a kernel of a program with the halos of its results.
    pub fn call_us(&self, program: &Program, call: &KernelCall) -> f64 {
        let candidate = Candidate::of(program, call);
        let halos: f64 = self.halos(&candidate).iter().map(KernelCost::us).sum();
        self.kernel(&candidate).us() + halos
    }

    /// The time to move bytes to another device of this kind.
    pub fn transfer_us(&self, bytes: f64) -> f64 {
        self.profile.link.latency_us + bytes / (self.profile.link.bandwidth * 1e3)
    }

    fn computed(&self, work: &Work) -> KernelCost {
        let (compute, memory) = Efficiency::of(self.profile).share(work.kind);
        // A kernel of few points leaves units idle.
        let units = (work.tasks as u64).clamp(1, u64::from(self.profile.units)) as u32;
        let busy = self.profile.with_units(units);
        let peak = match work.kind {
            Kind::Contraction | Kind::Accumulation => busy.peak(self.precision),
            _ => busy.compute.f32,
        };
        KernelCost {
            operations: work.operations,
            bytes: work.bytes,
            // GFLOP/s and GB/s are 10³ a microsecond.
            compute_us: work.slots / (peak * compute * 1e3),
            memory_us: work.bytes / (busy.bandwidth(work.bytes) * memory * 1e3),
            launch_us: self.profile.launch_us,
            measured_us: None,
        }
    }
}
