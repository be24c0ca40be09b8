//! `alexc cache`: what compiling has kept, and how to remove it.

use super::Description;
use super::folder::{EntryFile, Folder, LIMIT_VARIABLE};
use crate::calibrate;
use runtime::Error;
use runtime::cli::OutputArgs;
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

#[derive(Serialize)]
struct Report {
    /// Where the entries are; nothing where this user has no cache folder.
    folder: Option<PathBuf>,
    /// The last used first.
    entries: Vec<Row>,
    total_bytes: u64,
    limit_bytes: u64,
    /// Damaged entries that were thrown away since the folder was cleared.
    thrown_away: usize,
}

#[derive(Serialize)]
struct Row {
    /// Absent of an entry that is damaged.
    #[serde(flatten)]
    description: Option<Description>,
    bytes: u64,
    /// In UTC, as `2026-11-27T18:30:00Z`.
    last_used: String,
}

#[derive(Serialize)]
struct Cleared {
    folder: Option<PathBuf>,
    removed_entries: usize,
    removed_bytes: u64,
}

/// Lists the entries of the user's cache, or removes them.
pub fn command(clear: bool, output: OutputArgs) -> Result<(), Error> {
    let folder = Folder::of_user()?;
    if clear {
        let (removed_entries, removed_bytes) = match &folder {
            Some(folder) => folder.clear()?,
            None => (0, 0),
        };
        let folder = folder.map(|folder| folder.path);
        let cleared = Cleared {
            folder,
            removed_entries,
            removed_bytes,
        };
        return output.print(&cleared, || {
            format!("{removed_entries} entries removed, {}", size(removed_bytes))
        });
    }
    let mut files = folder.as_ref().map(Folder::entries).unwrap_or_default();
    files.sort_by_key(|file| std::cmp::Reverse(file.last_used));
    let report = Report {
        total_bytes: files.iter().map(|file| file.bytes).sum(),
        limit_bytes: super::folder::limit_bytes()?,
        thrown_away: folder.as_ref().map_or(0, Folder::thrown_away),
        folder: folder.map(|folder| folder.path),
        entries: files.iter().map(Row::of).collect(),
    };
    output.print(&report, || report.text())
}

impl Row {
    fn of(file: &EntryFile) -> Row {
        let since = file.last_used.duration_since(UNIX_EPOCH).unwrap_or_default();
        Row {
            description: Description::read(&file.path),
            bytes: file.bytes,
            last_used: calibrate::time(since.as_secs()),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        match &self.folder {
            Some(folder) => _ = writeln!(text, "{}", folder.display()),
            None => {
                text += "no cache folder: none of ALEXC_CACHE_DIR, XDG_CACHE_HOME and HOME is set, so nothing is kept\n"
            }
        }
        for row in &self.entries {
            let described = match &row.description {
                Some(Description {
                    model,
                    modes,
                    batch,
                    targets,
                    opt_level,
                    ..
                }) => format!(
                    "{model}, {}, batch {batch}, {}, level {opt_level}",
                    modes.join(" and "),
                    targets.join(" and ")
                ),
                None => "damaged".to_string(),
            };
            let (last_used, bytes) = (&row.last_used, size(row.bytes));
            _ = writeln!(text, "{bytes:>10}  last used {last_used}  {described}");
        }
        let (entries, total, limit) = (self.entries.len(), size(self.total_bytes), size(self.limit_bytes));
        _ = writeln!(
            text,
            "{entries} entries, {total} of at most {limit} ({LIMIT_VARIABLE})"
        );
        if self.thrown_away > 0 {
            _ = writeln!(text, "{} damaged entries were thrown away", self.thrown_away);
        }
        text
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
