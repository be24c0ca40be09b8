//! The artifact (`.alx`): everything a target machine needs, in one zip file that standard tools open.
//!
//! ```text
//! manifest.json                 format, what the programs need, size and SHA-256 of every other member
//! model.ir                      the model as it was given
//! recipe.toml                   the recipe it was compiled with (training only)
//! infer/plan.json               one folder per program, named by its mode: infer, train, gradients
//! infer/graph.ir                the optimised graph, for people
//! infer/cpu/kernels.so          the host object of a program for the CPU
//! infer/cuda/sm_90.ptx          the PTX of a program for GPUs, one file per architecture
//! cases/NAME.safetensors        conformance cases: inputs and reference outputs
//! ```
//!
//! The loader trusts nothing it reads: names, counts and sizes are bounded before memory is spent, every member
//! must be listed and match its checksum, and every plan must pass its own check. No check can show that native code
//! is harmless: load artifacts only from people whose programs you would run.

mod archive;

use crate::Error;
use archive::{HostEntry, Manifest, ProgramEntry, case_name, ptx_target};
use ir::plan::{Mode, Plan};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

const MODEL: &str = "model.ir";
const RECIPE: &str = "recipe.toml";

/// A compiled model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Artifact {
    /// The model's name.
    pub name: String,
    /// The text of the model as it was given.
    pub model: String,
    /// The text of the recipe that training programs were compiled with.
    pub recipe: Option<String>,
    /// At most one program per mode. An artifact for training has two: `train`, and `infer` to evaluate with.
    pub programs: Vec<Compiled>,
    /// Conformance cases, replayed by `alexrun check`.
    pub cases: Vec<Case>,
}

/// A program for one mode and batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// The optimised graph as text, for people.
    pub graph: String,
    /// The arithmetic of contractions: `f32`, `tf32` or `bf16`.
    pub precision: String,
    /// The compiler's prediction for one run, in milliseconds, if it makes one.
    pub predicted_ms: Option<f64>,
    /// Kernels for the host, if the plan is for it.
    pub host: Option<HostObject>,
    /// Kernels for GPUs, if the plan is for them: one text per architecture.
    pub ptx: Vec<Ptx>,
}

/// The kernels of a plan as PTX.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ptx {
    /// The architecture: `sm_90`.
    pub target: String,
    /// One module.
    pub text: String,
}

/// A shared object with the kernels of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostObject {
    /// The architecture, as [`crate::device::cpu::HOST_ARCH`] names it.
    pub arch: String,
    /// Processor features that the code uses, as LLVM names them (`avx512f`).
    pub features: Vec<String>,
    /// The ELF file.
    pub code: Vec<u8>,
}

/// A conformance case: a safetensors file as [`crate::check`] describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

impl Artifact {
    /// The program for a mode, if there is one.
    pub fn program(&self, mode: Mode) -> Option<&Compiled> {
        self.programs.iter().find(|program| program.plan.mode == mode)
    }

    /// The program for a mode.
    pub fn require(&self, mode: Mode) -> Result<&Compiled, Error> {
        self.program(mode).ok_or_else(|| {
            let here: Vec<&str> = self.programs.iter().map(|p| mode_name(p.plan.mode)).collect();
            let wanted = mode_name(mode);
            Error::input(format!(
                "the artifact of {} has no program for {wanted} (it has: {}); compile it with --mode {wanted}",
                self.name,
                if here.is_empty() { "none".to_string() } else { here.join(", ") }
            ))
        })
    }

