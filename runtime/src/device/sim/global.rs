//! Global memory: the allocations of a device, and for every word who touched it last.
//!
//! An allocation has addresses of its own, far from those of all others, so that a stray access meets nothing. A stamp a
//! word tells who wrote it (0 is nobody, [`HOST`] the host, else a number that only one block of one launch has) and who
//! read it, so that reads of what nobody wrote and races between blocks are seen. Accesses of less than a word take
//! part in the first but not in the second.

use super::fault::Fault;
use ir::plan::{Allocation, Plan, Role};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The stamp of the host.
pub const HOST: u32 = 1;

/// Bits of an address within an allocation.
const WITHIN: u32 = 40;

/// An allocation.
pub struct SimAllocation {
    words: Box<[AtomicU32]>,
    writers: Box<[AtomicU32]>,
    readers: Box<[AtomicU32]>,
}

impl SimAllocation {
    fn new(bytes: u64) -> SimAllocation {
        let words = || bytemuck::zeroed_slice_box((bytes as usize).div_ceil(4));
        SimAllocation {
            words: words(),
            writers: words(),
            readers: words(),
        }
    }

    /// Copies bytes from a place on.
    fn read(&self, start: usize, bytes: &mut [u8]) {
        let whole = bytes.len() / 4 * 4;
        let (words, rest) = bytes.split_at_mut(whole);
        for (word, bytes) in self.words[start / 4..].iter().zip(words.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            *byte = self.byte(start + whole + i);
        }
    }

    /// Copies a buffer to another device; gives the first byte that nothing wrote, if there is one.
    pub fn send(&self, span: Span, bytes: &mut [u8]) -> Result<(), usize> {
        let first = span.start / 4;
        let words = first..(span.start + bytes.len()).div_ceil(4);
        match self.writers[words]
            .iter()
            .position(|writer| writer.load(Relaxed) == 0)
        {
            Some(word) => Err(4 * word),
            None => {
                self.read(span.start, bytes);
                Ok(())
            }
        }
    }

    fn byte(&self, at: usize) -> u8 {
        (self.words[at / 4].load(Relaxed) >> (at % 4 * 8)) as u8
    }

    fn set_byte(&self, at: usize, byte: u8) {
        let shift = at % 4 * 8;
        let changed = |word: u32| Some(word & !(0xff << shift) | u32::from(byte) << shift);
        // The update always gives a word.
        let _ = self.words[at / 4].fetch_update(Relaxed, Relaxed, changed);
    }
}

/// The memory of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    allocation: usize,
    start: usize,
    pub bytes: usize,
    /// Whether filling it makes its contents unknown.
    transient: bool,
}

impl Span {
    /// The address of its first byte.
    pub fn address(&self) -> u64 {
        ((self.allocation as u64 + 1) << WITHIN) + self.start as u64
    }
}

/// All allocations of a device.
pub struct Global {
    allocations: Vec<Arc<SimAllocation>>,
    /// The first stamp that no launch has had.
    next: u32,
}

impl Global {
    /// Allocates the buffers that a plan puts on a device.
    pub fn new(plan: &Plan, position: usize) -> (Global, Vec<Option<Span>>) {
        let mut allocations = vec![Arc::new(SimAllocation::new(plan.arena_bytes[position]))];
        let spans = plan.buffers.iter().map(|buffer| {
            if buffer.device != position {
                return None;
            }
            let bytes = buffer.bytes as usize;
            let transient = !matches!(
                buffer.role,
                Role::Input { .. } | Role::Parameter { .. } | Role::State { .. }
            );
            let (allocation, start) = match buffer.allocation {
                Allocation::Arena(offset) => (0, offset as usize),
                Allocation::Dedicated => {
                    allocations.push(Arc::new(SimAllocation::new(buffer.bytes)));
                    (allocations.len() - 1, 0)
                }
            };
            Some(Span {
                allocation,
                start,
                bytes,
                transient,
            })
        });
        let spans: Vec<Option<Span>> = spans.collect();
        let global = Global {
            allocations,
            next: HOST + 1,
        };
        for span in spans.iter().flatten().filter(|span| !span.transient) {
            global.stamp(*span, HOST);
        }
        (global, spans)
    }

    fn stamp(&self, span: Span, stamp: u32) {
        let words = span.start / 4..(span.start + span.bytes).div_ceil(4);
        for word in &self.allocations[span.allocation].writers[words] {
            word.store(stamp, Relaxed);
        }
    }

