//! Files are written whole or not at all: to a temporary name in the same folder, flushed to the disk, renamed.
//! A process killed at any moment leaves either the old file or the new one, and at worst a `.part` file next to it.
//! What is not a regular file, such as `/dev/stdout` or `/dev/null`, is written to and never replaced.

use crate::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The end of every temporary name, so that leftovers can be told and removed.
pub const TEMPORARY_SUFFIX: &str = ".part";

/// For the beginning of a program. A write beyond the limit on the size of files (`ulimit -f`) sends a signal that ends
/// the process at once, its temporary files left behind; with the signal handled, the write is an error like any other.
pub fn let_limits_be_errors() {
    static REACHED: AtomicBool = AtomicBool::new(false);
    // Where that is not granted, things stay as they are.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, &REACHED);
}

/// Writes `path` through `write`, atomically. On any failure the old file stays and the temporary one goes.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    write_atomically_at(path, |temporary| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(temporary)?);
        write(&mut file)?;
        file.flush()
    })
}

/// As [`write_atomically`], for writers that want a path.
pub fn write_atomically_at(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
    let kind = fs::metadata(path).map(|metadata| metadata.file_type()).ok();
    if kind.is_some_and(|kind| kind.is_dir()) {
        return Err(is_folder(path));
    }
    if kind.is_some_and(|kind| !kind.is_file()) {
        return write(path).map_err(|error| Error::writing(path, &error));
    }
    // A link to a file stays a link: the file that it names is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let temporary = temporary_name(&target)?;
    let outcome = (|| {
        write(&temporary)?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &target)?;
        sync_folder(&target)
    })();
    outcome.map_err(|error: io::Error| {
        let _ = fs::remove_file(&temporary);
        Error::writing(path, &error)
    })
}

/// Writes `bytes` as `path`, atomically.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_atomically(path, |file| file.write_all(bytes))
}

/// Makes the symbolic link `path` point at `target` (relative to the link's folder), atomically.
pub fn link_atomically(path: &Path, target: &Path) -> Result<(), Error> {
    let temporary = temporary_name(path)?;
    let outcome = (|| {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(target, &temporary)?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    })();
    outcome.map_err(|error: io::Error| {
        let _ = fs::remove_file(&temporary);
        Error::writing(path, &error)
    })
}

/// The whole file, refused when it is larger than `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|error| Error::reading(path, &error))?;
    let metadata = file.metadata().map_err(|error| Error::reading(path, &error))?;
    if metadata.is_dir() {
        return Err(is_folder(path));
    }
    let mut bytes = Vec::new();
    let _ = bytes.try_reserve_exact(metadata.len().min(limit) as usize);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::reading(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::input(format!(
            "{}: larger than the {limit} bytes expected at most",
            path.display()
        )));
    }
    Ok(bytes)
}

/// A path in JSON, as it is displayed; a name that is not UTF-8 is not an error.
pub(crate) fn serialize_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// The text of a file, refused when it is larger than `limit` bytes or not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Error> {
    String::from_utf8(read_bounded(path, limit)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(format!(
            "{}: byte {at} is not UTF-8 text; is this the right file?",
            path.display()
        ))
    })
}

fn is_folder(path: &Path) -> Error {
    Error::input(format!("{}: is a folder; name a file", path.display()))
}

fn temporary_name(path: &Path) -> Result<PathBuf, Error> {
    let Some(name) = path.file_name() else {
        return Err(Error::input(format!(
            "{}: names no file to write",
            path.display()
        )));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}{TEMPORARY_SUFFIX}", std::process::id()));
    Ok(path.with_file_name(temporary))
}

/// A rename is on the disk once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_bytes(&path, b"old").unwrap();
        let error = write_atomically(&path, |file| {
            file.write_all(b"half of the new one")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("disk is full"), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        write_bytes(Path::new("/dev/null"), b"gone").unwrap();
        let error = write_bytes(Path::new("/dev/full"), b"too much").unwrap_err();
        assert!(error.to_string().contains("disk is full"), "{error}");
        for device in ["/dev/null", "/dev/full"] {
            let kind = fs::symlink_metadata(device).unwrap().file_type();
            assert!(!kind.is_file(), "{device} is a file now");
        }
    }

    #[test]
    fn a_link_to_a_file_stays_and_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_bytes(&file, b"old").unwrap();
        link_atomically(&link, Path::new("file")).unwrap();
        write_bytes(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
    }

    #[test]
    fn a_link_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("last");
        link_atomically(&link, Path::new("a")).unwrap();
        link_atomically(&link, Path::new("b")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("b"));
    }

    #[test]
    fn unreadable_unwritable_and_oversized_files_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such");
        assert!(
            write_bytes(&missing, b"")
                .unwrap_err()
                .to_string()
                .contains("make its folder")
        );
        assert!(
            read_bounded(&missing, 9)
                .unwrap_err()
                .to_string()
                .contains("check the path")
        );
        assert!(
            read_bounded(folder.path(), 9)
                .unwrap_err()
                .to_string()
                .contains("folder")
        );
        assert!(
            write_bytes(Path::new("/"), b"")
                .unwrap_err()
                .to_string()
                .contains("is a folder; name a file")
        );
        let path = folder.path().join("big");
        write_bytes(&path, &[0xff; 10]).unwrap();
        assert!(read_bounded(&path, 9).unwrap_err().to_string().contains("larger"));
        assert!(
            read_text(&path, 10)
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }
}
