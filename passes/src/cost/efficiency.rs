//! What kernels of each kind reach of a device's peak and of its bandwidth: one figure a kind, none for a layer.

use super::Kind;
use ir::profile::Profile;

/// The shares `(of the peak, of the bandwidth)` that kernels of a kind reach on a device.
pub(super) fn share(profile: &Profile, kind: Kind) -> (f64, f64) {
    let reached = match (&profile.gpu, profile.lanes) {
        (Some(_), _) => GPU,
        (None, 16..) => AVX512,
        (None, _) => AVX2,
    };
    match kind {
        Kind::Contraction => reached.contraction,
        Kind::Accumulation => reached.accumulation,
        Kind::Window => reached.window,
        Kind::Row => reached.row,
        Kind::Map => reached.map,
    }
}

struct Reached {
    contraction: (f64, f64),
    accumulation: (f64, f64),
    window: (f64, f64),
    row: (f64, f64),
    map: (f64, f64),
}

/// Processors with AVX2, whose 16 registers make small tiles: medians over the kernels of the training step of AlexNet
/// 2012 at batch 32, as `alexc tune` measured them on the machine of the profile cpu2 (Zen 3, 2026-11-25).
const AVX2: Reached = Reached {
    contraction: (0.66, 0.48),
    accumulation: (0.42, 0.48),
    window: (0.9, 0.75),
    row: (0.5, 0.3),
    map: (0.5, 1.0),
};

/// Processors with AVX-512: README's kernels on Zen 4 (conv3 at 98 % of the peak, its gradients at 77 % and 93 %; one image
/// through the fully connected layers at about half of the copy's bandwidth); kinds that it does not tell of as AVX2.
const AVX512: Reached = Reached {
    contraction: (0.92, 0.55),
    accumulation: (0.9, 0.55),
    ..AVX2
};

/// GPUs: nothing is measured. The goals of tests/gpu/RESULTS.md, 60 % of the peak and 80 % of the bandwidth; what is no
/// contraction is taken to reach half of the peak, as on processors.
const GPU: Reached = Reached {
    contraction: (0.6, 0.8),
    accumulation: (0.6, 0.8),
    window: (0.5, 0.8),
    row: (0.5, 0.8),
    map: (0.5, 0.8),
};
