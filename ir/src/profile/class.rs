//! The classes of processors that a profile ships for, told apart by features: names of processors are not to be trusted,
//! because a hypervisor may hide them.

use super::Profile;

/// A class of x86-64 processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuClass {
    /// Vectors of 8 f32.
    Avx2,
    /// Vectors of 16 f32.
    Avx512,
    /// Vectors of 16 f32, and tiles of bf16.
    Amx,
}

impl CpuClass {
    /// All of them.
    pub const ALL: [CpuClass; 3] = [CpuClass::Avx2, CpuClass::Avx512, CpuClass::Amx];

    /// The class of a processor with these features, in the notation of LLVM: `+avx2,+fma,-avx512f`.
    pub fn of_features(features: &str) -> CpuClass {
        let has = |name: &str| {
            features
                .split(',')
                .any(|found| found.strip_prefix('+') == Some(name))
        };
        match (has("avx512f"), has("amx-tile") && has("amx-bf16")) {
            (true, true) => CpuClass::Amx,
            (true, false) => CpuClass::Avx512,
            (false, _) => CpuClass::Avx2,
        }
    }

    /// The name of its profile on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CpuClass::Avx2 => "cpu-avx2",
            CpuClass::Avx512 => "cpu-avx512",
            CpuClass::Amx => "cpu-amx",
        }
    }

    /// Its shipped profile. [`Profile::part`] derives from it what another number of cores reaches.
    pub fn profile(self) -> Profile {
        Profile::shipped(self.name()).expect("a profile ships for every class")
    }
}
