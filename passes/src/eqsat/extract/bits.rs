//! Sets of values as bits: a problem has as many sets of ancestors as values, and each may hold most of them.

use super::ClassValueId;

/// A set of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// The empty set among `count` values.
    pub fn none(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }

    /// The set of all `count` values.
    pub fn all(count: usize) -> Bits {
        Bits(vec![u64::MAX; count.div_ceil(64)])
    }

    /// Whether the set holds a value.
    pub fn contains(&self, value: ClassValueId) -> bool {
        self.0[value.0 / 64] >> (value.0 % 64) & 1 == 1
    }

    /// Adds a value.
    pub fn insert(&mut self, value: ClassValueId) {
        self.0[value.0 / 64] |= 1 << (value.0 % 64);
    }

    /// Removes a value.
    pub fn remove(&mut self, value: ClassValueId) {
        self.0[value.0 / 64] &= !(1 << (value.0 % 64));
    }

    /// Adds all values of another set.
    pub fn unite(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    /// Keeps the values of another set only.
    pub fn intersect(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }
}
