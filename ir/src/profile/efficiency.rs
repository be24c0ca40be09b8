//! What kernels reach of a device's peak and of its bandwidth: one figure for each shape of nest, none for a layer.

use super::Profile;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// What kernels of each shape of nest reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Sums of products of two reads: convolutions, matrix products, their gradients.
    pub contraction: Reached,
    /// The same with sums so long that they go through memory.
    pub accumulation: Reached,
    /// Reductions whose reads slide with the point: pooling, normalisation.
    pub window: Reached,
    /// Any other reduction.
    pub row: Reached,
    /// Sums with a table of constants: the transforms of fast convolutions.
    pub transform: Reached,
    /// No reduction.
    pub map: Reached,
}

/// Fractions that kernels reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// Of the peak of arithmetic.
    pub compute: f64,
    /// Of the bandwidth.
    pub memory: f64,
}

impl Efficiency {
    /// All figures with their keys.
    pub(super) fn figures(&self) -> impl Iterator<Item = (String, f64)> {
        let shapes = [
            ("contraction", self.contraction),
            ("accumulation", self.accumulation),
            ("window", self.window),
            ("row", self.row),
            ("transform", self.transform),
            ("map", self.map),
        ];
        shapes.into_iter().flat_map(|(shape, reached)| {
            [("compute", reached.compute), ("memory", reached.memory)]
                .map(|(key, figure)| (format!("[efficiency.{shape}] {key}"), figure))
        })
    }
}

/// The efficiency of a device whose profile does not state it: that of a shipped profile of its class.
pub(super) fn of_class(profile: &Profile) -> &'static Efficiency {
    static CLASSES: LazyLock<[Efficiency; 3]> = LazyLock::new(|| {
        ["h200", "cpu-avx512", "cpu-avx2"].map(|name| {
            let profile = Profile::shipped(name).expect("the profile of a class ships");
            profile.efficiency.expect("the profile of a class states it")
        })
    });
    let [gpu, avx512, avx2] = &*CLASSES;
    match (&profile.gpu, profile.lanes) {
        (Some(_), _) => gpu,
        (None, 16..) => avx512,
        (None, _) => avx2,
    }
}
