//! Bench, conformance cases and single runs.

mod support;

use ir::plan::{Init, Mode, Role};
use runtime::bench::{BenchOptions, CompileTime, bench, set_random_inputs};
use runtime::check::{CaseRules, case, check, relative_error};
use runtime::interface::Interface;
use runtime::run::{RunRequest, run};
use runtime::{Artifact, DeviceSpec, Executor, Tensor, TensorFile};
use std::collections::BTreeMap;
use std::path::Path;
use support::classifier;

fn cpu() -> Vec<DeviceSpec> {
    DeviceSpec::parse_list("cpu").unwrap()
}

#[test]
fn a_bench_reports_the_fields_of_the_contract() {
    let artifact = classifier(8, 2, 4, 3);
    let options = BenchOptions {
        iters: Some(7),
        compile: Some(CompileTime {
            ms: 12.0,
            cached: true,
        }),
        launches: true,
    };
    let report = bench(artifact.require(Mode::Train).unwrap(), &cpu(), &options).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    for field in [
        "model",
        "mode",
        "batch",
        "devices",
        "precision",
        "iters",
        "median_ms",
        "min_ms",
        "images_per_s",
        "peak_rss_mb",
        "compile_ms",
        "cached",
        "predicted_ms",
        "flops_per_iter",
    ] {
        assert!(json.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(
        (report.mode.as_str(), report.batch, report.iters),
        ("train", 8, 7)
    );
    assert!(report.min_ms > 0.0 && report.min_ms <= report.median_ms && report.peak_rss_mb > 1.0);
    assert!((report.images_per_s - 8e3 / report.median_ms).abs() / report.images_per_s < 0.5);
    assert_eq!(report.launches.unwrap().len(), 3);
    let error = bench(
        artifact.require(Mode::Infer).unwrap(),
        &cpu(),
        &BenchOptions {
            iters: Some(0),
            ..options
        },
    );
    assert!(error.unwrap_err().to_string().contains("at least 1"));
}

#[test]
fn bench_inputs_are_not_zeros_and_labels_are_classes() {
    let artifact = classifier(64, 2, 4, 3);
    let mut executor = Executor::new(artifact.require(Mode::Train).unwrap(), &cpu()).unwrap();
    set_random_inputs(&mut executor).unwrap();
    let images = executor.get_f32("images").unwrap();
    assert!(images.iter().all(|&v| v != 0.0));
    let labels = executor.get("labels").unwrap();
    let labels = labels.as_i64().unwrap();
    assert!((0..3).all(|class| labels.contains(&class)) && labels.iter().all(|label| (0..3).contains(label)));
}

/// A case made from what the program itself gives, and its expected outputs changed by `change`.
fn with_case(tolerance: f64, runs: u32, change: impl Fn(&mut BTreeMap<String, Tensor>)) -> Artifact {
    let mut artifact = classifier(4, 2, 2, 3);
    let mut executor = Executor::new(artifact.require(Mode::Train).unwrap(), &cpu()).unwrap();
    executor.initialise(3).unwrap();
    set_random_inputs(&mut executor).unwrap();
    let collect = |executor: &mut Executor, wanted: fn(&Role) -> bool| -> BTreeMap<String, Tensor> {
        executor
            .names(wanted)
            .into_iter()
            .map(|name| (name.clone(), executor.get(&name).unwrap()))
            .collect()
    };
    let set = collect(&mut executor, |role| {
        matches!(role, Role::Input { .. } | Role::Parameter { .. })
    });
    for _ in 0..2 {
        executor.run().unwrap();
    }
    let mut expect = collect(&mut executor, |role| !matches!(role, Role::Input { .. }));
    change(&mut expect);
    let rules = CaseRules {
        mode: Mode::Train,
        runs,
        tolerance,
        initial_seed: None,
        drawn: Default::default(),
    };
    artifact.cases = vec![case("two-steps", &rules, &set, &expect).unwrap()];
    artifact
}

#[test]
fn cases_pass_and_fail() {
    let comparisons = check(&with_case(0.0, 2, |_| ()), &cpu()).unwrap();
    assert!(
        comparisons.len() == 5 && comparisons.iter().all(|c| c.passed && c.error == 0.0),
        "{comparisons:?}"
    );
    let other_runs = check(&with_case(1e-6, 1, |_| ()), &cpu()).unwrap();
    assert!(other_runs.iter().any(|c| !c.passed));
    let change = |expect: &mut BTreeMap<String, Tensor>| {
        let bias = expect["fc.bias"]
            .as_f32()
            .unwrap()
            .iter()
            .map(|v| v * 1.01)
            .collect();
        expect.insert("fc.bias".into(), Tensor::f32([3], bias).unwrap());
    };
    let failed: Vec<_> = check(&with_case(1e-3, 2, change), &cpu())
        .unwrap()
        .into_iter()
        .filter(|c| !c.passed)
        .collect();
    assert!(
        failed.len() == 1 && failed[0].tensor == "fc.bias" && (failed[0].error - 0.0099).abs() < 1e-3,
        "{failed:?}"
    );
}

#[test]
fn cases_that_cannot_run_say_why() {
    let error = |artifact: &Artifact| check(artifact, &cpu()).unwrap_err().to_string();
    assert!(error(&classifier(4, 2, 2, 3)).contains("no conformance cases"));
    assert!(error(&with_case(0.0, 0, |_| ())).contains("case two-steps: it asks for 0 runs"));
    let scalar = |expect: &mut BTreeMap<String, Tensor>| {
        expect.insert("fc.bias".into(), Tensor::f32([1], vec![0.0]).unwrap());
    };
    assert!(error(&with_case(0.0, 1, scalar)).contains("fc.bias is f32[3] and the case expects f32[1]"));
    let mut artifact = with_case(0.0, 1, |_| ());
    artifact.cases[0].bytes.truncate(20);
    assert!(error(&artifact).contains("truncated or not safetensors"));
    artifact.cases[0].bytes = TensorFile::default().to_bytes().unwrap();
    assert!(error(&artifact).contains("its rules cannot be read"));
    let rules = CaseRules {
        mode: Mode::Train,
        runs: 1,
        tolerance: 0.0,
        initial_seed: None,
        drawn: Default::default(),
    };
    artifact.cases[0] = case("empty", &rules, &BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert!(error(&artifact).contains("case empty: it does not set images"));
}

#[test]
fn what_is_no_number_is_no_match() {
    let tensor = |v: f32| Tensor::f32([2], vec![1.0, v]).unwrap();
    assert_eq!(relative_error(&tensor(f32::NAN), &tensor(2.0)), f64::INFINITY);
    assert_eq!(
        relative_error(&tensor(f32::INFINITY), &tensor(2.0)),
        f64::INFINITY
    );
    assert_eq!(relative_error(&tensor(2.5), &tensor(2.0)), 0.25);
}

#[test]
fn a_run_takes_and_gives_tensors_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, tensors: &[(&str, Tensor)]| {
        let path = folder.path().join(name);
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| (name.to_string(), tensor.clone()))
            .collect();
        TensorFile {
            tensors,
            metadata: BTreeMap::new(),
        }
        .write(&path)
        .unwrap();
        path
    };
    let artifact = classifier(4, 2, 1, 2);
    let tensor = |shape: &[usize], values: &[f32]| Tensor::f32(shape, values.to_vec()).unwrap();
    let weights = file(
        "w",
        &[
            ("fc.weight", tensor(&[2, 3], &[1., 2., 3., 0., 0., 1.])),
            ("fc.bias", tensor(&[2], &[10., 20.])),
        ],
    );
    let images = tensor(&[2, 3, 1, 1], &[1., 1., 1., 0., 1., 2.]);
    let attempt = |weights: &Path, inputs: &Path, grads| {
        run(
            &artifact,
            &cpu(),
            &RunRequest {
                weights,
                inputs,
                grads,
                seed: 0,
            },
        )
    };
    let out = attempt(&weights, &file("x", &[("images", images.clone())]), false).unwrap();
    assert_eq!(out.tensors["logits"].as_f32().unwrap(), [16., 21., 18., 22.]);
    let error = |result: Result<TensorFile, runtime::Error>| result.unwrap_err().to_string();
    assert!(error(attempt(&weights, &file("n", &[]), false)).contains("the input images is missing"));
    let extra = file("e", &[("images", images), ("picture", tensor(&[1], &[0.]))]);
    assert!(error(attempt(&weights, &extra, false)).contains("picture is not an input of the model (infer)"));
    let one = file("o", &[("images", tensor(&[1, 3, 1, 1], &[1.; 3]))]);
    assert!(
        error(attempt(&weights, &one, false))
            .contains("images is f32[2, 3, 1, 1] and f32[1, 3, 1, 1] was given")
    );
    assert!(error(attempt(&one, &one, false)).contains("fc.bias is missing"));
    assert!(error(attempt(&weights, &one, true)).contains("no program for gradients"));
}

#[test]
fn the_interface_of_a_classifier_is_found() {
    let artifact = classifier(4, 2, 5, 7);
    for program in &artifact.programs {
        let interface = Interface::of(&program.plan).unwrap();
        assert_eq!(
            (interface.image.as_str(), interface.image_shape),
            ("images", [3, 5, 5])
        );
        assert_eq!((interface.logits.as_str(), interface.classes), ("logits", 7));
    }
    let error = Interface::of(&support::arithmetic().plan)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("its input a is f32[10, 100], expected f32[N, C, H, W]"),
        "{error}"
    );
    let mut plan = artifact.programs[1].plan.clone();
    plan.buffers.push(support::input("mask", ir::DType::F32, &[1]));
    assert!(
        Interface::of(&plan)
            .unwrap_err()
            .to_string()
            .contains("found 2: images, mask")
    );
    plan.buffers.retain(|b| b.name != "mask" && b.name != "logits");
    plan.buffers
        .push(support::parameter("logits", &[2, 7], Init::Constant(0.0)));
    assert!(
        Interface::of(&plan)
            .unwrap_err()
            .to_string()
            .contains("one output of f32[N, classes] and found 0")
    );
}
