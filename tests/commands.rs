//! Every command of the program but training and its kin (see `training_runs.rs`), as a person uses it.

mod program;

use program::{MODEL, PARAMETERS, Place, image, labels, text};
use runtime::{Artifact, DeviceSpec, Executor, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

const COMMANDS: [&str; 11] = [
    "compile",
    "check",
    "fmt",
    "init",
    "run",
    "train",
    "eval",
    "predict",
    "bench",
    "devices",
    "completions",
];

#[test]
fn every_command_has_help_with_an_example() {
    let place = Place::new();
    let help = place.succeeds("--help");
    assert!(
        help.contains("Exit codes: 0 success, 1 the work failed, 2 bad usage"),
        "{help}"
    );
    for command in COMMANDS.iter().copied().chain(["data synth"]) {
        let help = place.succeeds(&format!("{command} --help"));
        assert!(
            help.contains(&format!(":\n  alexc {command} ")),
            "alexc {command} --help has no example: {help}"
        );
    }
    let listed = |help: &str| -> Vec<String> {
        let table = help
            .split("Commands:\n")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap();
        let words = table.lines().map(|line| line.split_whitespace().next().unwrap());
        words.filter(|word| *word != "help").map(str::to_string).collect()
    };
    let mut known: Vec<String> = COMMANDS.iter().chain(&["data"]).map(|c| c.to_string()).collect();
    let mut found = listed(&help);
    known.sort();
    found.sort();
    assert_eq!(found, known, "commands that this test should know");
    assert_eq!(listed(&place.succeeds("data --help")), ["synth"]);
}

#[test]
fn usage_that_makes_no_sense_exits_with_2() {
    let place = Place::new();
    for (arguments, part) in [
        ("", "Usage: alexc"),
        ("compil tiny.ir", "'compile'"),
        ("compile", "<MODEL>"),
        ("compile tiny.ir --bacth 3", "similar argument exists: '--batch'"),
        ("compile tiny.ir --batch 0", "0 is not in 1..=1048576"),
        ("compile tiny.ir --batch 1e99", "invalid digit"),
        ("compile tiny.ir --opt-level 3", "3 is not in 0..=2"),
        (
            "compile tiny.ir --emit tokens",
            "no stage is named \"tokens\"; expected one of graph, optimized",
        ),
        ("compile tiny.ir --target vax", "possible values"),
        ("compile tiny.ir --precision f8", "possible values"),
        ("compile tiny.ir --mode learn", "possible values"),
        ("compile tiny.ir --devices gpu", "no such kind of device"),
        ("compile tiny.ir --devices cpu:one", "cpu:K"),
        ("bench tiny.ir --devices cpu:9999", "core 9999 is not among those"),
        ("bench tiny.ir --iters 0", "at least 1"),
        ("bench tiny.ir --iters -1", "unexpected argument"),
        ("init tiny.ir", "--output"),
        ("run tiny.ir --weights a --inputs b --out c --dropout", "--grads"),
        (
            "train tiny.ir --data d --out o --epochs 1 --steps 1",
            "cannot be used with",
        ),
        ("eval tiny.ir --weights w --data d --views 5", "possible values"),
        ("predict tiny.ir --weights w", "<IMAGE>"),
        ("predict tiny.ir --weights w --top 0 a.jpg", "0 is not in 1.."),
        ("data synth d --classes 0", "expected 1 to 32"),
        ("data synth d --classes 33", "expected 1 to 32"),
        ("data synth d --per-class 0", "expected 1 to"),
        ("data synth d --size 1", "expected 16 to 4096"),
        ("data synth d --size 99999", "expected 16 to 4096"),
        ("completions tcsh", "possible values"),
    ] {
        place.refused(arguments, &[part]);
    }
    assert_eq!(
        place.files(),
        ["tiny.ir", "tiny.toml"].map(std::path::PathBuf::from),
        "nothing was written"
    );
}

#[test]
fn check_says_what_a_model_is() {
    let place = Place::new();
    let report = place.json("check tiny.ir --json");
    assert_eq!(report["model"], "tiny");
    assert_eq!(report["parameters"], 4 * 27 + 4 + 3 * 64 + 3);
    assert_eq!(report["multiply_adds"], 64 * 4 * 27 + 3 * 64);
    let line = place.succeeds("check tiny.ir");
    assert_eq!(
        line,
        "tiny.ir: sound; 307 parameters, 7104 multiply-adds a sample\n"
    );
}

#[test]
fn check_shows_every_mistake_with_its_place() {
    let place = Place::new();
    let broken = MODEL
        .replace("conv2d(image, conv1.weight)", "conv2d(imgae, conv1.weight)")
        .replace("kernel=2 stride=2", "kernle=2");
    place.write("broken.ir", &broken);
    let parts = [
        "broken.ir:6:",
        "imgae",
        "^^^^^",
        "broken.ir:9:",
        "kernle",
        "help: ",
        "2 errors",
    ];
    for command in ["check", "fmt", "compile", "bench"] {
        let message = place.refused(&format!("{command} broken.ir"), &parts);
        assert!(message.starts_with("error: found "), "{message}");
        assert!(!message.contains("error: error:"), "{message}");
    }
    assert!(!place.path("broken.alx").exists());
}

#[test]
fn fmt_is_idempotent_and_changes_no_meaning() {
    let place = Place::new();
    for name in ["alexnet", "alexnet-owt", "alexnet-cifar"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.ir"));
        let formatted = place.succeeds(&format!("fmt {}", text(&path)));
        let source = std::fs::read_to_string(&path).unwrap();
        assert_eq!(formatted, source, "models/{name}.ir is in canonical form");
    }
    let ragged: String = MODEL
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("  {}   # a comment\r\n", words.join("  "))
        })
        .collect();
    place.write("ragged.ir", ragged);
    let once = place.succeeds("fmt ragged.ir");
    assert_eq!(once.matches("# a comment").count(), MODEL.lines().count());
    place.write("once.ir", &once);
    assert_eq!(place.succeeds("fmt once.ir"), once);
    let parse = |source: &str| ir::text::parse(source, "m.ir").unwrap();
    assert_eq!(parse(&once), parse(MODEL));
}

