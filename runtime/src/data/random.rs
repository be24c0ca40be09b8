//! Random numbers that are functions of what they are for, not of what was drawn before: number `n` of a stream is
//! SplitMix64 (Steele, Lea, Flood 2014) at position `n` from the stream's key, and the key is mixed from the seed,
//! the purpose, the epoch and the image. So any thread can draw for any image at any time, and a run that resumes in
//! the middle of an epoch draws what it would have drawn.

use crate::weights::mix;

/// What a stream is for, so that two uses of one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The order of an epoch.
    Order = 1,
    /// Crops, mirror images and colours.
    Augment = 2,
    /// Drawn images.
    Synth = 3,
}

/// A stream of random numbers, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of item `index` in round `round`.
    pub fn new(seed: u64, purpose: Purpose, round: u64, index: u64) -> Stream {
        Stream(mix(mix(mix(seed, purpose as u64), round), index))
    }

    /// 64 random bits.
    pub fn bits(self, position: u64) -> u64 {
        mix(self.0, position)
    }

    /// A whole number in `0..bound`; 0 when `bound` is 0. The bias is below `bound` / 2⁶⁴.
    pub fn below(self, position: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(position)) * u128::from(bound)) >> 64) as u64
    }

    /// A number in (0, 1].
    pub fn uniform(self, position: u64) -> f64 {
        ((self.bits(position) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal draw from positions `position` and `position + 1` (Box and Muller 1958).
    pub fn normal(self, position: u64) -> f64 {
        let radius = (-2.0 * self.uniform(position).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(position + 1)).cos()
    }
}

/// The order of `count` images in an epoch (Fisher and Yates 1938).
pub(crate) fn order(seed: u64, epoch: u64, count: u32) -> Vec<u32> {
    let stream = Stream::new(seed, Purpose::Order, epoch, 0);
    let mut order: Vec<u32> = (0..count).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, stream.below(i as u64, i as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_hold_every_image_once_and_differ() {
        let first = order(7, 0, 1000);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(first, order(7, 0, 1000));
        assert_ne!(first, order(7, 1, 1000));
        assert_ne!(first, order(8, 0, 1000));
        // In a random order each image stays at its place with probability 1/1000.
        assert!(first.iter().zip(0..).filter(|(a, b)| **a == *b).count() < 10);
        assert!(order(7, 0, 0).is_empty());
    }

    #[test]
    fn draws_have_the_right_moments() {
        let stream = Stream::new(1, Purpose::Augment, 2, 3);
        let n = 20_000;
        let normals: Vec<f64> = (0..n).map(|i| stream.normal(2 * i)).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04,
            "{mean} {variance}"
        );
        let mut counts = [0; 7];
        (0..n).for_each(|i| counts[stream.below(i, 7) as usize] += 1);
        assert!(
            counts.iter().all(|&count| (2600..3120).contains(&count)),
            "{counts:?}"
        );
        assert_ne!(stream, Stream::new(1, Purpose::Synth, 2, 3));
        assert_ne!(stream, Stream::new(1, Purpose::Augment, 3, 2));
    }
}
