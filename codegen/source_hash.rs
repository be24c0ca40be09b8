//! The hash that build scripts name versions with: of files, so that a change of any of them changes the version.

use std::path::{Path, PathBuf};

/// The hash of these files, and of the files below these folders, by name and content. Cargo runs the script again when one
/// of them changes.
pub fn hash(paths: &[&str]) -> Hash {
    let mut files = vec![];
    for path in paths {
        println!("cargo:rerun-if-changed={path}");
        list(Path::new(path), &mut files);
    }
    files.sort();
    let mut hash = Hash::default();
    for path in files {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        hash.add(path.to_string_lossy().as_bytes());
        hash.add(&bytes);
    }
    hash
}

/// FNV-1a, which needs no crate.
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn list(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return;
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for entry in entries.flatten() {
        list(&entry.path(), files);
    }
}