    /// Copies bytes from the host.
    pub fn write(&self, span: Span, bytes: &[u8]) {
        let allocation = &self.allocations[span.allocation];
        let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
        let first = span.start / 4;
        for (word, bytes) in allocation.words[first..].iter().zip(words.chunks_exact(4)) {
            word.store(u32::from_le_bytes(bytes.try_into().expect("four bytes")), Relaxed);
        }
        for (i, &byte) in rest.iter().enumerate() {
            allocation.set_byte(span.start + words.len() + i, byte);
        }
        self.stamp(
            Span {
                bytes: bytes.len(),
                ..span
            },
            HOST,
        );
    }

    /// Copies bytes to the host.
    pub fn read(&self, span: Span, bytes: &mut [u8]) {
        self.allocations[span.allocation].read(span.start, bytes);
    }

    /// The allocation of a buffer, for another device to read from.
    pub fn allocation(&self, span: Span) -> Arc<SimAllocation> {
        self.allocations[span.allocation].clone()
    }

    /// Sets every byte. What lives within a run counts as not written after it: so poison is told from results.
    pub fn fill(&self, span: Span, byte: u8) {
        let allocation = &self.allocations[span.allocation];
        for at in span.start..span.start + span.bytes {
            if at % 4 == 0 && at + 4 <= span.start + span.bytes {
                allocation.words[at / 4].store(u32::from_le_bytes([byte; 4]), Relaxed);
            } else if (span.start + span.bytes) / 4 == at / 4 {
                allocation.set_byte(at, byte);
            }
        }
        self.stamp(span, if span.transient { 0 } else { HOST });
    }

    /// Stamps for the blocks of a launch: one each, and one for several of them. Returns the first.
    pub fn stamps(&mut self, blocks: u64) -> u32 {
        let count = u32::try_from(blocks + 1).unwrap_or(u32::MAX / 2);
        if self.next.checked_add(count).is_none() {
            // Numbers are used up: whoever wrote before is as good as the host.
            for allocation in &self.allocations {
                for word in &allocation.writers {
                    word.store(word.load(Relaxed).min(HOST), Relaxed);
                }
                allocation.readers.iter().for_each(|word| word.store(0, Relaxed));
            }
            self.next = HOST + 1;
        }
        let first = self.next;
        self.next += count;
        first
    }

    /// What a launch may touch, and the stamps that it has.
    pub fn view<'g>(&'g self, spans: &[Span], first: u32, blocks: u64) -> View<'g> {
        let spans = spans.iter().map(|span| (span.address(), *span)).collect();
        View {
            global: self,
            spans,
            first,
            several: first + blocks as u32,
        }
    }
}

/// Global memory as a launch sees it: its arguments.
pub struct View<'g> {
    global: &'g Global,
    spans: Vec<(u64, Span)>,
    first: u32,
    several: u32,
}

/// A block's access to global memory, with what it touched first.
pub struct Access<'v> {
    view: &'v View<'v>,
    stamp: u32,
    /// The argument of the last access: the next one is likely of the same.
    last: usize,
    pub distinct_read_bytes: u64,
    pub distinct_written_bytes: u64,
}

impl<'v> View<'v> {
    /// For a block of the launch.
    pub fn block(&'v self, block: u64) -> Access<'v> {
        Access {
            view: self,
            stamp: self.first + block as u32,
            last: 0,
            distinct_read_bytes: 0,
            distinct_written_bytes: 0,
        }
    }
}

impl<'v> Access<'v> {
    /// The allocation and the byte in it, for so many aligned bytes of one argument.
    #[inline(always)]
    fn find(
        &mut self,
        address: u64,
        bytes: usize,
        thread: usize,
    ) -> Result<(&'v SimAllocation, usize), Fault> {
        let inside = |(start, span): &(u64, Span)| {
            address >= *start && address - start + bytes as u64 <= span.bytes as u64
        };
        if !self.view.spans.get(self.last).is_some_and(inside) {
            match self.view.spans.iter().position(inside) {
                Some(position) => self.last = position,
                None => return Err(self.outside(address, bytes, thread)),
            }
        }
        if !address.is_multiple_of(bytes as u64) {
            return Err(Fault::new(
                thread,
                format!("misaligned access: {bytes} bytes at the address {address:#x}"),
            ));
        }
        let (start, span) = &self.view.spans[self.last];
        Ok((
            &self.view.global.allocations[span.allocation],
            span.start + (address - start) as usize,
        ))
    }

    #[cold]
    fn outside(&self, address: u64, bytes: usize, thread: usize) -> Fault {
        let distance = |start: u64| (address as i64).wrapping_sub(start as i64).unsigned_abs();
        let spans = self.view.spans.iter().enumerate();
        let near = spans
            .min_by_key(|(_, (start, _))| distance(*start))
            .filter(|(_, (start, _))| distance(*start) < 1 << (WITHIN - 1));
        let near = near.map_or("of no argument".to_string(), |(i, (start, span))| {
            let offset = address as i64 - *start as i64;
            format!("at byte {offset} of argument {i}, which has {} bytes", span.bytes)
        });
        Fault::new(thread, format!("access out of bounds: {bytes} bytes {near}"))
    }

