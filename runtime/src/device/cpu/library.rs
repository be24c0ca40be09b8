//! Kernels from a host shared object that is in memory.
//!
//! The object is loaded from an anonymous file: nothing is left on a disk, and it works where `/tmp` must not
//! hold programs. Its name is the number of an open descriptor, which stays open as long as the library does:
//! the dynamic loader takes two objects of the same name for one.

use super::pool::KernelFunction;
use crate::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

/// A loaded shared object.
pub struct Library {
    // Dropped before the descriptor that gives it its name.
    library: libloading::os::unix::Library,
    _file: File,
}

impl Library {
    /// Loads a shared object. Its code is trusted once its checksum was right: native code can do anything.
    pub fn load(code: &[u8]) -> Result<Library, Error> {
        let fail = |what: String| {
            Error::work(format!(
                "the kernels cannot be loaded: {what}; compile the model again on this machine"
            ))
        };
        if !code.starts_with(b"\x7fELF") {
            return Err(fail("the host object is not an ELF file".to_string()));
        }
        // SAFETY: the name is a C string without inner zeros; the flag is a documented one.
        let descriptor = unsafe { libc::memfd_create(c"alexc-kernels".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(fail(std::io::Error::last_os_error().to_string()));
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let mut file = unsafe { File::from_raw_fd(descriptor) };
        file.write_all(code).map_err(|error| fail(error.to_string()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_LOCAL;
        // SAFETY: what the compiler writes has no constructors; code from elsewhere is the caller's decision,
        // which the documentation of `Artifact::read` spells out.
        let library = unsafe { libloading::os::unix::Library::open(Some(&path), flags) };
        Ok(Library {
            library: library.map_err(|error| fail(error.to_string()))?,
            _file: file,
        })
    }

    /// The kernel of this name. It must not be called after the library was dropped.
    pub fn kernel(&self, symbol: &str) -> Result<KernelFunction, Error> {
        // SAFETY: every symbol that a plan names is a kernel with this signature: the compiler's contract.
        let found = unsafe { self.library.get::<KernelFunction>(symbol.as_bytes()) };
        found.map(|symbol| *symbol).map_err(|_| {
            Error::input(format!(
                "the kernel {symbol} is not in the host object; compile the model again"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused() {
        for code in [&b""[..], b"garbage", b"\x7fELF and then nothing of the kind"] {
            let error = Library::load(code).err().expect("garbage is not loaded");
            assert!(error.to_string().contains("cannot be loaded"), "{error}");
        }
    }
}
