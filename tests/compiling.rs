//! `compile`, `run` and `bench`: what is compiled, what it shows of itself, what it computes and how it is timed.

mod program;

use program::{MODEL, PARAMETERS, Place, image, labels};
use runtime::{Artifact, DeviceSpec, Executor, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What the interpreter gives for the model's logits.
fn reference(parameters: &BTreeMap<String, Tensor>, images: &Tensor) -> Vec<f64> {
    let graph = ir::text::parse(MODEL, "tiny.ir").unwrap();
    let inputs: HashMap<String, ir::interpreter::Tensor> = parameters
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor))
        .chain([("image".to_string(), images)])
        .map(|(name, tensor)| {
            let values = tensor.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect();
            (name, ir::interpreter::Tensor::f32(tensor.shape(), values))
        })
        .collect();
    let graph = graph.bind(images.shape()[0]).unwrap();
    let values = ir::interpreter::evaluate(&graph, &inputs).unwrap();
    let (_, logits) = graph.outputs().iter().find(|(name, _)| name == "logits").unwrap();
    values[*logits].data.clone()
}

fn near(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= tolerance, "{found} is not {expected}");
    }
}

#[test]
fn run_gives_what_the_interpreter_gives() {
    let place = Place::with_tensors();
    let expected = reference(&place.read_tensors("w.safetensors"), &image(2));
    for level in 0..=2 {
        let run = "run tiny.ir --weights w.safetensors --inputs x.safetensors --out y.safetensors";
        assert_eq!(place.succeeds(&format!("{run} --opt-level {level}")), "");
        let outputs = place.read_tensors("y.safetensors");
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs["logits"].shape(), [2, 3]);
        near(outputs["logits"].as_f32().unwrap(), &expected, 1e-5);
    }
}

#[test]
fn run_gives_loss_and_gradients() {
    let place = Place::with_tensors();
    place.tensors(
        "xl.safetensors",
        &[("image", image(2)), ("labels", labels(&[2, 0]))],
    );
    let run = |more: &str, out: &str| {
        place.succeeds(&format!(
            "run tiny.ir --weights w.safetensors --inputs xl.safetensors --grads --out {out} {more}"
        ));
        place.read_tensors(out)
    };
    let outputs = run("", "y");
    for (name, shape) in PARAMETERS {
        assert_eq!(outputs[&format!("grad.{name}")].shape(), shape, "{name}");
    }
    // Cross entropy and its gradient by the bias of the last layer, from the logits: p − onehot(label), averaged.
    let logits = reference(&place.read_tensors("w.safetensors"), &image(2));
    let (mut loss, mut gradient) = (0.0, [0.0; 3]);
    for (row, label) in logits.chunks(3).zip([2, 0]) {
        let sum: f64 = row.iter().map(|l| l.exp()).sum();
        loss -= (row[label].exp() / sum).ln() / 2.0;
        for class in 0..3 {
            gradient[class] += (row[class].exp() / sum - f64::from(u8::from(class == label))) / 2.0;
        }
    }
    near(outputs["loss"].as_f32().unwrap(), &[loss], 1e-5);
    near(outputs["grad.fc2.bias"].as_f32().unwrap(), &gradient, 1e-5);

    // Dropout is off unless asked for; then the seed decides.
    assert_eq!(run("--seed 1", "y1"), outputs);
    let dropped = run("--dropout --seed 1", "d1");
    assert_ne!(dropped["loss"], outputs["loss"]);
    assert_eq!(run("--dropout --seed 1", "d2"), dropped);
    assert_ne!(run("--dropout --seed 2", "d3")["loss"], dropped["loss"]);
}

#[test]
fn an_artifact_holds_the_programs_that_were_asked_for() {
    let place = Place::with_tensors();
    assert_eq!(place.succeeds("compile tiny.ir"), "", "results are files");
    let modes = |file: &str| -> Vec<(ir::plan::Mode, usize)> {
        let artifact = Artifact::read(&place.path(file)).unwrap();
        assert_eq!((&artifact.name[..], &artifact.model[..]), ("tiny", MODEL));
        let programs = artifact.programs.iter();
        programs
            .map(|program| (program.plan.mode, program.plan.batch))
            .collect()
    };
    use ir::plan::Mode::{Infer, Train};
    assert_eq!(modes("tiny.alx"), [(Infer, 1)]);
    place.succeeds("compile tiny.ir -o some.alx --batch 5");
    assert_eq!(modes("some.alx"), [(Infer, 5)]);
    place.succeeds("compile tiny.ir -o train.alx --mode train");
    assert_eq!(modes("train.alx"), [(Infer, 6), (Train, 6)], "the recipe says 6");
    let recipe = Artifact::read(&place.path("train.alx")).unwrap().recipe.unwrap();
    assert!(recipe.contains("lr = 0.02"), "{recipe}");
    place.succeeds("compile tiny.ir -o again.alx --mode train");
    assert!(
        place.read("again.alx") == place.read("train.alx"),
        "compiling twice gives the same bytes"
    );
}

