//! Objects to one shared object, by the system's linker; texts of PTX to one module.
//!
//! Kernels call nothing but `memset`, `memcpy` and `memmove`, which LLVM makes of plain loops and the loading
//! process has anyway, so no libraries are involved. Any ELF linker will do; the one that
//! LLVM's packages bring is tried first.

use std::path::Path;
use std::process::Command;

/// Linkers tried in order, with the arguments that make them take plain linker options.
const LINKERS: &[&str] = &["ld.lld-22", "ld.lld", "ld"];

/// Why linking failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No linker is installed.
    #[error("no linker found (tried {}). Install one, for example the package binutils or lld", LINKERS.join(", "))]
    NoLinker,
    /// The linker said no.
    #[error("{linker} failed: {said}. This is a bug of alexc if disk and memory are not full")]
    Failed {
        /// The linker.
        linker: String,
        /// Its messages.
        said: String,
    },
    /// Files could not be written or read.
    #[error(
        "linking in {folder}: {error}. Check that the folder for temporary files is writable and not full"
    )]
    Files {
        /// Where.
        folder: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Links objects into the bytes of a shared object.
pub fn shared_object(objects: &[&[u8]]) -> Result<Vec<u8>, LinkError> {
    let files = |error| LinkError::Files {
        folder: std::env::temp_dir().display().to_string(),
        error,
    };
    let folder = tempfile::tempdir().map_err(files)?;
    let output = folder.path().join("kernels.so");
    let mut inputs = vec![];
    for (i, object) in objects.iter().enumerate() {
        inputs.push(folder.path().join(format!("{i}.o")));
        std::fs::write(&inputs[i], object).map_err(files)?;
    }
    let (linker, result) = run(&inputs, &output)?;
    if !result.status.success() {
        return Err(LinkError::Failed {
            linker,
            said: String::from_utf8_lossy(&result.stderr).trim().to_string(),
        });
    }
    std::fs::read(&output).map_err(files)
}

/// Joins modules of PTX for one target: the header of the first, the kernels of all.
pub fn ptx_module<'t>(texts: impl Iterator<Item = &'t [u8]>) -> String {
    let header = |line: &&str| {
        [".version", ".target", ".address_size"]
            .iter()
            .any(|directive| line.starts_with(directive))
    };
    let mut module = String::new();
    for (i, text) in texts.enumerate() {
        let text = String::from_utf8_lossy(text);
        for line in text.lines().filter(|line| i == 0 || !header(line)) {
            module.push_str(line.trim_end_matches('\0'));
            module.push('\n');
        }
    }
    module
}

fn run(inputs: &[std::path::PathBuf], output: &Path) -> Result<(String, std::process::Output), LinkError> {
    for linker in LINKERS {
        let mut command = Command::new(linker);
        command
            .args(["-shared", "-z", "noexecstack", "-o"])
            .arg(output)
            .args(inputs);
        match command.output() {
            Ok(result) => return Ok((linker.to_string(), result)),
            Err(_) => continue,
        }
    }
    Err(LinkError::NoLinker)
}
