//! What `alexc` compiled, `alexrun` runs: the same numbers come of both, to the last bit.

mod program;

use program::{Place, image, labels};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program `alexrun`, built beside `alexc` if it is not yet.
fn alexrun() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_alexc")).with_file_name("alexrun");
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--offline",
        "--quiet",
        "--workspace",
        "--bin",
        "alexrun",
    ]);
    if beside.parent().is_some_and(|folder| folder.ends_with("release")) {
        build.arg("--release");
    }
    let output = build.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    beside
}

fn run(place: &Place, program: &Path, arguments: &str) -> Output {
    let mut command = Command::new(program);
    command
        .current_dir(place.path("."))
        .args(arguments.split_whitespace())
        .env("XDG_CACHE_HOME", place.path("cache"))
        .env_remove("ALEXC_CACHE_DIR")
        .env("ALEXC_CACHE_LIMIT", "0");
    command.output().unwrap()
}

/// The command succeeds and prints one JSON object.
fn json(place: &Place, program: &Path, arguments: &str) -> Value {
    let output = run(place, program, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn both_programs_give_the_same() {
    let (place, alexrun) = (Place::with_images(), alexrun());
    place.succeeds("compile tiny.ir --mode train -o tiny.alx");
    let alexc = Path::new(env!("CARGO_BIN_EXE_alexc"));

    let both = |alexc_arguments: &str, alexrun_arguments: &str| {
        let expected = json(&place, alexc, alexc_arguments);
        assert_eq!(
            json(&place, &alexrun, alexrun_arguments),
            expected,
            "{alexrun_arguments}"
        );
        expected
    };
    let [one, other] = ["train tiny.ir --out one", "train tiny.alx --out other"]
        .map(|arguments| format!("{arguments} --data data --json"));
    json(&place, alexc, &one);
    json(&place, &alexrun, &other);
    assert_eq!(place.metrics("other"), place.metrics("one"));
    for file in ["last", "model.ir", "recipe.toml"] {
        assert!(
            place.read(&format!("other/{file}")) == place.read(&format!("one/{file}")),
            "{file}"
        );
    }
    for views in [1, 10] {
        let rest = format!("--weights one --data data --views {views} --json");
        // The artifact infers in batches of 6.
        both(
            &format!("eval tiny.ir --batch 6 {rest}"),
            &format!("eval tiny.alx {rest}"),
        );
    }
    let image_file = place
        .files()
        .into_iter()
        .find(|path| path.starts_with("data/val") && path.extension().is_some())
        .unwrap();
    let rest = format!("--weights one --json {}", image_file.display());
    both(
        &format!("predict tiny.ir --batch 6 {rest}"),
        &format!("predict tiny.alx {rest}"),
    );

    place.tensors(
        "x",
        &[("image", image(6)), ("labels", labels(&[0, 1, 2, 0, 1, 2]))],
    );
    place.succeeds("init tiny.ir -o w");
    place.succeeds("run tiny.ir --weights w --inputs x --out y");
    assert!(
        run(&place, &alexrun, "run tiny.alx --weights w --inputs x --out z")
            .status
            .success()
    );
    assert!(place.read("z") == place.read("y"));
    let report = json(&place, &alexrun, "bench tiny.alx --mode infer --iters 2 --json");
    assert_eq!((&report["model"], &report["batch"]), (&"tiny".into(), &6.into()));
}