    /// Reads `words` words.
    #[inline(always)]
    pub fn load(
        &mut self,
        address: u64,
        words: usize,
        thread: usize,
        to: &mut [u32; 4],
    ) -> Result<(), Fault> {
        let (allocation, at) = self.find(address, 4 * words, thread)?;
        let first = at / 4;
        for (i, to) in to.iter_mut().take(words).enumerate() {
            let writer = allocation.writers[first + i].load(Relaxed);
            if writer == 0 || (writer >= self.view.first && writer != self.stamp) {
                return Err(self.bad_read(writer, thread));
            }
            let reader = allocation.readers[first + i].load(Relaxed);
            if reader != self.stamp {
                let known = reader >= self.view.first;
                if !known {
                    self.distinct_read_bytes += 4;
                }
                let stamp = if known { self.view.several } else { self.stamp };
                allocation.readers[first + i].store(stamp, Relaxed);
            }
            *to = allocation.words[first + i].load(Relaxed);
        }
        Ok(())
    }

    #[cold]
    fn bad_read(&self, writer: u32, thread: usize) -> Fault {
        let what = match writer {
            0 => "reads global memory that nothing wrote".to_string(),
            _ => format!(
                "race between blocks: reads what {} writes in this launch",
                self.other(writer)
            ),
        };
        Fault::new(thread, what)
    }

    fn other(&self, stamp: u32) -> String {
        match stamp == self.view.several {
            true => "several blocks".to_string(),
            false => format!("block {}", stamp - self.view.first),
        }
    }

    /// Writes `words` words.
    #[inline(always)]
    pub fn store(&mut self, address: u64, words: usize, thread: usize, from: &[u32; 4]) -> Result<(), Fault> {
        let (allocation, at) = self.find(address, 4 * words, thread)?;
        let first = at / 4;
        for (i, &from) in from.iter().take(words).enumerate() {
            let writer = allocation.writers[first + i].swap(self.stamp, Relaxed);
            if writer != self.stamp {
                if writer >= self.view.first {
                    return Err(self.bad_write("writes", writer, thread));
                }
                self.distinct_written_bytes += 4;
            }
            let reader = allocation.readers[first + i].load(Relaxed);
            if reader >= self.view.first && reader != self.stamp {
                return Err(self.bad_write("reads", reader, thread));
            }
            allocation.words[first + i].store(from, Relaxed);
        }
        Ok(())
    }

    #[cold]
    fn bad_write(&self, does: &str, stamp: u32, thread: usize) -> Fault {
        let other = self.other(stamp);
        Fault::new(
            thread,
            format!("race between blocks: writes what {other} {does} in this launch"),
        )
    }

    /// Reads one or two bytes.
    pub fn load_bytes(&mut self, address: u64, bytes: usize, thread: usize) -> Result<u32, Fault> {
        let (allocation, at) = self.find(address, bytes, thread)?;
        if allocation.writers[at / 4].load(Relaxed) == 0 {
            return Err(self.bad_read(0, thread));
        }
        self.distinct_read_bytes += bytes as u64;
        let value = (0..bytes).map(|i| u32::from(allocation.byte(at + i)) << (8 * i));
        Ok(value.sum())
    }

    /// Writes one or two bytes.
    pub fn store_bytes(
        &mut self,
        address: u64,
        bytes: usize,
        thread: usize,
        value: u32,
    ) -> Result<(), Fault> {
        let (allocation, at) = self.find(address, bytes, thread)?;
        for (i, byte) in value.to_le_bytes().into_iter().take(bytes).enumerate() {
            allocation.set_byte(at + i, byte);
        }
        // Blocks may share a word without sharing its bytes.
        allocation.writers[at / 4].store(HOST, Relaxed);
        self.distinct_written_bytes += bytes as u64;
        Ok(())
    }

    /// Changes a word as one step; returns what it was.
    pub fn update(&mut self, address: u64, thread: usize, change: impl Fn(u32) -> u32) -> Result<u32, Fault> {
        let (allocation, at) = self.find(address, 4, thread)?;
        if allocation.writers[at / 4].load(Relaxed) == 0 {
            return Err(self.bad_read(0, thread));
        }
        self.distinct_written_bytes += 4;
        let before = allocation.words[at / 4].fetch_update(Relaxed, Relaxed, |word| Some(change(word)));
        Ok(before.unwrap_or_else(|word| word))
    }
}
