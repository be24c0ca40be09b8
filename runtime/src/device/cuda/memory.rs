//! Memory of the GPU, and pinned memory of the host through which all transfers to and from the GPU pass.

use super::driver::Gpu;
use crate::Error;
use cudarc::driver::{DriverError, result, sys};
use std::ffi::c_void;

/// Bytes of each of the pinned buffers.
const STAGE: usize = 8 << 20;

/// An allocation on a GPU.
pub struct DeviceMemory {
    pub address: u64,
}

impl DeviceMemory {
    /// Allocates at least one byte, and zeroes all.
    pub fn new(gpu: &Gpu, bytes: u64, what: &str) -> Result<DeviceMemory, Error> {
        gpu.enter()?;
        let bytes = bytes.max(1) as usize;
        let doing = |doing: &str| format!("{doing} {} MiB for {what}", bytes.div_ceil(1 << 20));
        // SAFETY: the size is not zero; the context is current.
        let address =
            unsafe { result::malloc_sync(bytes) }.map_err(|error| gpu.failed(doing("allocating"), error))?;
        let allocation = DeviceMemory { address };
        // SAFETY: the allocation has these bytes.
        unsafe { result::memset_d8_sync(address, 0, bytes) }
            .map_err(|error| gpu.failed(doing("zeroing"), error))?;
        // The call returns before the memory is zeroed, and our streams do not wait for it.
        // SAFETY: the null stream is always there.
        unsafe { result::stream::synchronize(result::stream::null()) }
            .map_err(|error| gpu.failed(doing("zeroing"), error))?;
        Ok(allocation)
    }

