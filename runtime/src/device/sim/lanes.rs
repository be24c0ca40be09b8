//! Registers of all threads of a block, and which of the threads are active.
//!
//! A register is an array over the threads, so an instruction is one loop over its arrays, a warp of 32 threads at a time.

use super::code::Register;

/// Threads of a warp.
pub const WARP: usize = 32;

/// One bit a thread, a word a warp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(pub Vec<u32>);

impl Mask {
    /// The first `threads` threads.
    pub fn first(threads: usize) -> Mask {
        let warps = threads.div_ceil(WARP);
        let word = |warp: usize| match threads - warp * WARP {
            left if left >= WARP => u32::MAX,
            left => (1 << left) - 1,
        };
        Mask((0..warps).map(word).collect())
    }

    /// Whether no thread is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// How many threads are in it.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The threads that are not in `other`.
    pub fn without(&self, other: &Mask) -> Mask {
        Mask(self.0.iter().zip(&other.0).map(|(a, b)| a & !b).collect())
    }

    /// The threads in it, in order.
    #[inline(always)]
    pub fn threads(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(warp, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let lane = left.trailing_zeros() as usize;
                    left &= left - 1;
                    warp * WARP + lane
                })
            })
        })
    }
}

/// The registers of a block's threads.
pub struct Registers {
    /// Threads, rounded up to whole warps.
    pub lanes: usize,
    /// Registers of 32 bits, each an array over the threads. Predicates are 0 or 1; values of 16 bits have upper bits 0.
    pub narrow: Vec<u32>,
    /// Registers of 64 bits.
    pub wide: Vec<u64>,
}

/// The values of a warp.
pub type Narrow = [u32; WARP];
/// The values of a warp, of 64 bits.
pub type Wide = [u64; WARP];

impl Registers {
    /// This number of registers of each kind, for this number of threads.
    pub fn new(threads: usize, counts: (usize, usize)) -> Registers {
        let lanes = threads.next_multiple_of(WARP);
        Registers {
            lanes,
            narrow: vec![0; counts.0 * lanes],
            wide: vec![0; counts.1 * lanes],
        }
    }

    /// A warp's values of a register of 32 bits.
    #[inline(always)]
    pub fn narrow(&self, register: Register, warp: usize) -> &Narrow {
        let at = register as usize * self.lanes + warp * WARP;
        self.narrow[at..at + WARP]
            .try_into()
            .expect("a warp has 32 threads")
    }

    /// A warp's values of a register of 64 bits.
    #[inline(always)]
    pub fn wide(&self, register: Register, warp: usize) -> &Wide {
        let at = register as usize * self.lanes + warp * WARP;
        self.wide[at..at + WARP]
            .try_into()
            .expect("a warp has 32 threads")
    }

    /// Sets the values of the threads in `mask`.
    #[inline(always)]
    pub fn set_narrow(&mut self, register: Register, warp: usize, mask: u32, values: &Narrow) {
        let at = register as usize * self.lanes + warp * WARP;
        let to: &mut Narrow = (&mut self.narrow[at..at + WARP])
            .try_into()
            .expect("a warp has 32 threads");
        if mask == u32::MAX {
            *to = *values;
            return;
        }
        for i in 0..WARP {
            to[i] = if mask >> i & 1 == 1 { values[i] } else { to[i] };
        }
    }

    /// Sets the values of the threads in `mask`.
    #[inline(always)]
    pub fn set_wide(&mut self, register: Register, warp: usize, mask: u32, values: &Wide) {
        let at = register as usize * self.lanes + warp * WARP;
        let to: &mut Wide = (&mut self.wide[at..at + WARP])
            .try_into()
            .expect("a warp has 32 threads");
        if mask == u32::MAX {
            *to = *values;
            return;
        }
        for i in 0..WARP {
            to[i] = if mask >> i & 1 == 1 { values[i] } else { to[i] };
        }
    }

    /// One thread's value.
    #[inline(always)]
    pub fn get(&self, register: Register, thread: usize) -> u32 {
        self.narrow[register as usize * self.lanes + thread]
    }

    /// One thread's value of 64 bits.
    #[inline(always)]
    pub fn get_wide(&self, register: Register, thread: usize) -> u64 {
        self.wide[register as usize * self.lanes + thread]
    }

    /// Sets one thread's value.
    #[inline(always)]
    pub fn put(&mut self, register: Register, thread: usize, value: u32) {
        self.narrow[register as usize * self.lanes + thread] = value;
    }

    /// Sets one thread's value of 64 bits.
    #[inline(always)]
    pub fn put_wide(&mut self, register: Register, thread: usize, value: u64) {
        self.wide[register as usize * self.lanes + thread] = value;
    }

    /// Which threads of `mask` have a predicate that holds, or does not if `negated`.
    pub fn holding(&self, predicate: Register, negated: bool, mask: &Mask) -> Mask {
        let word = |(warp, &mask): (usize, &u32)| {
            let values = self.narrow(predicate, warp);
            let mut word = 0;
            for (i, &value) in values.iter().enumerate() {
                word |= u32::from((value != 0) != negated) << i;
            }
            word & mask
        };
        Mask(mask.0.iter().enumerate().map(word).collect())
    }
}

/// Puts `f` of each thread's values into `d`: registers of the kinds given, `narrow` or `wide`.
macro_rules! map {
    ($registers:expr, $mask:expr, $to:ident $d:expr, ($($from:ident $a:expr => $name:ident),*), $f:expr) => {{
        let (registers, mask): (&mut $crate::device::sim::lanes::Registers, &$crate::device::sim::lanes::Mask) =
            ($registers, $mask);
        for warp in 0..mask.0.len() {
            let active = mask.0[warp];
            if active == 0 {
                continue;
            }
            $(let $name = registers.$from($a, warp);)*
            let mut out = map!(@zeros $to);
            for lane in 0..$crate::device::sim::lanes::WARP {
                $(let $name = $name[lane];)*
                out[lane] = $f;
            }
            map!(@set $to registers, $d, warp, active, out);
        }
    }};
    (@zeros narrow) => { [0u32; $crate::device::sim::lanes::WARP] };
    (@zeros wide) => { [0u64; $crate::device::sim::lanes::WARP] };
    (@set narrow $registers:ident, $d:expr, $warp:ident, $active:ident, $out:ident) => {
        $registers.set_narrow($d, $warp, $active, &$out)
    };
    (@set wide $registers:ident, $d:expr, $warp:ident, $active:ident, $out:ident) => {
        $registers.set_wide($d, $warp, $active, &$out)
    };
}
pub(crate) use map;
