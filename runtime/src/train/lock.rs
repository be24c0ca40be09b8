//! The lock on a run folder: two processes that train into one folder would mix their metrics and checkpoints.
//!
//! The lock is an advisory lock of the operating system on the file [`LOCK`]. It ends with the process that holds it,
//! however that process ends, so a file that a dead process left behind hinders nobody. The file is never removed: a
//! process that opened it just before would then hold a lock on a file that nobody else finds. Reading a run's
//! checkpoints needs no lock.

use crate::Error;
use crate::console::Console;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const LOCK: &str = "lock";

/// [`RunLock::check`] of another process holds the lock for an instant; a lock that stays is somebody's.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// A run folder that no other process may write to, until this is dropped.
#[derive(Debug)]
pub struct RunLock {
    /// `None` where the file system has no locks.
    _file: Option<File>,
}

impl RunLock {
    /// Locks the folder `run`, which must exist. It is refused while another process holds the lock. On a file system
    /// without locks a warning is printed and the run is not protected.
    pub fn acquire(run: &Path, console: &Console) -> Result<RunLock, Error> {
        let path = run.join(LOCK);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::writing(&path, &error))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(held(run)),
                Err(TryLockError::Error(error)) => {
                    console.warn(&format!(
                        "{}: cannot be locked: {error}; do not start another training process in this folder",
                        path.display()
                    ));
                    return Ok(RunLock { _file: None });
                }
            }
        }
        // The content is for messages only. A full disk makes them poorer and is no reason to stop here.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}{}", std::process::id(), on_host()));
        Ok(RunLock { _file: Some(file) })
    }

    /// Refuses a folder that another process has locked. Nothing is written, and the folder need not exist.
    pub fn check(run: &Path) -> Result<(), Error> {
        let file = match File::open(run.join(LOCK)) {
            Ok(file) => file,
            // What is wrong with the path is found when the folder is opened.
            Err(_) => return Ok(()),
        };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(held(run)),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }
}

fn held(run: &Path) -> Error {
    let holder = std::fs::read_to_string(run.join(LOCK)).unwrap_or_default();
    let process = match holder.trim() {
        "" => "another process".to_string(),
        holder => format!("process {holder}"),
    };
    Error::input(format!(
        "{}: {process} trains in this folder; wait until it ends, stop it (Ctrl-C or SIGTERM saves a checkpoint), or \
         choose another --out",
        run.display()
    ))
}

/// The name of this machine, because a folder on a network may be locked from another one.
fn on_host() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => format!(" on {}", name.trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        RunLock::check(&run.join("none")).unwrap();
        RunLock::check(run).unwrap();
        assert_eq!(
            std::fs::read_dir(run).unwrap().count(),
            0,
            "a check writes nothing"
        );
        let lock = RunLock::acquire(run, &Console::silent()).unwrap();
        let expected = format!("process {}", std::process::id());
        for error in [
            RunLock::check(run).unwrap_err(),
            RunLock::acquire(run, &Console::silent()).unwrap_err(),
        ] {
            assert!(error.to_string().contains(&expected), "{error}");
            assert!(error.to_string().contains("choose another --out"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        drop(lock);
        // The file stays, and with a number in it: nobody holds it.
        assert!(
            std::fs::read_to_string(run.join(LOCK))
                .unwrap()
                .contains(&std::process::id().to_string())
        );
        RunLock::check(run).unwrap();
        RunLock::acquire(run, &Console::silent()).unwrap();
    }

    #[test]
    fn a_check_under_way_does_not_refuse_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().to_path_buf();
        drop(RunLock::acquire(&run, &Console::silent()).unwrap());
        let probe = File::open(run.join(LOCK)).unwrap();
        probe.lock_shared().unwrap();
        let waiting = std::thread::spawn(move || RunLock::acquire(&run, &Console::silent()).map(drop));
        std::thread::sleep(PAUSE);
        drop(probe);
        waiting.join().unwrap().unwrap();
    }
}