#[test]
fn an_artifact_for_avx2_runs_and_names_no_more_than_it_needs() {
    let place = Place::with_tensors();
    place.succeeds("compile tiny.ir -o t.alx --target avx2 --batch 2 --emit asm=t.s");
    let artifact = Artifact::read(&place.path("t.alx")).unwrap();
    let program = artifact.require(ir::plan::Mode::Infer).unwrap();
    let features = &program.host.as_ref().unwrap().features;
    assert!(
        features.iter().any(|f| f == "avx2") && !features.iter().any(|f| f.contains("avx512")),
        "{features:?}"
    );
    assert!(!place.read_text("t.s").contains("zmm"));
    let weights = place.read_tensors("w.safetensors");
    let mut executor = Executor::new(program, &DeviceSpec::parse_list("cpu").unwrap()).unwrap();
    for (name, tensor) in weights.iter().chain([(&"image".to_string(), &image(2))]) {
        executor.set(name, tensor).unwrap();
    }
    executor.run().unwrap();
    near(
        &executor.get_f32("logits").unwrap(),
        &reference(&weights, &image(2)),
        1e-5,
    );
}

#[test]
fn every_stage_is_shown_on_stdout_and_in_a_file() {
    let place = Place::new();
    let stages = [
        "graph",
        "optimized",
        "dot",
        "svg",
        "program",
        "mlir",
        "llvm",
        "asm",
        "plan",
        "costs",
    ];
    place.write("out/keep", "");
    for stage in stages {
        let twice = format!("compile tiny.ir --batch 2 --emit {stage} --emit {stage}=out/{stage}");
        let shown = place.succeeds(&twice);
        assert_eq!(shown, place.read_text(&format!("out/{stage}")), "{stage}");
    }
    assert!(
        !place.path("tiny.alx").exists(),
        "stages were asked for, and no artifact"
    );
    place.succeeds("compile tiny.ir --batch 2 --emit mlir=m --emit plan=p -o a.alx");
    assert!(place.read("m") == place.read("out/mlir") && place.read("p") == place.read("out/plan"));
    Artifact::read(&place.path("a.alx")).unwrap();
    let shown = |stage: &str| place.read_text(&format!("out/{stage}"));
    let graph = |stage: &str| ir::text::parse(&shown(stage), stage).unwrap();
    assert_eq!(graph("graph"), ir::text::parse(MODEL, "m").unwrap());
    assert!(!shown("optimized").contains("dropout"), "inference drops nothing");
    assert_eq!(graph("optimized").outputs().len(), 1);
    assert!(shown("dot").starts_with("digraph \"tiny\" {") && shown("dot").ends_with("}\n"));
    assert!(shown("svg").starts_with("<svg ") && shown("svg").ends_with("</svg>\n"));
    let program = ir::program::text::parse(&shown("program"), "program").unwrap();
    assert_eq!((program.batch, &program.model[..]), (2, "tiny"));
    program.verify().unwrap();
    assert!(shown("mlir").contains("func.func @") && shown("llvm").contains("define "));
    assert!(shown("asm").contains(".globl"));
    let plan: ir::plan::Plan = serde_json::from_str(&shown("plan")).unwrap();
    plan.check().unwrap();
    assert_eq!((plan.batch, &plan.model[..]), (2, "tiny"));
    let costs: Vec<Value> = serde_json::from_str(&shown("costs")).unwrap();
    assert_eq!(costs.len(), plan.step.len());
    assert!(
        costs
            .iter()
            .all(|launch| launch["label"].is_string() && launch["bytes"].as_u64() > Some(0))
    );
    let flops: u64 = costs.iter().filter_map(|launch| launch["flops"].as_u64()).sum();
    assert!(flops >= 2 * 2 * 7104, "two samples of multiply-adds: {flops}");
}

#[test]
fn optimising_leaves_fewer_launches() {
    let place = Place::new();
    let launches = |level: u8| -> usize {
        let plan = place.succeeds(&format!("compile tiny.ir --emit plan --opt-level {level}"));
        serde_json::from_str::<ir::plan::Plan>(&plan).unwrap().step.len()
    };
    let counts = [0, 1, 2].map(launches);
    assert!(counts[0] > counts[2] && counts[1] >= counts[2], "{counts:?}");
}

#[test]
fn bench_has_every_field_of_the_contract() {
    let place = Place::new();
    for (mode, default_batch) in [("infer", 1), ("train", 6)] {
        let report = place.json(&format!("bench tiny.ir --mode {mode} --iters 3 --json"));
        let text = |field: &str| {
            report[field]
                .as_str()
                .unwrap_or_else(|| panic!("{field}: {report}"))
        };
        let number = |field: &str| {
            report[field]
                .as_f64()
                .unwrap_or_else(|| panic!("{field}: {report}"))
        };
        assert_eq!((text("model"), text("mode")), ("tiny", mode));
        assert_eq!((text("devices"), text("precision")), ("cpu", "f32"));
        assert_eq!(
            (&report["batch"], &report["iters"]),
            (&default_batch.into(), &3.into())
        );
        assert!(number("min_ms") > 0.0 && number("median_ms") >= number("min_ms"));
        let images_per_s = 1e3 * f64::from(default_batch) / number("median_ms");
        assert!(
            (number("images_per_s") / images_per_s - 1.0).abs() < 0.2,
            "{report}"
        );
        assert_eq!(report["cached"], false, "tests compile");
        assert!(number("compile_ms") > 0.0 && number("peak_rss_mb") > 1.0);
        assert!(report["flops_per_iter"].as_u64().unwrap() >= 2 * 7104 * default_batch as u64);
        let predicted = report.get("predicted_ms").expect("the field is there");
        assert!(predicted.is_null() || predicted.is_number());
    }
    let report = place.json("bench tiny.ir --batch 4 --iters 1 --devices cpu:0 --json");
    assert_eq!(
        (&report["batch"], &report["devices"]),
        (&4.into(), &"cpu:0".into())
    );
    let lines = place.succeeds("bench tiny.ir --iters 1 --launches");
    assert!(lines.contains("images/s") && lines.contains("conv1"), "{lines}");
}
