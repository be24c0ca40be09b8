//! Artifacts that are damaged or hostile, as `alexrun` meets them: the message names the file and nothing runs.
//! What exactly is refused, and why, is tested in `artifact.rs`.

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::process::Command;
use zip::write::SimpleFileOptions;

/// A folder with a whole artifact, `whole.alx`, and its bytes.
struct Place {
    folder: tempfile::TempDir,
    whole: Vec<u8>,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.alx");
        support::classifier(4, 2, 2, 3).write(&path).unwrap();
        let whole = std::fs::read(path).unwrap();
        Place { folder, whole }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Members of the artifact by name, as `change` leaves them, zipped as `bad.alx`.
    fn rezip(&self, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) {
        let mut zip = zip::ZipArchive::new(Cursor::new(&self.whole)).unwrap();
        let mut members = Vec::new();
        for i in 0..zip.len() {
            let mut member = zip.by_index(i).unwrap();
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).unwrap();
            members.push((member.name().to_string(), bytes));
        }
        change(&mut members);
        let mut zip = zip::ZipWriter::new(std::fs::File::create(self.path("bad.alx")).unwrap());
        for (name, bytes) in members {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        self.rezip(|members| {
            let bytes = member(members, "manifest.json");
            let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
            change(&mut manifest);
            *bytes = serde_json::to_vec(&manifest).unwrap();
        });
    }

    /// Exit code and message of `alexrun bench bad.alx`.
    fn bench(&self) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_alexrun"))
            .current_dir(self.folder.path())
            .args(["bench", "bad.alx", "--iters", "1", "--devices", "cpu:0"])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn refused(&self, parts: &[&str]) {
        let (code, message) = self.bench();
        assert_eq!(code, Some(2), "{message}");
        for part in parts.iter().chain(&["bad.alx", "error: "]) {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert!(!message.contains("panicked"), "{message}");
        let left = std::fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(left, 2, "nothing was unpacked beside the artifact");
    }
}

fn member<'a>(members: &'a mut [(String, Vec<u8>)], name: &str) -> &'a mut Vec<u8> {
    &mut members.iter_mut().find(|(n, _)| n == name).unwrap().1
}

#[test]
fn files_that_are_no_artifacts() {
    let place = Place::new();
    for bytes in [
        &b""[..],
        b"PK\x05\x06",
        b"hello",
        &place.whole[..place.whole.len() - 1],
        &place.whole[1..],
    ] {
        std::fs::write(place.path("bad.alx"), bytes).unwrap();
        place.refused(&["is not an artifact"]);
    }
    std::fs::remove_file(place.path("bad.alx")).unwrap();
    std::fs::create_dir(place.path("bad.alx")).unwrap();
    place.refused(&["is a folder"]);
}

#[test]
fn artifacts_that_lie() {
    let place = Place::new();
    place.change_manifest(|manifest| manifest["format"] = json!(99));
    place.refused(&["format 99", "reads format 2"]);
    place.rezip(|members| member(members, "train/cpu/kernels.so")[200] ^= 1);
    place.refused(&["the checksum of train/cpu/kernels.so"]);
    place.rezip(|members| members.push(("../../escape".into(), b"x".to_vec())));
    place.refused(&["../../escape", "is not in the manifest"]);
    place.rezip(|members| members.push(("/tmp/escape".into(), b"x".to_vec())));
    place.refused(&["/tmp/escape"]);
    place.rezip(|members| members.retain(|(name, _)| name != "train/plan.json"));
    place.refused(&["train/plan.json"]);
    // 200 MB of zeros are some 200 kB in the file.
    place.rezip(|members| *member(members, "manifest.json") = vec![0; 200_000_000]);
    place.refused(&["manifest.json is larger than"]);
    place.change_manifest(|manifest| manifest["members"]["model.ir"]["bytes"] = json!(u64::MAX));
    place.refused(&["model.ir claims"]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// A damaged artifact is told of, or the damage is of no matter (a time stamp).
    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)) {
        thread_local!(static PLACE: Place = Place::new());
        PLACE.with(|place| {
            let mut bytes = place.whole.clone();
            for (at, flip) in &changes {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            std::fs::write(place.path("bad.alx"), bytes).unwrap();
            let (code, message) = place.bench();
            if code != Some(0) {
                place.refused(&[]);
            }
            assert!(!message.contains("panicked"), "{message}");
        });
    }
}
