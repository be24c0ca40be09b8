//! The zip file of an artifact: its members, and the manifest with the size and checksum of each.

use super::{MODEL, RECIPE, damaged, sha256};
use crate::{Error, files};
use ir::plan::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// The version of this format; a loader refuses any other.
const FORMAT: u32 = 2;

const MANIFEST: &str = "manifest.json";
const MANIFEST_LIMIT: u64 = 1 << 20;
const TEXT_LIMIT: u64 = 64 << 20;
const CODE_LIMIT: u64 = 512 << 20;
const CASE_LIMIT: u64 = 1 << 30;
const MEMBER_COUNT_LIMIT: usize = 1000;

/// The manifest of an artifact.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    alexc: String,
    pub model: String,
    pub programs: Vec<ProgramEntry>,
    members: BTreeMap<String, MemberEntry>,
}

/// The manifest of a program.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProgramEntry {
    pub mode: Mode,
    pub batch: usize,
    pub precision: String,
    pub predicted_ms: Option<f64>,
    /// Of the host object, if there is one.
    pub host: Option<HostEntry>,
    /// The architectures that there is PTX for.
    pub ptx: Vec<String>,
}

/// The manifest of a host object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostEntry {
    pub arch: String,
    pub features: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    bytes: u64,
    sha256: String,
}

/// The part of a manifest that every format has, so that another format is recognised.
#[derive(Deserialize)]
struct AnyManifest {
    format: u32,
}

/// Writes the members with a manifest of them, atomically.
pub(super) fn write(
    path: &Path,
    model: &str,
    programs: Vec<ProgramEntry>,
    members: &[(String, Vec<u8>)],
) -> Result<(), Error> {
    let manifest = manifest(model, programs, members)?;
    files::write_atomically(path, |file| {
        write_zip(file, &manifest, members, SimpleFileOptions::default())
    })
}

/// The members with a manifest of them in memory. They are not compressed, so that reading them takes little time.
pub(super) fn to_bytes(
    model: &str,
    programs: Vec<ProgramEntry>,
    members: &[(String, Vec<u8>)],
) -> Result<Vec<u8>, Error> {
    let manifest = manifest(model, programs, members)?;
    let mut bytes = Cursor::new(vec![]);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    write_zip(&mut bytes, &manifest, members, stored)
        .map_err(|error| Error::work(format!("the artifact cannot be written: {error}")))?;
    Ok(bytes.into_inner())
}

fn write_zip(
    writer: impl Write + Seek,
    manifest: &[u8],
    members: &[(String, Vec<u8>)],
    options: SimpleFileOptions,
) -> std::io::Result<()> {
    let mut zip = zip::ZipWriter::new(writer);
    let members = members.iter().map(|(name, bytes)| (&name[..], &bytes[..]));
    for (name, bytes) in std::iter::once((MANIFEST, manifest)).chain(members) {
        zip.start_file(name, options)?;
        zip.write_all(bytes)?;
    }
    zip.finish()?;
    Ok(())
}

/// The manifest of the members, as JSON.
fn manifest(
    model: &str,
    programs: Vec<ProgramEntry>,
    members: &[(String, Vec<u8>)],
) -> Result<Vec<u8>, Error> {
    if let Some((name, bytes)) = members
        .iter()
        .find(|(n, bytes)| limit(n).is_none_or(|most| bytes.len() as u64 > most))
    {
        return Err(Error::work(format!(
            "{name} has {} bytes, more than an artifact may hold",
            bytes.len()
        )));
    }
    let entry = |bytes: &[u8]| MemberEntry {
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
    };
    let manifest = Manifest {
        format: FORMAT,
        alexc: env!("CARGO_PKG_VERSION").to_string(),
        model: model.to_string(),
        programs,
        members: members
            .iter()
            .map(|(name, bytes)| (name.clone(), entry(bytes)))
            .collect(),
    };
    serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::work(format!("the manifest cannot be written: {error}")))
}

