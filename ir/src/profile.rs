//! What a device can do at the most: the numbers that costs are computed from.
//!
//! A profile is a TOML file. Those that ship with the compiler lie in `ir/profiles`, each figure with its source;
//! `alexc devices --calibrate` writes one of the machine at hand. Rates are in 10⁹ a second: GFLOP/s (a fused
//! multiply-add is two operations) and GB/s (10⁹ bytes).

mod class;
mod efficiency;

pub use class::CpuClass;
pub use efficiency::{Efficiency, Reached};

use serde::{Deserialize, Serialize};

/// The arithmetic of contractions. Everything else, and every sum, is in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Fused multiply-add in f32.
    #[default]
    F32,
    /// Tensor cores, factors rounded to 10 bits of mantissa.
    Tf32,
    /// Tensor cores, factors rounded to 7 bits of mantissa.
    Bf16,
}

impl Precision {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Reads the name on the command line.
    pub fn from_name(name: &str) -> Option<Precision> {
        [Precision::F32, Precision::Tf32, Precision::Bf16]
            .into_iter()
            .find(|precision| precision.name() == name)
    }
}

/// The limits of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name; measured times of kernels are kept under it.
    pub name: String,
    /// Where the figures come from.
    pub source: String,
    /// Cores, or multiprocessors.
    pub units: u32,
    /// f32 elements that one instruction works on: lanes of a vector register, threads of a warp.
    pub lanes: u32,
    /// Microseconds from one kernel to the next.
    pub launch_us: f64,
    /// Arithmetic of all units together.
    pub compute: Compute,
    /// Memory.
    pub memory: Memory,
    /// What one unit reaches alone, where that is known; without it, its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_unit: Option<OneUnit>,
    /// The way to another device of its kind, or to the host.
    pub link: Link,
    /// What only a GPU has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// What kernels reach of the peak and the bandwidth; without it, what they reach on a shipped profile of its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Efficiency>,
}

/// Peaks of arithmetic, in GFLOP/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compute {
    /// Fused multiply-adds in f32.
    pub f32: f64,
    /// Tensor cores on tf32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tf32: Option<f64>,
    /// Tensor cores on bf16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bf16: Option<f64>,
}

/// Memory and what lies before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Capacity, in 10⁹ bytes.
    pub capacity_gb: f64,
    /// GB/s of a streaming copy by all units, bytes read and bytes written.
    pub bandwidth: f64,
    /// Caches, the smallest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Cache>,
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Kilobytes (1024 bytes) of all units together.
    pub kb: f64,
    /// GB/s of a copy within it by all units; without it no kernel is taken to be faster for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<f64>,
}

/// What one unit reaches alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneUnit {
    /// GFLOP/s in f32.
    pub f32: f64,
    /// GB/s of a streaming copy.
    pub bandwidth: f64,
}

/// The way between two devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// GB/s one way.
    pub bandwidth: f64,
    /// Microseconds before the first byte.
    pub latency_us: f64,
}

/// What only a GPU has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Cycles of a multiprocessor, in 10⁹ a second.
    pub clock_ghz: f64,
    /// Instructions of warps that a multiprocessor starts a cycle.
    pub issue: f64,
}

/// Why a text is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProfileError(pub String);

/// The profiles that ship with the compiler: the name on the command line, and the text.
pub const SHIPPED: [(&str, &str); 6] = [
    ("cpu-amx", include_str!("../profiles/cpu-amx.toml")),
    ("cpu-avx2", include_str!("../profiles/cpu-avx2.toml")),
    ("cpu-avx512", include_str!("../profiles/cpu-avx512.toml")),
    // The name from before there were classes.
    ("cpu2", include_str!("../profiles/cpu-avx2.toml")),
    ("gtx580", include_str!("../profiles/gtx580.toml")),
    ("h200", include_str!("../profiles/h200.toml")),
];

