//! `tests/gpu/run.sh`, the script for a machine with a GPU, on the emulator: it finds its bundles, checks and times them,
//! and says what fails.

mod program;

use program::Place;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with `alexrun`, small peaks, and a bundle of the small model.
fn folder(place: &Place) -> PathBuf {
    let folder = place.path("bundles");
    std::fs::create_dir(&folder).unwrap();
    // Beside the program under test, where `cargo test --workspace` and `make build` put it.
    let alexc = Path::new(env!("CARGO_BIN_EXE_alexc"));
    let alexrun = alexc.with_file_name("alexrun");
    assert!(
        alexrun.exists(),
        "{} is missing: build the workspace",
        alexrun.display()
    );
    std::fs::copy(alexrun, folder.join("alexrun")).unwrap();
    place.succeeds("peaks --small -o bundles/peaks.alx");
    place.succeeds(
        "compile tiny.ir --mode train --batch 4 --target sm_90 --precision tf32 --with-cases -o bundles/tiny-train-4-tf32.alx",
    );
    folder
}

fn run(folder: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu/run.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(folder).arg("sim").env("ITERATIONS", "1");
    command.output().expect("bash runs")
}

#[test]
fn the_script_checks_and_times_every_bundle() {
    let place = Place::new();
    let output = run(&folder(&place));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "## Limits, by generated kernels",
        "## tiny-train-4-tf32",
        "tensors and kernels as their references",
        "tiny, train, batch 4, sim, tf32: 1 runs",
        "conv1+conv1.sum+relu1",
        "all passed",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // Every limit was found, and every kernel has a share of one.
    let limits = text
        .lines()
        .find(|line| line.starts_with("copy "))
        .expect("a line of limits");
    let numbers = limits
        .split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .filter(|word| word.parse::<f64>().is_ok());
    assert!(numbers.count() >= 4, "{limits}");
    assert!(
        text.lines().filter(|line| line.contains(" % of ")).count() > 8,
        "{text}"
    );
}

#[test]
fn a_bundle_that_fails_is_said() {
    let place = Place::new();
    let folder = folder(&place);
    let bundle = folder.join("tiny-train-4-tf32.alx");
    let bytes = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, &bytes[..bytes.len() / 2]).unwrap();
    let output = run(&folder);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("conformance FAILED") && text.contains("FAILURES"),
        "{text}"
    );
}