    /// Writes the artifact, atomically.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        self.check()?;
        let programs = self.programs.iter().map(ProgramEntry::of).collect();
        archive::write(path, &self.name, programs, &self.members()?)
    }

    /// The artifact as bytes that [`Artifact::read_from`] reads, not compressed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let programs = self.programs.iter().map(ProgramEntry::of).collect();
        archive::to_bytes(&self.name, programs, &self.members()?)
    }

    /// Reads and checks an artifact. Its code is not loaded yet.
    pub fn read(path: &Path) -> Result<Artifact, Error> {
        let file = File::open(path).map_err(|error| Error::reading(path, &error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Error::input(format!(
                "{}: is a folder; name an artifact (.alx)",
                path.display()
            )));
        }
        Artifact::read_from(BufReader::new(file)).map_err(|error| error.at(path.display()))
    }

    /// As [`Artifact::read`], from anything that can be read.
    pub fn read_from(reader: impl Read + Seek) -> Result<Artifact, Error> {
        let (manifest, mut members): (Manifest, _) = archive::read(reader)?;
        let mut take = |name: String| {
            members
                .remove(&name)
                .ok_or_else(|| damaged(format!("the member {name} is missing")))
        };
        let mut artifact = Artifact {
            name: manifest.model,
            model: text(take(MODEL.to_string())?, MODEL)?,
            recipe: None,
            programs: Vec::new(),
            cases: Vec::new(),
        };
        for entry in manifest.programs {
            let folder = mode_name(entry.mode);
            let plan = take(format!("{folder}/plan.json"))?;
            let graph = text(take(format!("{folder}/graph.ir"))?, "graph.ir")?;
            let host = entry
                .host
                .as_ref()
                .map(|_| take(host_member(folder)))
                .transpose()?;
            let mut ptx = vec![];
            for target in &entry.ptx {
                ptx.push(Ptx {
                    target: target.clone(),
                    text: text(take(ptx_member(folder, target))?, target)?,
                });
            }
            artifact
                .programs
                .push(entry.into_program(&plan, graph, host, ptx)?);
        }
        for (name, bytes) in members {
            if name == RECIPE {
                artifact.recipe = Some(text(bytes, RECIPE)?);
            } else if let Some(case) = case_name(&name) {
                artifact.cases.push(Case {
                    name: case.to_string(),
                    bytes,
                });
            } else {
                return Err(damaged(format!(
                    "the member {name:?} does not belong into an artifact"
                )));
            }
        }
        artifact.check()?;
        Ok(artifact)
    }

    /// The conditions for every artifact, checked on reading and on writing.
    fn check(&self) -> Result<(), Error> {
        let mut modes = BTreeSet::new();
        for program in &self.programs {
            let (plan, mode) = (&program.plan, mode_name(program.plan.mode));
            if !modes.insert(mode) {
                return Err(damaged(format!("two programs for {mode}")));
            }
            plan.check()
                .map_err(|error| Error::input(format!("{mode}/plan.json: {error}")))?;
            let targets: BTreeSet<&String> = program.ptx.iter().map(|ptx| &ptx.target).collect();
            if targets.len() != program.ptx.len() {
                return Err(damaged(format!("{mode} has two PTX texts for one target")));
            }
            if let Some(target) = targets
                .iter()
                .find(|target| ptx_target(&format!("{target}.ptx")).is_none())
            {
                return Err(damaged(format!(
                    "{target:?} is not an architecture such as sm_90"
                )));
            }
        }
        match self
            .cases
            .iter()
            .find(|case| case_name(&case.member()) != Some(&case.name))
        {
            Some(case) => Err(damaged(format!("{:?} is not a name for a case", case.name))),
            None => Ok(()),
        }
    }

    fn members(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut members = vec![(MODEL.to_string(), self.model.clone().into_bytes())];
        if let Some(recipe) = &self.recipe {
            members.push((RECIPE.to_string(), recipe.clone().into_bytes()));
        }
        for program in &self.programs {
            let folder = mode_name(program.plan.mode);
            let plan = serde_json::to_vec(&program.plan)
                .map_err(|error| Error::work(format!("the plan cannot be written: {error}")))?;
            members.push((format!("{folder}/plan.json"), plan));
            members.push((format!("{folder}/graph.ir"), program.graph.clone().into_bytes()));
            if let Some(host) = &program.host {
                members.push((host_member(folder), host.code.clone()));
            }
            for ptx in &program.ptx {
                members.push((ptx_member(folder, &ptx.target), ptx.text.clone().into_bytes()));
            }
        }
        members.extend(self.cases.iter().map(|case| (case.member(), case.bytes.clone())));
        Ok(members)
    }
}

impl Case {
    fn member(&self) -> String {
        format!("cases/{}.safetensors", self.name)
    }
}

impl ProgramEntry {
    fn of(program: &Compiled) -> ProgramEntry {
        ProgramEntry {
            mode: program.plan.mode,
            batch: program.plan.batch,
            precision: program.precision.clone(),
            predicted_ms: program.predicted_ms,
            host: program.host.as_ref().map(|host| HostEntry {
                arch: host.arch.clone(),
                features: host.features.clone(),
            }),
            ptx: program.ptx.iter().map(|ptx| ptx.target.clone()).collect(),
        }
    }

    fn into_program(
        self,
        plan: &[u8],
        graph: String,
        code: Option<Vec<u8>>,
        ptx: Vec<Ptx>,
    ) -> Result<Compiled, Error> {
        let folder = mode_name(self.mode);
        let plan: Plan = serde_json::from_slice(plan)
            .map_err(|error| damaged(format!("{folder}/plan.json is not a plan: {error}")))?;
        if plan.mode != self.mode || plan.batch != self.batch {
            let (mode, batch) = (mode_name(plan.mode), plan.batch);
            return Err(damaged(format!(
                "{folder}/plan.json is a plan for {mode} at batch {batch}"
            )));
        }
        let host = self.host.zip(code).map(|(entry, code)| HostObject {
            arch: entry.arch,
            features: entry.features,
            code,
        });
        Ok(Compiled {
            plan,
            graph,
            precision: self.precision,
            predicted_ms: self.predicted_ms,
            host,
            ptx,
        })
    }
}

fn host_member(folder: &str) -> String {
    format!("{folder}/cpu/kernels.so")
}

fn ptx_member(folder: &str, target: &str) -> String {
    format!("{folder}/cuda/{target}.ptx")
}

/// The name of a mode, as on the command line and in artifacts.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Infer => "infer",
        Mode::Train => "train",
        Mode::Gradients => "gradients",
    }
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(what: String) -> Error {
    Error::input(format!(
        "the artifact is damaged: {what}; copy or compile it again"
    ))
}

fn text(bytes: Vec<u8>, name: &str) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| damaged(format!("{name} is not UTF-8 text")))
}
