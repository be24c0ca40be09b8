//! Memory for buffers: zeroed, aligned to a cache line, in huge pages when it is large. Packed weights and
//! activations are read in long strides; with 4 KiB pages those spend their time in the page table.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;
/// From here on a mapping is mapped on its own and asks for huge pages.
const LARGE: usize = 4 << 20;
const CACHE_LINE: usize = 64;

/// Memory that is zero at first and freed when dropped.
pub struct Mapping {
    start: NonNull<u8>,
    kind: Kind,
}

enum Kind {
    Allocated(Layout),
    Mapped(usize),
}

// SAFETY: a mapping owns its memory; moving the owner to another thread moves that right with it.
unsafe impl Send for Mapping {}
// SAFETY: shared, a mapping gives its address only; whoever follows it says why they may.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A mapping of at least `bytes`.
    pub fn zeroed(bytes: usize) -> io::Result<Mapping> {
        if bytes >= LARGE {
            Mapping::mapped(bytes)
        } else {
            Mapping::allocated(bytes)
        }
    }

    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn allocated(bytes: usize) -> io::Result<Mapping> {
        let layout = Layout::from_size_align(bytes.max(1).next_multiple_of(CACHE_LINE), CACHE_LINE)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping {
            start,
            kind: Kind::Allocated(layout),
        })
    }

    fn mapped(bytes: usize) -> io::Result<Mapping> {
        // One huge page more than needed, so that it contains an aligned range; the rest is unmapped.
        let length = bytes
            .checked_next_multiple_of(HUGE_PAGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let reserved = length.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), reserved, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = base.cast::<u8>();
        let head = base.align_offset(HUGE_PAGE).min(HUGE_PAGE);
        let start = base.wrapping_add(head);
        let tail = HUGE_PAGE - head;
        // SAFETY: head + length + tail is the whole mapping, whose two ends are unmapped here, once, and never
        // used; the advice concerns the middle only. All of them are multiples of the page size.
        unsafe {
            if head > 0 {
                libc::munmap(base.cast(), head);
            }
            if tail > 0 {
                libc::munmap(start.wrapping_add(length).cast(), tail);
            }
            // Only advice: without huge pages everything works, slower.
            libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE);
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping {
            start,
            kind: Kind::Mapped(length),
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.kind {
            // SAFETY: allocated with this very layout, and freed once.
            Kind::Allocated(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            // SAFETY: mapped with this length, and unmapped once.
            Kind::Mapped(length) => unsafe {
                libc::munmap(self.start.as_ptr().cast(), length);
            },
        }
    }
}

/// The machine's memory, or what its container grants if that is less.
pub fn available_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let total = total.map_or(u64::MAX, |kib| kib.saturating_mul(1024));
    let granted = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    granted
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(total, |limit| limit.min(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zeroed_aligned_and_whole() {
        for bytes in [0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 3 * HUGE_PAGE + 5] {
            let mapping = Mapping::zeroed(bytes).unwrap();
            let alignment = if bytes >= LARGE { HUGE_PAGE } else { CACHE_LINE };
            assert_eq!(mapping.start() as usize % alignment, 0);
            // SAFETY: the mapping has at least `bytes` bytes, all initialised, and only this test knows of it.
            let memory = unsafe { std::slice::from_raw_parts_mut(mapping.start(), bytes) };
            assert!(memory.iter().all(|&b| b == 0));
            memory.fill(1);
        }
    }

    #[test]
    fn too_much_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize - HUGE_PAGE] {
            assert!(Mapping::zeroed(bytes).is_err());
        }
    }

    #[test]
    fn the_machine_has_memory() {
        assert!((16 << 20..u64::MAX).contains(&available_bytes()));
    }
}
