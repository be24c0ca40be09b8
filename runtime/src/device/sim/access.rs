//! Loads, stores and copies of a block's threads. They find the memory that an address refers to, and count the access.

use super::block::Block;
use super::code::*;
use super::decode::{CONSTANTS, LOCAL, SHARED};
use super::fault::Fault;
use super::global::Access;
use super::lanes::{Mask, WARP};

impl Block<'_> {
    /// Counts an access to memory if the block is one that is counted in detail.
    #[inline(always)]
    pub(super) fn count(&mut self, register: Register, offset: i64, global: bool, bytes: usize, mask: &Mask) {
        if !self.detailed {
            return;
        }
        for (warp, &active) in mask.0.iter().enumerate().filter(|w| *w.1 != 0) {
            let addresses = self.addresses(register, offset, warp, |lane| active >> lane & 1 == 1);
            match global {
                true => self.detail.global(&addresses, bytes),
                false => self.detail.shared(&addresses, bytes),
            }
        }
    }

    /// The addresses of the lanes of a warp that `takes_part` selects.
    #[inline(always)]
    fn addresses(
        &self,
        register: Register,
        offset: i64,
        warp: usize,
        takes_part: impl Fn(usize) -> bool,
    ) -> Vec<u64> {
        let values = self.registers.wide(register, warp);
        let lanes = (0..WARP).filter(|&lane| takes_part(lane));
        lanes
            .map(|lane| values[lane].wrapping_add(offset as u64))
            .collect()
    }

    /// The address of one thread.
    #[inline(always)]
    fn address(&self, register: Register, offset: i64, thread: usize) -> u64 {
        self.registers
            .get_wide(register, thread)
            .wrapping_add(offset as u64)
    }

    /// The memory that a generic address refers to, and the address there.
    #[inline(always)]
    pub(super) fn place(space: Memory, address: u64) -> (Memory, u64) {
        match space {
            Memory::Generic if address & LOCAL != 0 => (Memory::Local, address & !LOCAL),
            Memory::Generic if address & SHARED != 0 => (Memory::Shared, address & !SHARED),
            Memory::Generic | Memory::Global if address & CONSTANTS != 0 => {
                (Memory::Constant, address & !CONSTANTS)
            }
            Memory::Constant => (Memory::Constant, address & !CONSTANTS),
            Memory::Generic => (Memory::Global, address),
            space => (space, address),
        }
    }

    #[inline(always)]
    pub(super) fn load(
        &mut self,
        step: &Step,
        space: Memory,
        of: Int,
        mask: &Mask,
        memory: &mut Access,
    ) -> Result<(), Fault> {
        let (size, count) = (of.bytes(), step.list.len());
        let bytes = size * count;
        match space {
            Memory::Global => {
                self.read_bytes += bytes as u64 * mask.count();
                self.count(step.a, step.offsets.0, true, bytes, mask);
            }
            Memory::Shared => self.count(step.a, step.offsets.0, false, bytes, mask),
            _ => {}
        }
        for thread in mask.threads() {
            let address = self.address(step.a, step.offsets.0, thread);
            let (space, address) = Self::place(space, address);
            if size < 4 {
                if count != 1 {
                    return Err(Fault::new(
                        thread,
                        "vectors of elements below 4 bytes are not supported",
                    ));
                }
                let value = match space {
                    Memory::Global => memory.load_bytes(address, size, thread)?,
                    Memory::Shared => self.shared.load_bytes(address, size, thread)?,
                    _ => {
                        let word = self.private(space, address & !3, thread, 1)?[0];
                        word >> (address % 4 * 8) & if size == 1 { 0xff } else { 0xffff }
                    }
                };
                let value = match of {
                    Int::S8 => value as i8 as i32 as u32,
                    Int::S16 => value as i16 as i32 as u32,
                    _ => value,
                };
                self.registers.put(step.list[0], thread, value);
                continue;
            }
            let mut words = [0; 4];
            match space {
                Memory::Global => memory.load(address, bytes / 4, thread, &mut words)?,
                Memory::Shared => self.shared.load(address, bytes / 4, thread, &mut words)?,
                space => words = self.private(space, address, thread, bytes / 4)?,
            }
            for (i, &register) in step.list.iter().enumerate() {
                match size {
                    4 => self.registers.put(register, thread, words[i]),
                    _ => {
                        let value = u64::from(words[2 * i]) | u64::from(words[2 * i + 1]) << 32;
                        self.registers.put_wide(register, thread, value);
                    }
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn store(
        &mut self,
        step: &Step,
        space: Memory,
        of: Int,
        mask: &Mask,
        memory: &mut Access,
    ) -> Result<(), Fault> {
        let (size, count) = (of.bytes(), step.list.len());
        let bytes = size * count;
        match space {
            Memory::Global => {
                self.written_bytes += bytes as u64 * mask.count();
                self.count(step.a, step.offsets.0, true, bytes, mask);
            }
            Memory::Shared => self.count(step.a, step.offsets.0, false, bytes, mask),
            _ => {}
        }
        for thread in mask.threads() {
            let address = self.address(step.a, step.offsets.0, thread);
            let (space, address) = Self::place(space, address);
            if size < 4 {
                let value = self.registers.get(step.list[0], thread);
                match space {
                    _ if count != 1 => {
                        return Err(Fault::new(
                            thread,
                            "vectors of elements below 4 bytes are not supported",
                        ));
                    }
                    Memory::Global => memory.store_bytes(address, size, thread, value)?,
                    Memory::Shared => self.shared.store_bytes(address, size, thread, value)?,
                    _ => {
                        return Err(Fault::new(
                            thread,
                            "stores of elements below 4 bytes are supported in global and shared memory only",
                        ));
                    }
                }
                continue;
            }
            let mut words = [0; 4];
            for (i, &register) in step.list.iter().enumerate() {
                match size {
                    4 => words[i] = self.registers.get(register, thread),
                    _ => {
                        let value = self.registers.get_wide(register, thread);
                        (words[2 * i], words[2 * i + 1]) = (value as u32, (value >> 32) as u32);
                    }
                }
            }
            match space {
                Memory::Global => memory.store(address, bytes / 4, thread, &words)?,
                Memory::Shared => self.shared.store(address, bytes / 4, thread, &words)?,
                Memory::Local => {
                    let first = self.local_word(address, bytes, thread)?;
                    for (i, &word) in words.iter().take(bytes / 4).enumerate() {
                        let at = (first + i) * self.registers.lanes + thread;
                        self.local[at] = (word, true);
                    }
                }
                _ => return Err(Fault::new(thread, "writes a constant")),
            }
        }
        Ok(())
    }

    fn local_word(&self, address: u64, bytes: usize, thread: usize) -> Result<usize, Fault> {
        let size = self.kernel.program.local_bytes as u64;
        if address.checked_add(bytes as u64).is_none_or(|end| end > size) {
            let what = format!(
                "access out of bounds: {bytes} bytes at {address:#x} of local memory, which has {size} bytes"
            );
            return Err(Fault::new(thread, what));
        }
        if !address.is_multiple_of(bytes as u64) {
            let what = format!("misaligned access: {bytes} bytes at {address:#x} of local memory");
            return Err(Fault::new(thread, what));
        }
        Ok(address as usize / 4)
    }

    /// Reads words of the thread's local memory, or of constants.
    fn private(&self, space: Memory, address: u64, thread: usize, words: usize) -> Result<[u32; 4], Fault> {
        let mut found = [0; 4];
        if space == Memory::Constant {
            let constants = &self.kernel.program.constants;
            let bytes = constants.get(address as usize..address as usize + 4 * words);
            let bytes =
                bytes.ok_or_else(|| Fault::new(thread, "access out of bounds: of the module's constants"))?;
            for (word, bytes) in found.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }
            return Ok(found);
        }
        let first = self.local_word(address, 4 * words, thread)?;
        for (i, word) in found.iter_mut().take(words).enumerate() {
            let (value, written) = self.local[(first + i) * self.registers.lanes + thread];
            if !written {
                return Err(Fault::new(thread, "reads local memory that nothing wrote"));
            }
            *word = value;
        }
        Ok(found)
    }

    #[inline(always)]
    pub(super) fn copy(
        &mut self,
        step: &Step,
        bytes: usize,
        mask: &Mask,
        memory: &mut Access,
    ) -> Result<(), Fault> {
        self.count(step.a, step.offsets.0, false, bytes, mask);
        for (warp, &active) in mask.0.iter().enumerate() {
            if !self.detailed || active == 0 {
                continue;
            }
            let sizes = self.registers.narrow(step.c, warp);
            let addresses = self.addresses(step.b, step.offsets.1, warp, |lane| {
                active >> lane & 1 == 1 && sizes[lane] > 0
            });
            if !addresses.is_empty() {
                self.detail.global(&addresses, bytes);
            }
        }
        for thread in mask.threads() {
            let to = self.address(step.a, step.offsets.0, thread);
            let from = self.address(step.b, step.offsets.1, thread);
            let size = self.registers.get(step.c, thread) as usize;
            let mut words = [0; 4];
            if size == bytes {
                memory.load(from, bytes / 4, thread, &mut words)?;
                self.read_bytes += bytes as u64;
            } else if size > 0 {
                return Err(Fault::new(
                    thread,
                    format!("copies {size} of {bytes} bytes; all or none are expected"),
                ));
            }
            self.shared.copy(to, bytes / 4, thread, &words)?;
        }
        Ok(())
    }
}