#[test]
fn init_draws_the_same_weights_for_the_same_seed() {
    let place = Place::new();
    for (seed, file) in [(1, "a"), (1, "b"), (2, "c")] {
        assert_eq!(
            place.succeeds(&format!("init tiny.ir --seed {seed} -o {file}")),
            ""
        );
    }
    assert!(place.read("a") == place.read("b") && place.read("a") != place.read("c"));
    let tensors = place.read_tensors("a");
    let shapes: Vec<(&str, &[usize])> = tensors.iter().map(|(name, t)| (&name[..], t.shape())).collect();
    assert_eq!(shapes, PARAMETERS);
    assert!(tensors["fc2.bias"].as_f32().unwrap().iter().all(|&b| b == 0.0));
    let weights = tensors["fc2.weight"].as_f32().unwrap();
    let variance = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
    assert!(
        (0.007..0.013).contains(&variance),
        "std=0.1 was asked for: variance {variance}"
    );
}

/// What the interpreter gives for the model's logits.
fn reference(parameters: &std::collections::BTreeMap<String, Tensor>, images: &Tensor) -> Vec<f64> {
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
    let features = &program.host.features;
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
    assert!(shown("program").contains(" <- "));
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

#[test]
fn devices_are_listed_with_measured_peaks() {
    let place = Place::new();
    let report = place.json("devices --json");
    let cpu = &report["devices"][0];
    assert_eq!(cpu["name"], "cpu");
    assert!(cpu["cores"].as_u64() >= Some(1) && cpu["vector_lanes_f32"].as_u64() >= Some(4));
    let [all, one, copy] =
        ["peak_gflops", "peak_gflops_one_core", "copy_gb_per_s"].map(|field| cpu[field].as_f64().unwrap());
    assert!(
        all > 1.0 && one > 1.0 && copy > 0.1 && one < 2.0 * all,
        "{report}"
    );
}

#[test]
fn completions_are_scripts() {
    let place = Place::new();
    let script = place.succeeds("completions bash");
    place.write("alexc.bash", &script);
    let checked = Command::new("bash")
        .arg("-n")
        .arg(place.path("alexc.bash"))
        .status()
        .unwrap();
    assert!(checked.success());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.succeeds(&format!("completions {shell}"));
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
}

#[test]
fn nobody_reading_is_no_error_and_a_full_disk_is() {
    let place = Place::new();
    for arguments in [
        "compile tiny.ir --emit asm",
        "completions zsh",
        "fmt tiny.ir",
        "check tiny.ir --json",
    ] {
        let mut command = place.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stderr.is_empty(),
            "alexc {arguments}: {stderr}"
        );

        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(arguments).stdout(full).output().unwrap();
        place.failed(
            arguments,
            &output,
            1,
            &["the result cannot be printed: No space left on device"],
        );
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let place = Place::new();
    place.write("broken.ir", "y = relu(x)\noutput y = y\n");
    // `script` runs a command on a terminal of its own.
    let on_terminal = |no_color: Option<&str>| {
        let mut command = Command::new("script");
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let line = format!("{} check broken.ir", env!("CARGO_BIN_EXE_alexc"));
        let output = command
            .current_dir(place.path("."))
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_terminal(None).contains("\x1b["));
    assert!(on_terminal(Some("")).contains("\x1b["), "empty means not set");
    let plain = on_terminal(Some("1"));
    assert!(
        plain.contains("broken.ir:1:10") && !plain.contains('\x1b'),
        "{plain}"
    );
    place.refused("check broken.ir", &["broken.ir:1:10"]);
}
