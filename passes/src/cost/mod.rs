//! What kernels, transfers and programs cost on a device, in microseconds.
//!
//! | module | what it holds |
//! |---|---|
//! | [`work`] | what a kernel asks of a device: operations, instructions, bytes |
//! | [`times`] | measured times of kernels, which win over computed ones |
//! | [`mod@makespan`] | a program's time on its devices, by simulating their queues |
//!
//! A computed time is a roofline over a [`Profile`]: the larger of arithmetic at the peak times the profile's efficiency
//! of its kind of nest, and bytes at the bandwidth of the cache or memory that holds them; plus one launch.
//!
//! A search asks for the cost of a [`Candidate`], which need not be part of a program nor have layouts:
//!
//! ```
//! use ir::DType;
//! use ir::nest::Nest;
//! use ir::profile::{Precision, Profile};
//! use passes::cost::{Candidate, Costs, Stored};
//!
//! let profile = Profile::shipped("h200").unwrap();
//! let costs = Costs { profile: &profile, precision: Precision::F32, times: None };
//! let copy = Nest::copy(DType::F32, &[128, 4096]);
//! let operand = Stored { dtype: DType::F32, extents: &[128, 4096], layout: None };
//! let cost = costs.kernel(&Candidate::free(&copy, vec![operand]));
//! assert_eq!(cost.bytes, 2.0 * 4.0 * 128.0 * 4096.0);
//! ```
//!
//! That takes some ten microseconds, more of a nest with many reads (`passes/tests/cost.rs` measures it). It is a pure
//! function of the candidate, so that a search may keep the answers.

mod loops;
pub mod makespan;
pub mod times;
pub mod work;

pub use makespan::{Makespan, makespan};
pub use times::KernelTimes;
pub use work::{Kind, Work};

use ir::DType;
use ir::layout::Layout;
use ir::nest::Nest;
use ir::profile::{Precision, Profile, Reached};
use ir::program::{Kernel, Program, Value};
use std::sync::OnceLock;

/// A stored tensor, as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Element type.
    pub dtype: DType,
    /// Logical extents.
    pub extents: &'a [usize],
    /// Where its elements lie; `None` where that is not decided: then as suits the kernel best.
    pub layout: Option<&'a Layout>,
}

impl<'a> Stored<'a> {
    /// A value of a program.
    pub fn of(value: &'a Value) -> Stored<'a> {
        Stored {
            dtype: value.dtype,
            extents: &value.extents,
            layout: Some(&value.layout),
        }
    }

    /// Its bytes, storage padding included.
    pub fn bytes(&self) -> f64 {
        let elements = match self.layout {
            Some(layout) => layout.strides(self.extents).elements,
            None => self.extents.iter().product(),
        };
        elements as f64 * self.dtype.bytes() as f64
    }
}

/// A kernel that could be: a nest over stored tensors.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// What it computes.
    pub nest: &'a Nest,
    /// What it reads: [`ir::nest::Source::Operand`] numbers these.
    pub operands: Vec<Stored<'a>>,
    /// What it writes, one an output of the nest.
    pub results: Vec<Stored<'a>>,
}

