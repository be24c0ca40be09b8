//! The handle through which other devices copy a buffer of a GPU, outside the GPU's own streams.

use super::Span;
use super::driver::Gpu;
use crate::Error;
use crate::device::PeerBuffer;
use cudarc::driver::result;

/// A buffer as other devices read it, from any thread.
pub struct CudaPeerBuffer {
    pub(super) span: Span,
    pub(super) gpu: Gpu,
}

// SAFETY: handles of the driver may be used from any thread; that nobody writes the memory meanwhile is the readers' duty
// (see `PeerBuffer`), and that it lives is the executor's, which drops peer buffers with the devices.
unsafe impl Send for CudaPeerBuffer {}
// SAFETY: as above.
unsafe impl Sync for CudaPeerBuffer {}

impl PeerBuffer for CudaPeerBuffer {
    fn read(&self, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.len() != self.span.bytes {
            let (found, expected) = (bytes.len(), self.span.bytes);
            return Err(Error::work(format!(
                "a buffer of {expected} bytes was to fill {found}"
            )));
        }
        self.gpu.enter()?;
        // SAFETY: the buffer has these bytes.
        unsafe { result::memcpy_dtoh_sync(bytes, self.span.address) }
            .map_err(|error| self.gpu.failed("copying from the GPU", error))
    }

    fn on_gpu(&self) -> Option<(&Gpu, u64)> {
        Some((&self.gpu, self.span.address))
    }
}
