//! The artifact's loader against whole, damaged and hostile files.

mod support;

use ir::plan::Mode;
use proptest::prelude::*;
use runtime::{Artifact, Case, DeviceSpec, Executor};
use serde_json::{Value, json};
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;

fn artifact() -> Artifact {
    let mut artifact = support::classifier(4, 2, 2, 3);
    artifact.recipe = Some("[train]\nbatch = 4\n".into());
    artifact.cases = vec![Case {
        name: "one".into(),
        bytes: vec![1, 2, 3],
    }];
    artifact
}

fn bytes_of(artifact: &Artifact) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.alx");
    artifact.write(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// The artifact's members after `change`, zipped again.
fn rezipped(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes_of(&artifact()))).unwrap();
    let mut members = Vec::new();
    for i in 0..zip.len() {
        let mut member = zip.by_index(i).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        members.push((member.name().to_string(), bytes));
    }
    change(&mut members);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn member<'a>(members: &'a mut [(String, Vec<u8>)], name: &str) -> &'a mut Vec<u8> {
    &mut members.iter_mut().find(|(n, _)| n == name).unwrap().1
}

fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    rezipped(|members| {
        let bytes = member(members, "manifest.json");
        let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
        change(&mut manifest);
        *bytes = serde_json::to_vec(&manifest).unwrap();
    })
}

/// A member changed, and the manifest changed to agree with it.
fn with_member(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    rezipped(|members| {
        let entry = json!({"bytes": bytes.len(), "sha256": runtime::artifact::sha256(&bytes)});
        match members.iter_mut().find(|(n, _)| n == name) {
            Some(found) => found.1 = bytes,
            None => members.push((name.into(), bytes)),
        }
        let manifest = member(members, "manifest.json");
        let mut value: Value = serde_json::from_slice(manifest).unwrap();
        value["members"][name] = entry;
        *manifest = serde_json::to_vec(&value).unwrap();
    })
}

fn refuse(bytes: &[u8], part: &str) {
    let error = Artifact::read_from(Cursor::new(bytes)).expect_err("a bad artifact is refused");
    assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_artifact_is_read_as_it_was_written_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.alx");
    artifact().write(&path).unwrap();
    let read = Artifact::read(&path).unwrap();
    assert_eq!(read, artifact());
    let mut executor = Executor::new(
        read.require(Mode::Infer).unwrap(),
        &[DeviceSpec::parse("cpu").unwrap()],
    )
    .unwrap();
    executor.set_f32("fc.bias", &[1.0, 2.0, 3.0]).unwrap();
    executor.run().unwrap();
    assert_eq!(
        executor.get_f32("logits").unwrap(),
        [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    );
    let error = read.require(Mode::Gradients).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no program for gradients (it has: train, infer)"),
        "{error}"
    );
}

#[test]
fn writing_twice_gives_the_same_bytes() {
    let artifact = artifact();
    assert_eq!(bytes_of(&artifact), bytes_of(&artifact));
}

#[test]
fn every_truncation_is_refused() {
    let whole = bytes_of(&artifact());
    let lengths = (0..whole.len()).step_by(97).chain(whole.len() - 100..whole.len());
    for length in lengths {
        assert!(
            Artifact::read_from(Cursor::new(&whole[..length])).is_err(),
            "{length} of {}",
            whole.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A flipped byte is either noticed or harmless (a time stamp); it never panics and never changes what is read.
    #[test]
    fn a_changed_byte_is_noticed_or_harmless(at in any::<prop::sample::Index>(), flip in 1u8..) {
        thread_local!(static WHOLE: (Artifact, Vec<u8>) = { let a = artifact(); let b = bytes_of(&a); (a, b) });
        WHOLE.with(|(artifact, whole)| {
            let mut bytes = whole.clone();
            bytes[at.index(whole.len())] ^= flip;
            if let Ok(read) = Artifact::read_from(Cursor::new(bytes)) {
                prop_assert_eq!(&read, artifact);
            }
            Ok(())
        })?;
    }

    /// Noise is not an artifact.
    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Artifact::read_from(Cursor::new(bytes)).is_err());
    }
}

