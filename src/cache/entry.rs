//! The file of a cached artifact: a line with a checksum of the rest, a line that describes the artifact, the artifact.
//!
//! The artifact is not compressed, because reading it must take little time.

use codegen::Target;
use runtime::artifact::{mode_name, sha256};
use runtime::{Artifact, Error};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use crate::compile::Request;

/// The first word of a file; another format has another one.
const FORMAT: &str = "alexc-cache-1";
/// The largest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 1 << 20;

/// A compiled model with what a person wants to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is.
    pub description: Description,
    /// The artifact.
    pub artifact: Artifact,
}

/// What a cached artifact is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The model's name.
    pub model: String,
    /// The modes of its programs.
    pub modes: Vec<String>,
    /// Samples of one run.
    pub batch: usize,
    /// What its code is for, one a device.
    pub targets: Vec<String>,
    /// The level of optimisation.
    pub opt_level: u8,
    /// Milliseconds that compiling took.
    pub compile_ms: f64,
    /// What compiling warned of.
    pub warnings: Vec<String>,
}

impl Description {
    /// Describes what was compiled as requested.
    pub fn new(model: &str, request: &Request, compile_ms: f64, warnings: Vec<String>) -> Description {
        let modes = request.modes.iter().map(|&mode| mode_name(mode).to_string());
        Description {
            model: model.to_string(),
            modes: modes.collect(),
            batch: request.batch,
            targets: request.targets.iter().map(target_name).collect(),
            opt_level: request.opt_level,
            compile_ms,
            warnings,
        }
    }

    /// The description at the beginning of a file; `None` if there is none.
    pub fn read(path: &Path) -> Option<Description> {
        let mut file = BufReader::new(std::fs::File::open(path).ok()?.take(MAX_DESCRIPTION));
        let (mut first, mut second) = (String::new(), String::new());
        file.read_line(&mut first).ok()?;
        file.read_line(&mut second).ok()?;
        let is_entry = first.split_once(' ')?.0 == FORMAT;
        serde_json::from_str(&second).ok().filter(|_| is_entry)
    }
}

impl Entry {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut rest = serde_json::to_vec(&self.description)
            .map_err(|error| Error::work(format!("the description cannot be written: {error}")))?;
        rest.push(b'\n');
        rest.extend(self.artifact.to_bytes()?);
        let mut bytes = format!("{FORMAT} {}\n", sha256(&rest)).into_bytes();
        bytes.extend(rest);
        Ok(bytes)
    }

    /// What a file holds; `None` if it is not as it was written.
    pub fn from_bytes(bytes: &[u8]) -> Option<Entry> {
        let (first, rest) = split_line(bytes)?;
        let checksum = first.strip_prefix(FORMAT.as_bytes())?.strip_prefix(b" ")?;
        if checksum != sha256(rest).as_bytes() {
            return None;
        }
        let (description, artifact) = split_line(rest)?;
        Some(Entry {
            description: serde_json::from_slice(description).ok()?,
            artifact: Artifact::read_from(Cursor::new(artifact)).ok()?,
        })
    }
}

/// The first line, and what follows it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The name of a target in lists.
fn target_name(target: &Target) -> String {
    match target {
        Target::Host(host) => host.cpu.clone(),
        Target::Gpu(gpu, precision) => format!("{} {}", gpu.architecture, precision.name()),
    }
}
