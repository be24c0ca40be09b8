//! Conformance cases made by the compiler: replayed on the emulator and on the processor, whole and kernel by kernel; a
//! kernel that computes something else is named.

mod program;

use program::Place;
use runtime::check::check;
use runtime::kernel_check::{KernelCases, METADATA};
use runtime::{Artifact, DeviceSpec, TensorFile};
use std::path::Path;

fn devices(name: &str) -> Vec<DeviceSpec> {
    DeviceSpec::parse_list(name).unwrap()
}

fn artifact(place: &Place, flags: &str) -> Artifact {
    place.succeeds(&format!(
        "compile tiny.ir --mode train --batch 5 --with-cases -o t.alx {flags}"
    ));
    Artifact::read(&place.path("t.alx")).unwrap()
}

#[test]
fn every_kernel_and_every_program_is_as_its_reference() {
    let place = Place::new();
    for (flags, device) in [
        ("", "cpu"),
        ("--target avx2", "cpu:0"),
        ("--opt-level 0", "cpu"),
        ("--target sm_90", "sim"),
        ("--target sm_80 --precision tf32", "sim"),
        ("--target sm_90a --precision bf16", "sim"),
        ("--target sm_90a --precision tf32", "sim"),
        ("--target sm_100 --opt-level 0", "sim"),
    ] {
        let artifact = artifact(&place, flags);
        let comparisons =
            check(&artifact, &devices(device)).unwrap_or_else(|error| panic!("{flags}: {error}"));
        let kernels = comparisons.iter().filter(|c| c.case == "train-kernels").count();
        assert!(kernels > 8, "{flags}: {kernels} kernels");
        for whole in ["infer", "train"] {
            assert!(comparisons.iter().any(|c| c.case == whole), "{flags}: no {whole}");
        }
        let failed: Vec<_> = comparisons.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{flags}: {failed:?}");
    }
}

#[test]
fn a_kernel_that_computes_something_else_is_named() {
    let place = Place::new();
    let mut artifact = artifact(&place, "--target sm_90");
    // max becomes min, wherever the PTX says so.
    for program in &mut artifact.programs {
        let text = &mut program.ptx[0].text;
        assert!(text.contains("max.NaN.f32"), "relu is a maximum");
        *text = text.replace("max.NaN.f32", "min.NaN.f32");
    }
    let comparisons = check(&artifact, &devices("sim")).unwrap();
    let failed: Vec<&str> = comparisons
        .iter()
        .filter(|c| !c.passed)
        .map(|c| &c.tensor[..])
        .collect();
    assert!(failed.iter().any(|label| label.contains("relu1")), "{failed:?}");
    assert!(
        !failed.iter().any(|label| label.starts_with("copy")),
        "{failed:?}"
    );
}

#[test]
fn a_damaged_case_is_refused() {
    let place = Place::new();
    let mut artifact = artifact(&place, "--target sm_90");
    let case = artifact
        .cases
        .iter_mut()
        .find(|case| case.name == "infer-kernels")
        .unwrap();
    let mut file = TensorFile::from_bytes(&case.bytes, Path::new("case")).unwrap();
    let whole: KernelCases = serde_json::from_str(&file.metadata[METADATA]).unwrap();
    type Damage = fn(&mut KernelCases);
    let damages: [(Damage, &str); 4] = [
        (
            |cases| cases.kernels[0].launches = vec![99],
            "launches that the plan does not have",
        ),
        (
            |cases| cases.kernels[0].inputs[0].buffer = 99,
            "a buffer that is not there",
        ),
        (
            |cases| cases.kernels[0].outputs[0].buffer = 99,
            "a buffer that is not there",
        ),
        (
            |cases| cases.kernels[0].outputs[0].at[0] = u64::MAX,
            "beyond a buffer",
        ),
    ];
    for (damage, part) in damages {
        let mut cases = whole.clone();
        damage(&mut cases);
        file.metadata
            .insert(METADATA.into(), serde_json::to_string(&cases).unwrap());
        let index = artifact
            .cases
            .iter()
            .position(|case| case.name == "infer-kernels")
            .unwrap();
        artifact.cases[index].bytes = file.to_bytes().unwrap();
        let error = check(&artifact, &devices("sim")).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