#[test]
fn hostile_members_are_refused() {
    refuse(
        &rezipped(|m| m.retain(|(name, _)| name != "manifest.json")),
        "manifest.json",
    );
    refuse(
        &rezipped(|m| m.retain(|(name, _)| name != "train/plan.json")),
        "train/plan.json",
    );
    refuse(
        &rezipped(|m| m.push(("../../etc/passwd".into(), vec![]))),
        "is not in the manifest",
    );
    refuse(
        &rezipped(|m| member(m, "train/cpu/kernels.so")[100] ^= 1),
        "the checksum of train/cpu/kernels.so",
    );
    refuse(
        &rezipped(|m| member(m, "model.ir").push(b'#')),
        "model.ir is larger",
    );
    refuse(
        &rezipped(|m| member(m, "model.ir").truncate(2)),
        "model.ir has 2 bytes instead of",
    );
    for name in [
        "../escape",
        "/etc/passwd",
        "cases/../../x.safetensors",
        "cases/.safetensors",
        "x/model.ir",
    ] {
        refuse(&with_member(name, vec![1]), "does not belong into an artifact");
    }
    // Thousands of members, each tiny.
    refuse(
        &rezipped(|m| m.extend((0..2000).map(|i| (format!("{i}"), vec![])))),
        "members, more than",
    );
}

#[test]
fn zip_bombs_do_not_burst() {
    // 100 MB of zeros are some 100 kB in the file.
    let zeros = || vec![0u8; 100_000_000];
    refuse(
        &rezipped(|m| *member(m, "manifest.json") = zeros()),
        "manifest.json is larger than",
    );
    refuse(
        &with_member("model.ir", zeros()),
        "model.ir claims 100000000 bytes",
    );
    refuse(
        &rezipped(|m| *member(m, "model.ir") = zeros()),
        "model.ir is larger than",
    );
    refuse(
        &with_manifest(|m| m["members"]["train/cpu/kernels.so"]["bytes"] = json!(1u64 << 60)),
        "claims",
    );
}

#[test]
fn lying_manifests_are_refused() {
    refuse(
        &with_manifest(|m| m["format"] = json!(1)),
        "format 1 and this program reads format 2",
    );
    refuse(&with_manifest(|m| m["format"] = json!("x")), "is not a manifest");
    refuse(&with_manifest(|m| m["surprise"] = json!(1)), "surprise");
    refuse(
        &with_manifest(|m| m["programs"][0]["batch"] = json!(5)),
        "a plan for train at batch 4",
    );
    refuse(
        &with_manifest(|m| m["programs"][1]["mode"] = json!("train")),
        "missing",
    );
    refuse(
        &with_manifest(|m| m["programs"][1]["mode"] = json!("gradients")),
        "gradients/plan.json is missing",
    );
    refuse(
        &rezipped(|m| *member(m, "manifest.json") = b"{".to_vec()),
        "is not a manifest",
    );
}

#[test]
fn unsound_plans_are_refused() {
    let plan = |change: fn(&mut Value)| {
        let mut plan = serde_json::to_value(&artifact().programs[0].plan).unwrap();
        change(&mut plan);
        with_member("train/plan.json", serde_json::to_vec(&plan).unwrap())
    };
    refuse(&plan(|p| p["version"] = json!(99)), "format version 99");
    refuse(
        &plan(|p| p["step"][0]["work"]["kernel"]["arguments"][0] = json!(1000)),
        "names buffer 1000",
    );
    refuse(
        &plan(|p| p["kernels"][0]["symbol"] = json!("../x")),
        "is no kernel symbol",
    );
    refuse(
        &plan(|p| p["buffers"][0]["name"] = json!("labels")),
        "two tensors are named labels",
    );
    refuse(
        &plan(|p| p["buffers"][0]["bytes"] = json!(-1)),
        "train/plan.json is not a plan",
    );
    refuse(
        &with_member("train/plan.json", vec![b'['; 1_000_000]),
        "train/plan.json is not a plan",
    );
    refuse(&with_member("model.ir", vec![0xff]), "model.ir is not UTF-8");
}

#[test]
fn what_is_no_file_says_so() {
    let read = |path: &str| Artifact::read(path.as_ref()).unwrap_err().to_string();
    assert!(read("/no/such.alx").contains("/no/such.alx: cannot be read"));
    assert!(read("/tmp").contains("is a folder"));
    assert!(read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).contains("is not an artifact"));
}

#[test]
fn a_case_with_a_strange_name_is_not_written() {
    let mut artifact = artifact();
    artifact.cases[0].name = "../x".into();
    let folder = tempfile::tempdir().unwrap();
    let error = artifact.write(&folder.path().join("x.alx")).unwrap_err();
    assert!(error.to_string().contains("is not a name for a case"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