/// Reads the manifest and every member that it lists.
pub(super) fn read(reader: impl Read + Seek) -> Result<(Manifest, BTreeMap<String, Vec<u8>>), Error> {
    let mut zip = zip::ZipArchive::new(reader).map_err(|error| {
        Error::input(format!(
            "is not an artifact ({error}); give a file that alexc compile wrote"
        ))
    })?;
    if zip.len() > MEMBER_COUNT_LIMIT {
        return Err(damaged(format!(
            "{} members, more than {MEMBER_COUNT_LIMIT}",
            zip.len()
        )));
    }
    let manifest = read_manifest(&read_member(&mut zip, MANIFEST, MANIFEST_LIMIT)?)?;
    let members = read_listed(&mut zip, &manifest)?;
    Ok((manifest, members))
}

/// The name of a conformance case, if a member of this name is one.
pub(super) fn case_name(member: &str) -> Option<&str> {
    let name = member.strip_prefix("cases/")?.strip_suffix(".safetensors")?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}

/// The architecture that a file of this name holds PTX for.
pub(super) fn ptx_target(file: &str) -> Option<&str> {
    let target = file.strip_suffix(".ptx")?;
    let digits = target.strip_prefix("sm_")?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(target)
}

/// The most bytes a member of this name may have; `None` for a name that no member has.
fn limit(name: &str) -> Option<u64> {
    match name.rsplit('/').next() {
        Some(MODEL | RECIPE) if !name.contains('/') => Some(TEXT_LIMIT),
        Some("plan.json" | "graph.ir") => Some(TEXT_LIMIT),
        Some("kernels.so") => Some(CODE_LIMIT),
        Some(file) if ptx_target(file).is_some() => Some(CODE_LIMIT),
        _ => case_name(name).map(|_| CASE_LIMIT),
    }
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, Error> {
    let fail = |error| damaged(format!("{MANIFEST} is not a manifest: {error}"));
    let AnyManifest { format } = serde_json::from_slice(bytes).map_err(fail)?;
    if format != FORMAT {
        return Err(Error::input(format!(
            "the artifact has format {format} and this program reads format {FORMAT}; compile the model again"
        )));
    }
    serde_json::from_slice(bytes).map_err(fail)
}

/// Every member that the manifest lists, checked; a member that it does not list is refused.
fn read_listed(
    zip: &mut zip::ZipArchive<impl Read + Seek>,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    if let Some(name) = zip
        .file_names()
        .find(|&name| name != MANIFEST && !manifest.members.contains_key(name))
    {
        return Err(damaged(format!("the member {name:?} is not in the manifest")));
    }
    let mut members = BTreeMap::new();
    for (name, entry) in &manifest.members {
        let Some(most) = limit(name) else {
            return Err(damaged(format!(
                "the member {name:?} does not belong into an artifact"
            )));
        };
        if entry.bytes > most {
            return Err(damaged(format!(
                "{name} claims {} bytes, more than {most}",
                entry.bytes
            )));
        }
        let bytes = read_member(zip, name, entry.bytes)?;
        if bytes.len() as u64 != entry.bytes {
            return Err(damaged(format!(
                "{name} has {} bytes instead of {}",
                bytes.len(),
                entry.bytes
            )));
        }
        if sha256(&bytes) != entry.sha256 {
            return Err(damaged(format!("the checksum of {name} is wrong")));
        }
        members.insert(name.clone(), bytes);
    }
    Ok(members)
}

/// A member's bytes, at most `most`. Memory grows with the bytes that are read, not with the size in a header.
fn read_member(zip: &mut zip::ZipArchive<impl Read + Seek>, name: &str, most: u64) -> Result<Vec<u8>, Error> {
    let member = zip
        .by_name(name)
        .map_err(|error| damaged(format!("{name}: {error}")))?;
    let mut bytes = Vec::new();
    member
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| damaged(format!("{name}: {error}")))?;
    if bytes.len() as u64 > most {
        return Err(damaged(format!(
            "{name} is larger than the {most} bytes it may have"
        )));
    }
    Ok(bytes)
}