impl Profile {
    /// Reads a profile and refuses one that contradicts itself.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile = toml::from_str(text).map_err(|error| {
            // It shows the line; what would control a terminal is left out.
            let controls = |c: char| c.is_control() && c != '\n';
            ProfileError(error.to_string().trim_end().replace(controls, "\u{fffd}"))
        })?;
        match profile.problem() {
            Some(problem) => Err(ProfileError(problem)),
            None => Ok(profile),
        }
    }

    /// A shipped profile, by its name on the command line.
    pub fn shipped(name: &str) -> Option<Profile> {
        let (_, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
        Some(Profile::parse(text).expect("shipped profiles are sound"))
    }

    /// The profile as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a profile holds numbers, texts and tables only")
    }

    /// What is wrong with the numbers, if anything, with the keys at fault.
    pub fn problem(&self) -> Option<String> {
        let Profile {
            compute,
            memory,
            link,
            ..
        } = self;
        if let Some(key) = [("name", &self.name), ("source", &self.source)]
            .iter()
            .find_map(|(key, text)| text.trim().is_empty().then_some(key))
        {
            return Some(format!("{key} is empty: expected a text"));
        }
        let mut above_zero = vec![
            ("units".to_string(), f64::from(self.units)),
            ("lanes".to_string(), f64::from(self.lanes)),
            ("launch_us".to_string(), self.launch_us),
            ("[compute] f32".to_string(), compute.f32),
            ("[memory] capacity_gb".to_string(), memory.capacity_gb),
            ("[memory] bandwidth".to_string(), memory.bandwidth),
            ("[link] bandwidth".to_string(), link.bandwidth),
            ("[link] latency_us".to_string(), link.latency_us),
        ];
        let mut optional =
            |key: &str, value: Option<f64>| above_zero.extend(value.map(|v| (key.to_string(), v)));
        optional("[compute] tf32", compute.tf32);
        optional("[compute] bf16", compute.bf16);
        for (i, cache) in memory.caches.iter().enumerate() {
            optional(&format!("[[memory.caches]] {} kb", i + 1), Some(cache.kb));
            optional(&format!("[[memory.caches]] {} bandwidth", i + 1), cache.bandwidth);
        }
        optional("[one_unit] f32", self.one_unit.as_ref().map(|one| one.f32));
        optional(
            "[one_unit] bandwidth",
            self.one_unit.as_ref().map(|one| one.bandwidth),
        );
        optional("[gpu] clock_ghz", self.gpu.as_ref().map(|gpu| gpu.clock_ghz));
        optional("[gpu] issue", self.gpu.as_ref().map(|gpu| gpu.issue));
        above_zero.extend(self.efficiency.iter().flat_map(Efficiency::figures));
        if let Some((key, value)) = above_zero.iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            return Some(format!("{key} = {value}: expected a number above 0"));
        }
        self.contradiction()
    }

    /// Two figures that cannot both be right.
    fn contradiction(&self) -> Option<String> {
        let Profile { compute, memory, .. } = self;
        let mut before: Option<&Cache> = None;
        for (i, cache) in memory.caches.iter().enumerate() {
            let number = i + 1;
            if let Some(bandwidth) = cache.bandwidth.filter(|&b| b < memory.bandwidth) {
                return Some(format!(
                    "[[memory.caches]] {number} bandwidth = {bandwidth} and [memory] bandwidth = {}: expected a cache \
                     to be no slower than the memory behind it",
                    memory.bandwidth
                ));
            }
            if let Some(smaller) = before.filter(|smaller| smaller.kb >= cache.kb) {
                return Some(format!(
                    "[[memory.caches]] {number} kb = {} after kb = {}: expected the smallest cache first",
                    cache.kb, smaller.kb
                ));
            }
            before = Some(cache);
        }
        if let Some(cache) = before.filter(|cache| cache.kb * 1024.0 >= memory.capacity_gb * 1e9) {
            return Some(format!(
                "[[memory.caches]] kb = {} and [memory] capacity_gb = {}: expected more memory than cache",
                cache.kb, memory.capacity_gb
            ));
        }
        if let Some(gpu) = &self.gpu {
            let most = 2.0 * f64::from(self.units) * f64::from(self.lanes) * gpu.issue * gpu.clock_ghz;
            // Data sheets round.
            if compute.f32 > 1.01 * most {
                return Some(format!(
                    "[compute] f32 = {} and units = {}, lanes = {}, [gpu] issue = {}, clock_ghz = {}: expected at most two \
                     operations of each lane of each instruction, {most:.0}",
                    compute.f32, self.units, self.lanes, gpu.issue, gpu.clock_ghz
                ));
            }
        }
        let one = self.one_unit.as_ref()?;
        let pairs = [
            ("f32", one.f32, "[compute] f32", compute.f32),
            ("bandwidth", one.bandwidth, "[memory] bandwidth", memory.bandwidth),
        ];
        let units = f64::from(self.units);
        // Measured figures differ in their last digit.
        let at_odds = |one: f64, all: f64| one > all || all > 1.001 * units * one;
        let (key, one, all_key, all) = pairs.into_iter().find(|(_, one, _, all)| at_odds(*one, *all))?;
        Some(format!(
            "[one_unit] {key} = {one} and {all_key} = {all}: expected all {units} units together to reach what one does, \
             and at most {units} times that"
        ))
    }

    /// GFLOP/s of contractions in a precision by so many units; f32 where the device has no units of their own for it.
    pub fn peak(&self, precision: Precision, units: u32) -> f64 {
        let own = match precision {
            Precision::F32 => None,
            Precision::Tf32 => self.compute.tf32,
            Precision::Bf16 => self.compute.bf16,
        };
        match own {
            Some(all) => self.reached(units, all, None),
            None => self.reached(units, self.compute.f32, self.one_unit.as_ref().map(|one| one.f32)),
        }
    }

    /// What kernels reach of the peak and of the bandwidth.
    pub fn efficiency(&self) -> &Efficiency {
        match &self.efficiency {
            Some(efficiency) => efficiency,
            None => efficiency::of_class(self),
        }
    }

    /// GB/s by so many units for a kernel that touches so many bytes: of the smallest cache that holds them, or of memory.
    pub fn bandwidth(&self, bytes: f64, units: u32) -> f64 {
        let memory = self.memory_bandwidth(units);
        let mut caches = self.memory.caches.iter();
        let holds = caches.find_map(|cache| cache.bandwidth.filter(|_| bytes <= cache.kb * 1024.0));
        holds.map_or(memory, |all| self.reached(units, all, None).max(memory))
    }

    /// GB/s of memory by so many units.
    ///
    /// Memory saturates: with `b₁` GB/s of one unit alone, `n` units reach `n·b₁·(1 + h) / (n + h)`. The constant `h` is such
    /// that all units of the profile reach what it states of them: `h = N·(b_N − b₁) / (N·b₁ − b_N)` for `N` units. The
    /// formula also holds for more units than the profile has. Without a figure of one unit, each has an equal part.
    fn memory_bandwidth(&self, units: u32) -> f64 {
        let all = self.memory.bandwidth;
        let (n, of_all) = (f64::from(units), f64::from(self.units));
        match self.one_unit.as_ref().map(|one| one.bandwidth) {
            Some(one) if self.units > 1 && all < of_all * one => {
                let h = of_all * (all - one) / (of_all * one - all);
                n * one * (1.0 + h) / (n + h)
            }
            _ => all * n / of_all,
        }
    }

    /// What so many units reach of a rate: fewer get what one reaches alone and the rest in proportion; more than there
    /// are are assumed to come with arithmetic and caches of their own.
    fn reached(&self, units: u32, all: f64, one: Option<f64>) -> f64 {
        match one {
            Some(one) if units <= self.units && self.units > 1 => {
                one + (all - one) * f64::from(units - 1) / f64::from(self.units - 1)
            }
            _ => all * f64::from(units) / f64::from(self.units),
        }
    }

    /// So many units as a device of their own, while `busy` units are at work, these and others: their share of what all
    /// those reach. Neither number may be 0.
    pub fn part(&self, units: u32, busy: u32) -> Profile {
        let share = f64::from(units) / f64::from(busy);
        let mut part = self.clone();
        part.units = units;
        part.compute.f32 = self.peak(Precision::F32, busy) * share;
        part.compute.tf32 = self.compute.tf32.map(|all| self.reached(units, all, None));
        part.compute.bf16 = self.compute.bf16.map(|all| self.reached(units, all, None));
        part.memory.bandwidth = self.bandwidth(f64::INFINITY, busy) * share;
        part.memory.capacity_gb = self.memory.capacity_gb * share;
        for cache in &mut part.memory.caches {
            cache.bandwidth = cache
                .bandwidth
                .map(|all| self.reached(units, all, None).max(part.memory.bandwidth));
        }
        part.one_unit = self.one_unit.clone().filter(|_| units == busy);
        part
    }
}
