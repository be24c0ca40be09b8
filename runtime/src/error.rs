//! One error type for the whole runtime, because every caller needs the same two things: a message for a person, and
//! whether the input or the work failed, which decides the exit code.

use std::path::Path;

/// An error. The message names the place, the found value, the expected value and a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bad usage or bad input: a file, a flag, a name, a shape. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// Bad input, as a report for a person that lists every error with its place. Exit code 2.
    #[error("{0}")]
    Report(String),
    /// The input was valid and the work failed: a full disk, no memory, a diverging loss. Exit code 1.
    #[error("{0}")]
    Work(String),
    /// The user asked to stop, and everything worth keeping was saved. Exit code 130.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// Bad usage or bad input.
    pub fn input(message: impl Into<String>) -> Error {
        Error::Input(message.into())
    }

    /// The work failed.
    pub fn work(message: impl Into<String>) -> Error {
        Error::Work(message.into())
    }

    /// The program's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Work(_) => 1,
            Error::Input(_) | Error::Report(_) => 2,
            Error::Interrupted(_) => 130,
        }
    }

    /// The same error with `place` in front of its message.
    pub fn at(self, place: impl std::fmt::Display) -> Error {
        match self {
            Error::Input(message) => Error::Input(format!("{place}: {message}")),
            Error::Report(message) => Error::Report(format!("{place}: {message}")),
            Error::Work(message) => Error::Work(format!("{place}: {message}")),
            Error::Interrupted(message) => Error::Interrupted(format!("{place}: {message}")),
        }
    }

    /// The same error with a further line, `note: ...`.
    pub fn with_note(self, note: impl std::fmt::Display) -> Error {
        let add = |message: String| format!("{}\nnote: {note}", message.trim_end());
        match self {
            Error::Input(message) => Error::Input(add(message)),
            Error::Report(message) => Error::Report(add(message)),
            Error::Work(message) => Error::Work(add(message)),
            Error::Interrupted(message) => Error::Interrupted(add(message)),
        }
    }

    /// A file that could not be read: the caller's path is at fault.
    pub fn reading(path: &Path, error: &std::io::Error) -> Error {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "; check the path",
            std::io::ErrorKind::PermissionDenied => "; allow this user to read it",
            std::io::ErrorKind::IsADirectory => "; name a file, not a folder",
            std::io::ErrorKind::NotADirectory => "; a part of the path is a file, not a folder",
            _ => "",
        };
        Error::Input(format!("{}: cannot be read: {error}{remedy}", path.display()))
    }

    /// A file that could not be written.
    pub fn writing(path: &Path, error: &std::io::Error) -> Error {
        let path = path.display();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::Work(format!(
                "{path}: the disk is full ({error}); existing files are unchanged. Free some space and try again"
            )),
            std::io::ErrorKind::FileTooLarge => Error::Work(format!(
                "{path}: the limit on the size of files is reached ({error}); existing files are unchanged. Raise it \
                 (ulimit -f) and try again"
            )),
            std::io::ErrorKind::NotFound => Error::Input(format!(
                "{path}: cannot be written: {error}; make its folder first"
            )),
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Error::Input(
                format!("{path}: cannot be written: {error}; choose a place this user may write"),
            ),
            std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::AlreadyExists => Error::Input(format!(
                "{path}: cannot be written: {error}; something else is there, so choose another place"
            )),
            _ => Error::Work(format!("{path}: cannot be written: {error}")),
        }
    }
}
