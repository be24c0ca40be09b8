//! The folder of the compile cache: where it is, how large it may become, and which entries go first.

use super::Key;
use runtime::{Error, files};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The variable that names the cache folder.
const FOLDER_VARIABLE: &str = "ALEXC_CACHE_DIR";
/// The variable that limits its size.
pub const LIMIT_VARIABLE: &str = "ALEXC_CACHE_LIMIT";
/// The limit on the size of all entries in bytes, where the variable is not set.
pub const DEFAULT_LIMIT: u64 = 2_000_000_000;
/// The end of an entry's name.
const SUFFIX: &str = ".entry";
/// The file that processes lock before they remove entries.
const LOCK: &str = "lock";
/// The file that has a line for every damaged entry.
const THROWN_AWAY: &str = "thrown-away";
/// Temporary files that are older were left by a process that was killed.
const MAX_WRITING: Duration = Duration::from_secs(3600);

/// The folder of files that can be made again: `$ALEXC_CACHE_DIR`, `$XDG_CACHE_HOME/alexc`, or `~/.cache/alexc`.
pub fn cache_folder() -> Option<PathBuf> {
    let named = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(folder) = named(FOLDER_VARIABLE) {
        return Some(folder);
    }
    // The specification of the variable has relative paths ignored.
    let cache = named("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let cache = cache.or_else(|| named("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("alexc"))
}

/// The limit on the size of all entries in bytes: `$ALEXC_CACHE_LIMIT`, or 2 GB. 0 switches the cache off.
pub fn limit_bytes() -> Result<u64, Error> {
    match std::env::var(LIMIT_VARIABLE) {
        Err(_) => Ok(DEFAULT_LIMIT),
        Ok(text) if text.is_empty() => Ok(DEFAULT_LIMIT),
        Ok(text) => parse_size(&text).ok_or_else(|| {
            Error::input(format!(
                "{LIMIT_VARIABLE}={text}: expected a number of bytes, as 500M, 2G or 0 (no cache); correct or unset it"
            ))
        }),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let units = [('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let of_unit = |(unit, bytes)| Some((text.strip_suffix(unit)?, bytes));
    let (number, bytes) = units.into_iter().find_map(of_unit).unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// A folder of entries.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where the entries are.
    pub path: PathBuf,
    /// The size that all entries together may have in bytes.
    pub limit_bytes: u64,
}

/// The file of an entry.
#[derive(Clone, Debug)]
pub struct EntryFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was used last.
    pub last_used: SystemTime,
}

impl Folder {
    /// The folder of this user's entries, if this user has one.
    pub fn of_user() -> Result<Option<Folder>, Error> {
        let limit_bytes = limit_bytes()?;
        Ok(cache_folder().map(|folder| Folder {
            path: folder.join("compiled"),
            limit_bytes,
        }))
    }

    /// The file of a key.
    pub fn path_of(&self, key: &Key) -> PathBuf {
        self.path.join(format!("{key}{SUFFIX}"))
    }

    /// Writes an entry, then removes the least recently used ones until all are within the limit. An entry that is
    /// larger than the limit is not written.
    pub fn store(&self, key: &Key, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 > self.limit_bytes {
            return Ok(());
        }
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| Error::writing(&self.path, &error))?;
        let path = self.path_of(key);
        files::write_bytes(&path, bytes)?;
        let _lock = self.lock();
        self.remove_leftovers();
        let mut entries = self.entries();
        entries.sort_by_key(|entry| (entry.path != path, std::cmp::Reverse(entry.last_used)));
        let mut total = 0;
        for entry in entries {
            total += entry.bytes;
            if total > self.limit_bytes {
                // Another process may have removed it before.
                _ = fs::remove_file(entry.path);
            }
        }
        Ok(())
    }

    /// Removes a damaged entry, and counts it.
    pub fn throw_away(&self, path: &Path) {
        // What cannot be removed is damaged the next time, too.
        _ = fs::remove_file(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let log = self.path.join(THROWN_AWAY);
        let log = File::options().create(true).append(true).open(log);
        _ = log.and_then(|mut log| log.write_all(format!("{name}\n").as_bytes()));
    }

    /// How many damaged entries were thrown away since the folder was cleared.
    pub fn thrown_away(&self) -> usize {
        let log = fs::read_to_string(self.path.join(THROWN_AWAY));
        log.map_or(0, |log| log.lines().count())
    }

    /// All entries, in no order; none where the folder cannot be read.
    pub fn entries(&self) -> Vec<EntryFile> {
        let of_suffix = |path: &PathBuf| path.to_string_lossy().ends_with(SUFFIX);
        let entry = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok()?;
            Some(EntryFile {
                bytes: metadata.len(),
                last_used: metadata.modified().ok()?,
                path,
            })
        };
        self.files().filter(of_suffix).filter_map(entry).collect()
    }

    /// Removes all entries. Their number and bytes.
    pub fn clear(&self) -> Result<(usize, u64), Error> {
        let _lock = self.lock();
        self.remove_leftovers();
        let entries = self.entries();
        for entry in &entries {
            remove(&entry.path)?;
        }
        remove(&self.path.join(THROWN_AWAY))?;
        Ok((entries.len(), entries.iter().map(|entry| entry.bytes).sum()))
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let listed = fs::read_dir(&self.path).into_iter().flatten().flatten();
        listed.map(|entry| entry.path())
    }

    /// One process at a time removes entries, so that two do not remove more than is needed. Where files cannot be
    /// locked they may; both can compile again.
    fn lock(&self) -> Option<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join(LOCK))
            .ok()?;
        file.lock().ok()?;
        Some(file)
    }

    fn remove_leftovers(&self) {
        for path in self.files() {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            let is_temporary = path.to_string_lossy().ends_with(files::TEMPORARY_SUFFIX);
            if is_temporary && age.is_some_and(|age| age > MAX_WRITING) {
                _ = fs::remove_file(path);
            }
        }
    }
}

/// Removes a file; one that is not there is no error.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::writing(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("3K", Some(3_000)),
            ("500M", Some(500_000_000)),
            (" 2G ", Some(2_000_000_000)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("2T", None),
            ("99999999999G", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }
}