    /// Allocates at least one byte, with undefined contents; `None` if the memory is full.
    pub fn if_it_fits(gpu: &Gpu, bytes: usize, what: &str) -> Result<Option<DeviceMemory>, Error> {
        gpu.enter()?;
        // SAFETY: the size is not zero; the context is current.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(address) => Ok(Some(DeviceMemory { address })),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(gpu.failed(format_args!("allocating {bytes} bytes for {what}"), error)),
        }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` and freed once. After a kernel's fault the driver refuses; then all memory is gone.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Pinned memory of the host, which the GPU copies without the processor's help.
struct Pinned {
    start: *mut c_void,
    /// Recorded when the last copy that uses it is done.
    used: Event,
}

impl Pinned {
    fn new(gpu: &Gpu) -> Result<Pinned, Error> {
        // SAFETY: the context is current.
        let start = unsafe { result::malloc_host(STAGE, 0) }
            .map_err(|error| gpu.failed("allocating pinned memory", error))?;
        Ok(Pinned {
            start,
            used: Event::new(gpu)?,
        })
    }

    fn bytes(&mut self, count: usize) -> &mut [u8] {
        assert!(count <= STAGE, "a stage's part is at most a stage");
        // SAFETY: the allocation has `STAGE` bytes, which nothing else refers to while `self` is borrowed, and whose
        // copies have been waited for (`Staging` does).
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), count) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once.
        let _ = unsafe { result::free_host(self.start) };
    }
}

/// A point in a stream.
pub struct Event(sys::CUevent);

impl Event {
    pub fn new(gpu: &Gpu) -> Result<Event, Error> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        event
            .map(Event)
            .map_err(|error| gpu.failed("making an event", error))
    }

    /// An event that knows when it was reached.
    pub fn timing(gpu: &Gpu) -> Result<Event, Error> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        event
            .map(Event)
            .map_err(|error| gpu.failed("making an event", error))
    }

    /// Nanoseconds from an event to this one; both were reached.
    pub fn since(&self, gpu: &Gpu, start: &Event) -> Result<u64, Error> {
        // SAFETY: both handles live.
        let milliseconds = unsafe { result::event::elapsed(start.0, self.0) };
        let milliseconds = milliseconds.map_err(|error| gpu.failed("reading the GPU's clock", error))?;
        Ok((f64::from(milliseconds) * 1e6) as u64)
    }

    /// Puts the event after everything that is in the stream.
    pub fn record(&self, gpu: &Gpu, stream: &Stream) -> Result<(), Error> {
        // SAFETY: both handles live.
        unsafe { result::event::record(self.0, stream.0) }
            .map_err(|error| gpu.failed("recording an event", error))
    }

    /// Waits on the host.
    pub fn wait(&self, gpu: &Gpu) -> Result<(), Error> {
        // SAFETY: the handle lives.
        unsafe { result::event::synchronize(self.0) }.map_err(|error| gpu.failed("waiting for a copy", error))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// A queue of work for the GPU.
pub struct Stream(pub(super) sys::CUstream);

impl Stream {
    pub fn new(gpu: &Gpu) -> Result<Stream, Error> {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        stream
            .map(Stream)
            .map_err(|error| gpu.failed("making a stream", error))
    }

    /// Makes later work in this stream wait for an event of another stream.
    pub fn after(&self, gpu: &Gpu, event: &Event) -> Result<(), Error> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles live.
        unsafe { result::stream::wait_event(self.0, event.0, flags) }
            .map_err(|error| gpu.failed("ordering streams", error))
    }

    /// Waits until all work is done; an error names `doing`.
    pub fn wait(&self, gpu: &Gpu, doing: impl std::fmt::Display) -> Result<(), Error> {
        // SAFETY: the handle lives.
        unsafe { result::stream::synchronize(self.0) }.map_err(|error| gpu.failed(doing, error))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

/// Two pinned buffers that alternate: while the GPU copies one, the CPU fills the other.
pub struct Staging {
    buffers: [Pinned; 2],
    turn: usize,
    stream: Stream,
    /// Recorded after the last copy to the GPU.
    written: Event,
}

// SAFETY: the pinned memory is owned, and used only through `&mut self`; handles may be used from any thread.
unsafe impl Send for Staging {}

impl Staging {
    pub fn new(gpu: &Gpu) -> Result<Staging, Error> {
        gpu.enter()?;
        Ok(Staging {
            buffers: [Pinned::new(gpu)?, Pinned::new(gpu)?],
            turn: 0,
            stream: Stream::new(gpu)?,
            written: Event::new(gpu)?,
        })
    }

    /// Starts copying bytes to an address; the copy may not be finished when this returns.
    pub fn write(&mut self, gpu: &Gpu, address: u64, bytes: &[u8]) -> Result<(), Error> {
        for (i, part) in bytes.chunks(STAGE).enumerate() {
            let buffer = &mut self.buffers[self.turn];
            self.turn = 1 - self.turn;
            buffer.used.wait(gpu)?;
            let staged = buffer.bytes(part.len());
            staged.copy_from_slice(part);
            let to = address + (i * STAGE) as u64;
            // SAFETY: the caller's range has these bytes; the pinned bytes stay until `used` is waited for.
            unsafe { result::memcpy_htod_async(to, staged, self.stream.0) }
                .map_err(|error| gpu.failed("copying to the GPU", error))?;
            buffer.used.record(gpu, &self.stream)?;
        }
        self.written.record(gpu, &self.stream)
    }

    /// Starts copying bytes of the GPU's memory to another place there, after everything that was written.
    pub fn copy(&mut self, gpu: &Gpu, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: both of the caller's ranges have these bytes.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.0) }
            .map_err(|error| gpu.failed("copying on the GPU", error))?;
        self.written.record(gpu, &self.stream)
    }

    /// Makes later work in a stream wait for all writes so far.
    pub fn before(&self, gpu: &Gpu, stream: &Stream) -> Result<(), Error> {
        stream.after(gpu, &self.written)
    }

    /// Copies bytes from an address, after everything that was written.
    pub fn read(&mut self, gpu: &Gpu, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let count = bytes.len();
        let start = |staging: &mut Staging, at: usize| -> Result<usize, Error> {
            let turn = staging.turn;
            staging.turn = 1 - turn;
            let buffer = &mut staging.buffers[turn];
            buffer.used.wait(gpu)?;
            let staged = buffer.bytes(STAGE.min(count - at));
            // SAFETY: the caller's range has these bytes; the pinned bytes are not touched until `used` is waited for.
            unsafe { result::memcpy_dtoh_async(staged, address + at as u64, staging.stream.0) }
                .map_err(|error| gpu.failed("copying from the GPU", error))?;
            buffer.used.record(gpu, &staging.stream)?;
            Ok(turn)
        };
        // The copy is one part ahead of the reads.
        let mut next = if count > 0 { Some(start(self, 0)?) } else { None };
        for at in (0..count).step_by(STAGE) {
            let here = next.take().expect("a part was started for every step");
            if at + STAGE < count {
                next = Some(start(self, at + STAGE)?);
            }
            let part = &mut bytes[at..count.min(at + STAGE)];
            self.buffers[here].used.wait(gpu)?;
            part.copy_from_slice(self.buffers[here].bytes(part.len()));
        }
        Ok(())
    }

    /// Sets bytes of the GPU's memory, after everything that was written.
    pub fn fill(&mut self, gpu: &Gpu, address: u64, bytes: usize, byte: u8) -> Result<(), Error> {
        // SAFETY: the caller's range has these bytes.
        unsafe { result::memset_d8_async(address, byte, bytes, self.stream.0) }
            .map_err(|error| gpu.failed("filling memory", error))?;
        self.written.record(gpu, &self.stream)
    }

    /// Waits for all copies.
    pub fn wait(&self, gpu: &Gpu) -> Result<(), Error> {
        self.stream.wait(gpu, "copying")
    }
}
