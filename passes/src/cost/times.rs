//! Measured times of kernels. They win over computed ones, because a schedule that looks good on paper may not be.

use super::Candidate;
use ir::profile::Precision;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display, Formatter, Write};

/// The times of kernels on one device, as one version of the compiler makes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTimes {
    known: BTreeMap<Key, MeasuredTime>,
    /// The least time of each nest, whatever its layouts.
    least: HashMap<u128, f64>,
}

/// What a kernel was measured to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTime {
    /// Microseconds, with its start.
    pub us: f64,
    /// What it computes, for people.
    pub label: String,
}

impl KernelTimes {
    /// Times by their keys.
    pub fn new(known: BTreeMap<Key, MeasuredTime>) -> KernelTimes {
        let mut times = KernelTimes::default();
        known.into_iter().for_each(|(key, time)| times.insert(key, time));
        times
    }

    /// All times by their keys.
    pub fn all(&self) -> &BTreeMap<Key, MeasuredTime> {
        &self.known
    }

    /// Adds a time; the one that was known is replaced.
    pub fn insert(&mut self, key: Key, time: MeasuredTime) {
        let nest = key.nest;
        self.known.insert(key, time);
        let [first, last] = [0, u128::MAX].map(|layouts| Key { nest, layouts });
        let same = self.known.range(first..=last).map(|(_, time)| time.us);
        self.least.insert(nest, same.fold(f64::INFINITY, f64::min));
    }

    /// The time of a kernel in microseconds, if it is known; where a layout is not decided, the least of any layouts.
    pub fn find(&self, candidate: &Candidate, precision: Precision) -> Option<f64> {
        if self.known.is_empty() {
            return None;
        }
        let nest = Key::nest_of(candidate, precision);
        match Key::layouts_of(candidate) {
            Some(layouts) => self.known.get(&Key { nest, layouts }).map(|time| time.us),
            None => self.least.get(&nest).copied(),
        }
    }
}

/// What tells kernels apart. Names do not count, so equal layers share one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key {
    /// A hash of the nest, of type and extents of every operand, and of the precision of contractions.
    nest: u128,
    /// A hash of the layout of every operand and result.
    layouts: u128,
}

impl Key {
    /// The key of a kernel; `None` where a layout is not decided.
    pub fn of(candidate: &Candidate, precision: Precision) -> Option<Key> {
        let layouts = Key::layouts_of(candidate)?;
        let nest = Key::nest_of(candidate, precision);
        Some(Key { nest, layouts })
    }

    fn nest_of(candidate: &Candidate, precision: Precision) -> u128 {
        let precision = match candidate.nest.contraction() {
            Some(_) => precision,
            None => Precision::F32,
        };
        let operands = candidate.operands.iter();
        let operands: Vec<_> = operands.map(|stored| (stored.dtype, stored.extents)).collect();
        hash(&(candidate.nest, operands, precision))
    }

    fn layouts_of(candidate: &Candidate) -> Option<u128> {
        let all = candidate.operands.iter().chain(&candidate.results);
        let layouts: Vec<_> = all.map(|stored| stored.layout).collect::<Option<_>>()?;
        Some(hash(&layouts))
    }
}

/// The hash of what `Debug` writes, which tells apart whatever differs in a field.
fn hash(value: &impl Debug) -> u128 {
    let mut hash = Fnv(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    write!(hash, "{value:?}").expect("hashing takes any text");
    hash.0
}

/// FNV-1a of 128 bits (draft-eastlake-fnv): stable between machines and versions of Rust, and quick.
struct Fnv(u128);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        Ok(())
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{:032x}-{:032x}", self.nest, self.layouts)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Key, String> {
        let number = |text: &str| u128::from_str_radix(text, 16).ok();
        let parts = text.split_once('-');
        let parts = parts.and_then(|(nest, layouts)| Some((number(nest)?, number(layouts)?)));
        let (nest, layouts) = parts
            .ok_or_else(|| format!("found the key {text:?}, expected two hexadecimal numbers joined by -"))?;
        Ok(Key { nest, layouts })
    }
}
