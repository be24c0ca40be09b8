//! Instructions in which the threads of a warp exchange values, and atomics.

use super::block::Block;
use super::code::*;
use super::fault::Fault;
use super::global::Access;
use super::lanes::{Mask, WARP};

impl Block<'_> {
    /// Matrices of 8 × 8 elements of 16 bits: lane `8i + r` names row `r` of matrix `i`, and lane `4r + j` gets elements `2j`
    /// and `2j + 1` of row `r` of each, or of column `r` if transposed.
    pub(super) fn load_matrix(
        &mut self,
        step: &Step,
        count: usize,
        transposed: bool,
        mask: &Mask,
    ) -> Result<(), Fault> {
        self.count(step.a, step.offsets.0, false, 16, mask);
        for (warp, &active) in mask.0.iter().enumerate().filter(|w| *w.1 != 0) {
            let first = warp * WARP;
            if active != u32::MAX {
                let thread = first + active.trailing_ones() as usize;
                return Err(Fault::new(
                    thread,
                    "does not take part in an instruction of its whole warp",
                ));
            }
            for matrix in 0..count {
                let mut elements = [[0u32; 8]; 8];
                for (row, elements) in elements.iter_mut().enumerate() {
                    let thread = first + 8 * matrix + row;
                    let address = self
                        .registers
                        .get_wide(step.a, thread)
                        .wrapping_add(step.offsets.0 as u64);
                    let mut words = [0; 4];
                    self.shared.load(address, 4, thread, &mut words)?;
                    for (i, element) in elements.iter_mut().enumerate() {
                        *element = words[i / 2] >> (i % 2 * 16) & 0xffff;
                    }
                }
                for lane in 0..WARP {
                    let (row, pair) = (lane / 4, lane % 4 * 2);
                    let at = |i: usize| {
                        if transposed {
                            elements[i][row]
                        } else {
                            elements[row][i]
                        }
                    };
                    let value = at(pair) | at(pair + 1) << 16;
                    self.registers.put(step.list[matrix], first + lane, value);
                }
            }
        }
        Ok(())
    }

    /// A value of another lane of the warp. `c` holds the ends of the segments that lanes stay in, as the ISA packs them.
    pub(super) fn shuffle(&mut self, step: &Step, how: Shuffle, mask: &Mask) -> Result<(), Fault> {
        for (warp, &active) in mask.0.iter().enumerate().filter(|w| *w.1 != 0) {
            let (from, by, ends) = (
                *self.registers.narrow(step.a, warp),
                *self.registers.narrow(step.b, warp),
                *self.registers.narrow(step.c, warp),
            );
            for lane in (0..WARP).filter(|lane| active >> lane & 1 == 1) {
                let (clamp, segment) = (ends[lane] & 31, ends[lane] >> 8 & 31);
                let (low, high) = (lane as u32 & segment, lane as u32 & segment | clamp & !segment);
                let by = by[lane] & 31;
                let (other, inside) = match how {
                    Shuffle::Up => (
                        lane as i64 - i64::from(by),
                        lane as i64 - i64::from(by) >= i64::from(high),
                    ),
                    Shuffle::Down => (i64::from(lane as u32 + by), lane as u32 + by <= high),
                    Shuffle::Butterfly => (i64::from(lane as u32 ^ by), (lane as u32 ^ by) <= high),
                    Shuffle::Index => {
                        let other = low | by & !segment;
                        (i64::from(other), other <= high)
                    }
                };
                let other = if inside { other as usize } else { lane };
                if active >> other & 1 == 0 {
                    let what = format!(
                        "takes a value of thread {}, which does not take part",
                        warp * WARP + other
                    );
                    return Err(Fault::new(warp * WARP + lane, what));
                }
                self.registers.put(step.d, warp * WARP + lane, from[other]);
                if let Some(&second) = step.list.first() {
                    self.registers.put(second, warp * WARP + lane, u32::from(inside));
                }
            }
        }
        Ok(())
    }

    pub(super) fn vote(&mut self, step: &Step, how: Vote, mask: &Mask) -> Result<(), Fault> {
        for (warp, &active) in mask.0.iter().enumerate().filter(|w| *w.1 != 0) {
            let values = self.registers.narrow(step.a, warp);
            let holds = (0..WARP).fold(0, |word, lane| word | u32::from(values[lane] != 0) << lane) & active;
            let result = match how {
                Vote::Any => u32::from(holds != 0),
                Vote::All => u32::from(holds == active),
                Vote::Ballot => holds,
                Vote::Active => active,
            };
            self.registers.set_narrow(step.d, warp, active, &[result; WARP]);
        }
        Ok(())
    }

    pub(super) fn atomic(
        &mut self,
        step: &Step,
        (space, how, of): (Memory, Atomic, Int),
        result: bool,
        mask: &Mask,
        memory: &mut Access,
    ) -> Result<(), Fault> {
        for thread in mask.threads() {
            if of.bytes() != 4 {
                return Err(Fault::new(thread, "only atomics of 32 bits are known"));
            }
            let address = self
                .registers
                .get_wide(step.a, thread)
                .wrapping_add(step.offsets.0 as u64);
            let (b, c) = (
                self.registers.get(step.b, thread),
                self.registers.get(step.c, thread),
            );
            let change = |word: u32| match how {
                Atomic::AddFloat => (f32::from_bits(word) + f32::from_bits(b)).to_bits(),
                Atomic::Add => word.wrapping_add(b),
                Atomic::Min if of == Int::S32 => (word as i32).min(b as i32) as u32,
                Atomic::Max if of == Int::S32 => (word as i32).max(b as i32) as u32,
                Atomic::Min => word.min(b),
                Atomic::Max => word.max(b),
                Atomic::And => word & b,
                Atomic::Or => word | b,
                Atomic::Exchange => b,
                Atomic::CompareExchange if word == b => c,
                Atomic::CompareExchange => word,
            };
            let before = match Self::place(space, address) {
                (Memory::Global, address) => {
                    self.read_bytes += 4;
                    self.written_bytes += 4;
                    memory.update(address, thread, change)?
                }
                (Memory::Shared, address) => self.shared.update(address, thread, change)?,
                _ => return Err(Fault::new(thread, "atomics are of global and shared memory")),
            };
            if result {
                self.registers.put(step.d, thread, before);
            }
        }
        Ok(())
    }
}
