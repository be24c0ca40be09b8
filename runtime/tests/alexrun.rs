//! The program `alexrun`, from outside: exit codes, what goes to stdout, what bad input says.

mod support;

use ir::plan::Mode;
use runtime::check::{CaseRules, case};
use runtime::{Tensor, TensorFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn alexrun(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alexrun"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit code, and that stderr holds `part`.
fn fails(args: &[&str], code: i32, part: &str) {
    let output = alexrun(args);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains('\x1b'),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(code), "{stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tensors(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors = tensors
        .iter()
        .map(|(name, tensor)| (name.to_string(), tensor.clone()))
        .collect();
    TensorFile {
        tensors,
        metadata: BTreeMap::new(),
    }
    .write(path)
    .unwrap();
}

/// An artifact with one case that passes and, if `broken`, one that does not.
fn artifact(folder: &Path, broken: bool) -> PathBuf {
    let mut artifact = support::classifier(4, 2, 1, 2);
    let tensor = |shape: &[usize], values: &[f32]| Tensor::f32(shape, values.to_vec()).unwrap();
    let set: BTreeMap<String, Tensor> = [
        (
            "images".to_string(),
            tensor(&[2, 3, 1, 1], &[1., 1., 1., 0., 1., 2.]),
        ),
        (
            "fc.weight".to_string(),
            tensor(&[2, 3], &[1., 2., 3., 0., 0., 1.]),
        ),
        ("fc.bias".to_string(), tensor(&[2], &[10., 20.])),
    ]
    .into();
    let rules = CaseRules {
        mode: Mode::Infer,
        runs: 1,
        tolerance: 1e-6,
        initial_seed: None,
        drawn: Default::default(),
    };
    let expect = |first: f32| [("logits".to_string(), tensor(&[2, 2], &[first, 21., 18., 22.]))].into();
    artifact
        .cases
        .push(case("right", &rules, &set, &expect(16.0)).unwrap());
    if broken {
        artifact
            .cases
            .push(case("wrong", &rules, &set, &expect(17.0)).unwrap());
    }
    let path = folder.join("tiny.alx");
    artifact.write(&path).unwrap();
    path
}

#[test]
fn every_command_has_help_with_an_example() {
    let output = alexrun(&["--help"]);
    assert!(output.status.success() && stdout(&output).contains("Exit codes"));
    for command in ["run", "train", "eval", "predict", "bench", "check"] {
        let output = alexrun(&[command, "--help"]);
        assert!(output.status.success());
        assert!(
            stdout(&output).contains(&format!("Example:\n  alexrun {command}")),
            "{command}"
        );
    }
}

#[test]
fn bench_prints_one_json_object_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(folder.path(), false);
    let output = alexrun(&[
        "bench",
        text(&path),
        "--iters",
        "3",
        "--json",
        "--devices",
        "cpu:0",
    ]);
    assert!(output.status.success() && output.stderr.is_empty());
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&report["mode"], &report["devices"], &report["iters"]),
        (&"train".into(), &"cpu:0".into(), &3.into())
    );
    assert!(report["compile_ms"].is_null() && report.get("launches").is_none());
    let output = alexrun(&[
        "bench",
        text(&path),
        "--iters",
        "1",
        "--mode",
        "infer",
        "--launches",
    ]);
    assert!(
        stdout(&output).contains("images/s") && stdout(&output).contains("GB/s  fc"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn run_writes_outputs_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(folder.path(), false);
    let file = |name: &str| folder.path().join(name);
    let tensor = |shape: &[usize], values: &[f32]| Tensor::f32(shape, values.to_vec()).unwrap();
    tensors(
        &file("w"),
        &[
            ("fc.weight", tensor(&[2, 3], &[0.; 6])),
            ("fc.bias", tensor(&[2], &[1., 2.])),
        ],
    );
    tensors(&file("x"), &[("images", tensor(&[2, 3, 1, 1], &[0.; 6]))]);
    let (w, x, y) = (file("w"), file("x"), file("y"));
    let run = |out: &Path| {
        alexrun(&[
            "run",
            text(&path),
            "--weights",
            text(&w),
            "--inputs",
            text(&x),
            "--out",
            text(out),
        ])
    };
    let output = run(&y);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    assert_eq!(
        TensorFile::read(&y).unwrap().tensors["logits"].as_f32().unwrap(),
        [1., 2., 1., 2.]
    );
    assert_eq!(run(Path::new("/no/such/folder/y")).status.code(), Some(2));
    assert_eq!(run(Path::new("/dev/full/y")).status.code(), Some(2));
    assert_eq!(run(Path::new("/dev/full")).status.code(), Some(1));
    fails(
        &[
            "run",
            text(&path),
            "--weights",
            text(&x),
            "--inputs",
            text(&x),
            "--out",
            text(&y),
        ],
        2,
        "fc.weight is missing (expected f32[2, 3])",
    );
}

#[test]
fn check_tells_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(folder.path(), false);
    let output = alexrun(&["check", text(&path)]);
    assert!(output.status.success());
    assert!(
        stdout(&output).contains("ok     right: logits: relative error 0.00e0"),
        "{}",
        stdout(&output)
    );
    let path = artifact(folder.path(), true);
    fails(&["check", text(&path)], 1, "1 of 2 tensors differ");
    let output = alexrun(&["check", text(&path), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&report["passed"], &report["comparisons"][1]["case"]),
        (&false.into(), &"wrong".into())
    );
}

#[test]
fn bad_usage_and_bad_input_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(folder.path(), false);
    fails(&["bench"], 2, "ARTIFACT");
    fails(&["bench", text(&path), "--itters", "3"], 2, "--iters");
    fails(&["bench", text(&path), "--iters", "0"], 2, "at least 1");
    fails(
        &["bench", text(&path), "--mode", "gradients"],
        2,
        "no program for gradients (it has: train, infer)",
    );
    fails(
        &["bench", text(&path), "--devices", "gpu"],
        2,
        "no such kind of device",
    );
    fails(
        &["bench", text(&path), "--devices", "cpu:4000"],
        2,
        "core 4000 is not among those",
    );
    fails(&["bench", "/no/such.alx"], 2, "/no/such.alx: cannot be read");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    fails(&["bench", text(&path)], 2, "is not an artifact");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = artifact(folder.path(), false);
    let mut child = Command::new(env!("CARGO_BIN_EXE_alexrun"))
        .args(["bench", text(&path), "--iters", "1", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_links_neither_llvm_nor_mlir() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_alexrun")).unwrap();
    for library in ["libLLVM", "libMLIR"] {
        let found = program
            .windows(library.len())
            .any(|window| window == library.as_bytes());
        assert!(!found, "alexrun names {library}");
    }
}
