//! The compile cache: artifacts of earlier compilations, found again by everything that they were compiled from.
//!
//! | module | what it holds |
//! |---|---|
//! | [`key`] | what an artifact is compiled from, as one hash |
//! | [`entry`] | the file of an artifact: checksum, description, artifact |
//! | [`folder`] | where the files are, and the limit on their size |
//! | [`command`] | `alexc cache` |
//!
//! A file is written to a temporary name and renamed, so that another process reads a whole one or none. What does not
//! match its checksum is thrown away and compiled again. Entries hold native code: the folder is its user's alone, like
//! any folder with programs.

pub mod command;
pub mod entry;
pub mod folder;
pub mod key;

pub use entry::{Description, Entry};
pub use key::Key;

use folder::Folder;
use runtime::Error;
use runtime::console::Console;
use std::fs::File;
use std::time::SystemTime;

/// The cache of compiled artifacts, or none: where it is switched off, or where this user has no folder for it.
#[derive(Clone, Debug)]
pub struct Cache(Option<Folder>);

impl Cache {
    /// The user's cache.
    pub fn open() -> Result<Cache, Error> {
        let folder = Folder::of_user()?;
        Ok(Cache(folder.filter(|folder| folder.limit_bytes > 0)))
    }

    /// No cache: nothing is found, nothing is kept.
    pub fn none() -> Cache {
        Cache(None)
    }

    /// A cache in a folder.
    pub fn at(folder: Folder) -> Cache {
        Cache(Some(folder))
    }

    /// The entry of this key. One that is damaged is thrown away and not found.
    pub fn find(&self, key: &Key) -> Option<Entry> {
        let folder = self.0.as_ref()?;
        let path = folder.path_of(key);
        let bytes = std::fs::read(&path).ok()?;
        match Entry::from_bytes(&bytes) {
            Some(entry) => {
                // The least recently used entries go first. Where this user cannot write, none goes, so a failure is no harm.
                _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(entry)
            }
            None => {
                folder.throw_away(&path);
                None
            }
        }
    }

    /// Keeps an entry. A folder that cannot be written to is said, and is no error: the artifact is there all the same.
    pub fn store(&self, key: &Key, entry: &Entry) {
        let Some(folder) = &self.0 else {
            return;
        };
        let stored = entry.to_bytes().and_then(|bytes| folder.store(key, &bytes));
        if let Err(error) = stored {
            Console::stderr().say(&format!("note: the compiled model is not kept: {error}"));
        }
    }
}
