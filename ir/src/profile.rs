//! What a device can do at the most: the numbers that costs are computed from.
//!
//! A profile is a TOML file. Those that ship with the compiler lie in `ir/profiles`, each figure with its source;
//! `alexc devices --calibrate` writes one of the machine at hand. Rates are in 10⁹ a second: GFLOP/s (a fused
//! multiply-add is two operations) and GB/s (10⁹ bytes).

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
pub const SHIPPED: [(&str, &str); 3] = [
    ("cpu2", include_str!("../profiles/cpu2.toml")),
    ("gtx580", include_str!("../profiles/gtx580.toml")),
    ("h200", include_str!("../profiles/h200.toml")),
];

impl Profile {
    /// Reads a profile and refuses one that contradicts itself.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile =
            toml::from_str(text).map_err(|error| ProfileError(error.to_string().trim_end().to_string()))?;
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
        let one = self.one_unit.as_ref()?;
        let pairs = [
            ("f32", one.f32, "[compute] f32", compute.f32),
            ("bandwidth", one.bandwidth, "[memory] bandwidth", memory.bandwidth),
        ];
        let (key, one, all_key, all) = pairs.into_iter().find(|(_, one, _, all)| one > all)?;
        Some(format!(
            "[one_unit] {key} = {one} and {all_key} = {all}: expected all units together to reach what one does"
        ))
    }

    /// GFLOP/s of contractions in a precision; f32 where the device has no units of their own for it.
    pub fn peak(&self, precision: Precision) -> f64 {
        let own = match precision {
            Precision::F32 => None,
            Precision::Tf32 => self.compute.tf32,
            Precision::Bf16 => self.compute.bf16,
        };
        own.unwrap_or(self.compute.f32)
    }

    /// GB/s for a kernel that touches so many bytes: that of the smallest cache that holds them, or memory's.
    pub fn bandwidth(&self, bytes: f64) -> f64 {
        let fitting = self
            .memory
            .caches
            .iter()
            .filter(|cache| bytes <= cache.kb * 1024.0);
        fitting
            .filter_map(|cache| cache.bandwidth)
            .next()
            .unwrap_or(self.memory.bandwidth)
    }

    /// The same device with another number of units at work. Fewer get what one reaches alone and the rest in
    /// proportion; more are assumed to come with caches and memory channels of their own.
    pub fn with_units(&self, units: u32) -> Profile {
        let share = f64::from(units) / f64::from(self.units);
        let scaled = |all: f64, one: Option<f64>| match one {
            Some(one) if units <= self.units && self.units > 1 => {
                one + (all - one) * f64::from(units - 1) / f64::from(self.units - 1)
            }
            _ => all * share,
        };
        let one = self.one_unit.as_ref();
        let mut profile = self.clone();
        profile.units = units;
        profile.compute.f32 = scaled(self.compute.f32, one.map(|one| one.f32));
        profile.compute.tf32 = self.compute.tf32.map(|all| scaled(all, None));
        profile.compute.bf16 = self.compute.bf16.map(|all| scaled(all, None));
        profile.memory.bandwidth = scaled(self.memory.bandwidth, one.map(|one| one.bandwidth));
        for cache in &mut profile.memory.caches {
            cache.bandwidth = cache
                .bandwidth
                .map(|all| (all * share).max(profile.memory.bandwidth));
        }
        profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = 'two'\nsource = 'by hand'\nunits = 2\nlanes = 8\nlaunch_us = 1\n\
        [compute]\nf32 = 200\n\
        [memory]\ncapacity_gb = 16\nbandwidth = 40\n\
        [[memory.caches]]\nkb = 1024\nbandwidth = 200\n[[memory.caches]]\nkb = 32768\n\
        [one_unit]\nf32 = 110\nbandwidth = 30\n\
        [link]\nbandwidth = 10\nlatency_us = 2\n";

    #[test]
    fn shipped_profiles_are_sound_and_come_back_from_their_text() {
        for (name, _) in SHIPPED {
            let profile = Profile::shipped(name).unwrap();
            assert_eq!(Profile::parse(&profile.to_toml()).unwrap(), profile, "{name}");
        }
        assert_eq!(Profile::shipped("abacus"), None);
    }

    #[test]
    fn a_profile_that_contradicts_itself_is_refused_with_its_keys() {
        Profile::parse(SMALL).unwrap();
        for (from, to, parts) in [
            ("f32 = 200", "f32 = 0", &["[compute] f32 = 0", "above 0"][..]),
            ("f32 = 200", "f32 = -5", &["[compute] f32 = -5"]),
            ("f32 = 200", "f32 = nan", &["[compute] f32 = NaN"]),
            ("f32 = 200", "f32 = inf", &["[compute] f32 = inf"]),
            ("units = 2", "units = 0", &["units = 0"]),
            ("units = 2", "units = -2", &["units", "u32"]),
            ("launch_us = 1", "launch_us = 0", &["launch_us = 0"]),
            ("latency_us = 2", "latency_us = -1", &["[link] latency_us = -1"]),
            (
                "capacity_gb = 16\n",
                "",
                &["missing field `capacity_gb`", "[memory]"],
            ),
            (
                "capacity_gb = 16",
                "capacity_gb = 0",
                &["[memory] capacity_gb = 0"],
            ),
            (
                "capacity_gb = 16",
                "capacity_gb = 'much'",
                &["capacity_gb", "expected f64"],
            ),
            (
                "capacity_gb = 16",
                "capacity_gb = 0.01",
                &["kb = 32768", "[memory] capacity_gb = 0.01"],
            ),
            (
                "capacity_gb = 16",
                "capacity = 16",
                &["unknown field `capacity`", "`capacity_gb`"],
            ),
            (
                "bandwidth = 200",
                "bandwidth = 20",
                &["[[memory.caches]] 1 bandwidth = 20", "[memory] bandwidth = 40"],
            ),
            (
                "kb = 32768",
                "kb = 512",
                &["[[memory.caches]] 2 kb = 512", "kb = 1024"],
            ),
            (
                "f32 = 110",
                "f32 = 201",
                &["[one_unit] f32 = 201", "[compute] f32 = 200"],
            ),
            (
                "bandwidth = 30",
                "bandwidth = 41",
                &["[one_unit] bandwidth = 41", "[memory] bandwidth = 40"],
            ),
            ("'by hand'", "' '", &["source is empty"]),
        ] {
            assert!(SMALL.contains(from), "{from}");
            let error = Profile::parse(&SMALL.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            for part in parts {
                assert!(error.contains(part), "{to}: {part:?} is not in: {error}");
            }
        }
    }

    #[test]
    fn bytes_that_fit_a_cache_move_faster() {
        let profile = Profile::parse(SMALL).unwrap();
        assert_eq!(profile.bandwidth(1e6), 200.0);
        // The second cache has no figure, so it counts as memory.
        assert_eq!(profile.bandwidth(2e6), 40.0);
        assert_eq!(profile.bandwidth(1e9), 40.0);
    }

    #[test]
    fn units_share_what_they_have() {
        let profile = Profile::parse(SMALL).unwrap();
        assert_eq!(profile.with_units(2), profile);
        let one = profile.with_units(1);
        assert_eq!((one.compute.f32, one.memory.bandwidth), (110.0, 30.0));
        assert_eq!(one.memory.caches[0].bandwidth, Some(100.0));
        let eight = profile.with_units(8);
        assert_eq!((eight.compute.f32, eight.memory.bandwidth), (800.0, 160.0));
        let h200 = Profile::shipped("h200").unwrap();
        assert_eq!(h200.with_units(66).compute.f32, h200.compute.f32 / 2.0);
    }

    #[test]
    fn a_device_without_tensor_cores_computes_in_f32() {
        let (cpu, gpu) = (Profile::parse(SMALL).unwrap(), Profile::shipped("h200").unwrap());
        assert_eq!(cpu.peak(Precision::Bf16), 200.0);
        assert!(gpu.peak(Precision::F32) < gpu.peak(Precision::Tf32));
        assert!(gpu.peak(Precision::Tf32) < gpu.peak(Precision::Bf16));
    }
}