impl<'a> Candidate<'a> {
    /// A kernel of a program.
    pub fn of(program: &'a Program, call: &'a Kernel) -> Candidate<'a> {
        let stored = |&id| Stored::of(program.value(id));
        Candidate {
            nest: &call.nest,
            operands: call.operands.iter().map(stored).collect(),
            results: call.results.iter().map(stored).collect(),
        }
    }

    /// A nest whose results lie as suits it.
    pub fn free(nest: &'a Nest, operands: Vec<Stored<'a>>) -> Candidate<'a> {
        let results = nest.outputs.iter().map(|output| Stored {
            dtype: output.dtype,
            extents: &output.extents,
            layout: None,
        });
        Candidate {
            nest,
            operands,
            results: results.collect(),
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

/// The cost of one launch: of a kernel, or of a transfer, whose time is all memory and start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelCost {
    /// Operations: a multiply-add of a contraction is two, any other operation on scalars one.
    pub operations: f64,
    /// Bytes of operands and results, each once, storage padding included.
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

/// What two devices of a kind cost by the profile that ships for it: for callers that have no profile.
pub fn shipped(machine: crate::DeviceKind) -> &'static [Costs<'static>] {
    static PROFILES: OnceLock<[Profile; 2]> = OnceLock::new();
    static COSTS: OnceLock<[[Costs<'static>; 2]; 2]> = OnceLock::new();
    let profiles = PROFILES.get_or_init(|| {
        ["cpu2", "h200"].map(|name| Profile::shipped(name).expect("profiles of these names ship"))
    });
    let costs = COSTS.get_or_init(|| {
        let of = |profile| Costs {
            profile,
            precision: Precision::F32,
            times: None,
        };
        [[of(&profiles[0]); 2], [of(&profiles[1]); 2]]
    });
    match machine {
        crate::DeviceKind::Cpu => &costs[0],
        crate::DeviceKind::Gpu => &costs[1],
    }
}

impl Costs<'_> {
    /// The cost of a kernel, without zeros around its results.
    pub fn kernel(&self, candidate: &Candidate) -> KernelCost {
        let work = Work::of(candidate, self.profile);
        let mut cost = self.computed(&work);
        cost.measured_us = self.times.and_then(|times| times.find(candidate, self.precision));
        cost
    }

    /// The cost of each launch that writes zeros around a result of a kernel.
    pub fn paddings(&self, candidate: &Candidate) -> Vec<KernelCost> {
        let has_padding = |stored: &&Stored| stored.layout.is_some_and(Layout::has_padding);
        let results = candidate.results.iter().filter(has_padding);
        results
            .map(|stored| self.computed(&Work::of_padding(stored)))
            .collect()
    }

    /// The time of a kernel with the zeros around its results.
    pub fn with_padding_us(&self, candidate: &Candidate) -> f64 {
        let paddings: f64 = self.paddings(candidate).iter().map(KernelCost::us).sum();
        self.kernel(candidate).us() + paddings
    }

    /// Microseconds of a nest's arithmetic alone: what it takes where operands and results need no memory.
    pub fn compute_us(&self, candidate: &Candidate) -> f64 {
        let cost = self.kernel(candidate);
        match cost.measured_us {
            Some(measured) if cost.bound() == Bound::Compute => measured - cost.launch_us,
            _ => cost.compute_us,
        }
    }

    /// Microseconds of reading or writing so many bytes once.
    pub fn traffic_us(&self, bytes: f64) -> f64 {
        bytes / (self.profile.bandwidth(bytes, self.profile.units) * 1e3)
    }

    /// The cost of bringing bytes from another device, whose link may be the slower one.
    pub fn transfer(&self, bytes: f64, from: &Costs) -> KernelCost {
        let links = [&self.profile.link, &from.profile.link];
        let bandwidth = links
            .iter()
            .map(|link| link.bandwidth)
            .fold(f64::INFINITY, f64::min);
        KernelCost {
            bytes,
            memory_us: bytes / (bandwidth * 1e3),
            launch_us: links.iter().map(|link| link.latency_us).fold(0.0, f64::max),
            ..KernelCost::default()
        }
    }

    fn computed(&self, work: &Work) -> KernelCost {
        let Reached { compute, memory } = reached(self.profile, work.kind);
        // A kernel of few points leaves units idle.
        let units = (work.tasks as u64).clamp(1, u64::from(self.profile.units)) as u32;
        let precision = match work.kind {
            Kind::Contraction | Kind::Accumulation => self.precision,
            _ => Precision::F32,
        };
        KernelCost {
            operations: work.operations,
            bytes: work.bytes,
            // GFLOP/s and GB/s are 10³ a microsecond.
            compute_us: work.slots / (self.profile.peak(precision, units) * compute * 1e3),
            memory_us: work.bytes / (self.profile.bandwidth(work.bytes, units) * memory * 1e3),
            launch_us: self.profile.launch_us,
            measured_us: None,
        }
    }
}

/// What kernels of a kind reach on a device.
fn reached(profile: &Profile, kind: Kind) -> Reached {
    let efficiency = profile.efficiency();
    match kind {
        Kind::Contraction => efficiency.contraction,
        Kind::Accumulation => efficiency.accumulation,
        Kind::Window => efficiency.window,
        Kind::Row => efficiency.row,
        Kind::Transform => efficiency.transform,
        Kind::Map => efficiency.map,
    }
}
