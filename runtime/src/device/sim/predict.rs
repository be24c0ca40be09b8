//! Predicts from a kernel's counts the time on a real GPU, and the resource that bounds it.
//!
//! The prediction is a roofline: every resource works at its peak, all at the same time, and the slowest one bounds the
//! kernel. Bytes count once per launch, because repeated reads are assumed to hit the second-level cache.

use super::counts::Counts;
use ir::profile::{Precision, Profile};
use serde::Serialize;
use std::sync::LazyLock;

/// NVIDIA H200 SXM, from the profile that ships with the compiler.
pub static H200: LazyLock<Profile> =
    LazyLock::new(|| Profile::shipped("h200").expect("the profile of this name ships"));

/// The prediction for one launch of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Microseconds.
    pub us: f64,
    /// The resource that bounds it.
    pub bound: &'static str,
}

const WARP: f64 = 32.0;

/// Counted operations of tensor cores, on tf32 and on bf16.
pub fn tensor_operations(counts: &Counts) -> (f64, f64) {
    let (mut tf32, mut bf16) = (0.0, 0.0);
    for (name, &executed) in &counts.instructions {
        // Rows, columns and depth of one warp's part.
        let parts: Vec<&str> = name.split('.').collect();
        let (columns, ty) = match parts[..] {
            ["mma", ty] => (8.0, ty),
            ["wgmma", shape, ty] => {
                let columns = shape.strip_prefix("m64n").and_then(|rest| rest.split('k').next());
                (columns.and_then(|n| n.parse().ok()).unwrap_or(0.0), ty)
            }
            _ => continue,
        };
        let (sum, depth) = match ty {
            "bf16" => (&mut bf16, 16.0),
            _ => (&mut tf32, 8.0),
        };
        *sum += executed as f64 / WARP * 2.0 * 16.0 * columns * depth;
    }
    (tf32, bf16)
}

/// Predicts the mean of the counted launches. Panics for the profile of a CPU.
pub fn predict(counts: &Counts, profile: &Profile) -> Prediction {
    let launches = counts.launches.max(1) as f64;
    let gpu = profile.gpu.as_ref().expect("kernels are counted for GPUs");
    let processors = f64::from(profile.units);
    // A grid smaller than the GPU leaves the rest of it idle.
    let busy = (counts.blocks as f64 / launches).min(processors).max(1.0);
    let cycles = busy * gpu.clock_ghz * 1e9;
    let share = busy / processors;
    let peak = |precision| profile.peak(precision, profile.units) * 1e9 * share;
    let all: u64 = counts.instructions.values().sum();
    let bytes = (counts.distinct_read_bytes + counts.distinct_written_bytes) as f64;
    let (tf32, bf16) = tensor_operations(counts);
    let bounds = [
        ("launching", 0.0),
        ("memory", bytes / (profile.memory.bandwidth * 1e9)),
        (
            "multiply-adds",
            counts.executed("fma") as f64 * 2.0 / peak(Precision::F32),
        ),
        (
            "tensor cores",
            tf32 / peak(Precision::Tf32) + bf16 / peak(Precision::Bf16),
        ),
        ("shared memory", counts.shared_cycles as f64 / cycles),
        ("instructions", all as f64 / WARP / gpu.issue / cycles),
    ];
    let (bound, seconds) = bounds
        .into_iter()
        .map(|(name, seconds)| (name, seconds / launches))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .expect("there are bounds");
    let bound = if seconds * 1e6 < profile.launch_us {
        "launching"
    } else {
        bound
    };
    Prediction {
        us: profile.launch_us + seconds * 1e6,
        bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(change: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = Counts {
            launches: 2,
            blocks: 2 * 1320,
            ..Counts::default()
        };
        change(&mut counts);
        counts
    }

    #[test]
    fn the_busiest_resource_bounds_a_kernel() {
        // 4.8 GB in each of two launches take a millisecond each.
        let memory = predict(&counts(|c| c.distinct_read_bytes = 9_600_000_000), &H200);
        assert_eq!(memory.bound, "memory");
        assert!((memory.us - H200.launch_us - 1000.0).abs() < 1e-6, "{memory:?}");
        let tensor = predict(
            &counts(|c| _ = c.instructions.insert("mma.tf32".into(), 32 * 1_000_000_000)),
            &H200,
        );
        // 10⁹ instructions of 2048 operations in two launches, at 494.5·10¹² a second.
        assert_eq!(tensor.bound, "tensor cores");
        assert!(
            (tensor.us - H200.launch_us - 1e9 * 2048.0 / 494.5e12 / 2.0 * 1e6).abs() < 1e-6,
            "{tensor:?}"
        );
        let conflicts = predict(&counts(|c| c.shared_cycles = 1 << 40), &H200);
        assert_eq!(conflicts.bound, "shared memory");
        assert_eq!(predict(&counts(|_| ()), &H200).bound, "launching");
    }

    #[test]
    fn a_small_grid_is_slower() {
        let work = |blocks: u64| {
            let counts = counts(|c| {
                c.blocks = 2 * blocks;
                c.instructions.insert("fma".into(), 1 << 40);
            });
            predict(&counts, &H200).us
        };
        assert!((work(13) - H200.launch_us) / (work(1320) - H200.launch_us) > 10.0);
    }
}
