//! Training and what follows it, through the program: `data synth`, `train`, `eval`, `predict`. How the driver keeps
//! its promises in every corner is tested in `runtime/tests`.

mod program;

use program::{PARAMETERS, Place, RECIPE, image, labels, text};
use runtime::Tensor;
use runtime::checkpoint::Checkpoint;
use serde_json::Value;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[test]
fn drawn_images_are_jpeg_files_in_a_folder_a_class() {
    let place = Place::new();
    let draw = |dir: &str, more: &str| {
        let output = place.succeeds(&format!(
            "data synth {dir} --classes 2 --per-class 5 --val-per-class 1 --size 20 {more}"
        ));
        assert_eq!(output, "");
    };
    draw("a", "--seed 1");
    draw("b", "--seed 1");
    draw("c", "--seed 2");
    let files = |dir: &str| -> Vec<(String, Vec<u8>)> {
        let names = place.files().into_iter().map(|path| text(&path).to_string());
        let jpegs = names.filter(|name| name.starts_with(&format!("{dir}/")) && name.ends_with(".jpg"));
        jpegs
            .map(|name| (name[2..].to_string(), place.read(&name)))
            .collect()
    };
    let (a, b, c) = (files("a"), files("b"), files("c"));
    assert_eq!(a.len(), 2 * (5 + 1));
    assert_eq!(
        a.iter().filter(|(name, _)| name.starts_with("train/")).count(),
        10
    );
    assert!(
        a.iter()
            .all(|(_, bytes)| bytes.starts_with(b"\xff\xd8\xff") && bytes.ends_with(b"\xff\xd9"))
    );
    assert!(a == b, "the same seed draws the same files");
    assert!(
        a.iter()
            .zip(&c)
            .all(|((name, bytes), (other, others))| name == other && bytes != others)
    );
    place.refused(
        "data synth a --classes 2",
        &["a: is there and not empty", "name a new folder"],
    );
    place.succeeds("data synth d --classes 1 --per-class 8 --size 16");
    assert_eq!(files("d").len(), 8 + 2, "a quarter for validation, unless told");
}

#[test]
fn a_run_leaves_what_the_contract_says() {
    let place = Place::with_images();
    let summary = place.json("train tiny.ir --data data --out runs/a --json");
    assert_eq!((&summary["steps"], &summary["epochs"]), (&12.into(), &3.into()));
    assert!(summary["loss"].is_f64() && summary["images_per_s"].as_f64() > Some(0.0));
    assert_eq!(place.read_text("runs/a/model.ir"), program::MODEL);
    assert!(place.read_text("runs/a/recipe.toml").contains("lr = 0.02"));
    let lines = place.read_text("runs/a/metrics.jsonl");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (steps, evaluations): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line.get("loss").is_some());
    assert_eq!((steps.len(), evaluations.len()), (12, 3));
    for (number, line) in (1..).zip(steps) {
        let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["epoch", "images_per_s", "loss", "lr", "step"]);
        assert_eq!(
            (&line["step"], &line["epoch"]),
            (&number.into(), &((number + 3) / 4).into())
        );
    }
    for line in &evaluations {
        let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            ["epoch", "step", "val_loss", "val_top1_error", "val_top5_error"]
        );
    }
    assert_eq!(summary["evaluation"]["loss"], evaluations[2]["val_loss"]);
    assert_eq!(
        std::fs::read_link(place.path("runs/a/last")).unwrap(),
        std::path::Path::new("checkpoints/step-12.safetensors")
    );
    let last = place.read_tensors("runs/a/last");
    for (name, shape) in PARAMETERS {
        assert_eq!(last[name].shape(), shape, "{name}");
    }
}

#[test]
fn flags_win_over_the_recipe_and_it_over_the_one_beside_the_model() {
    let place = Place::with_images();
    place.write("other.toml", RECIPE.replace("lr = 0.02", "lr = 0.005"));
    place.succeeds("train tiny.ir --data data --out a --recipe other.toml --epochs 1 --batch 8 --seed 9");
    let recipe = place.read_text("a/recipe.toml");
    for part in ["lr = 0.005", "epochs = 1", "batch = 8", "seed = 9"] {
        assert!(recipe.contains(part), "{part} is not in {recipe}");
    }
    let metrics = place.metrics("a");
    assert_eq!((metrics.len(), &metrics[0]["lr"]), (3 + 1, &0.005.into()));
    place.succeeds("train tiny.ir --data data --out b --steps 2 --weights a");
    assert_eq!(place.metrics("b").len(), 2);
    // Going on needs no recipe to be named again.
    place.succeeds("train tiny.ir --data data --out a --resume --epochs 2");
    assert_eq!(place.metrics("a").len(), 2 * (3 + 1));
    place.refused(
        "train tiny.ir --data data --out a",
        &["a holds a run already", "--resume"],
    );
    place.refused(
        "train tiny.ir --data data --out a --resume --recipe tiny.toml --batch 8 --seed 9",
        &["a/recipe.toml differs in [sgd]"],
    );
    place.refused(
        "train tiny.ir --data data --out c --resume",
        &["c holds no run to resume"],
    );
}

#[test]
fn stopped_and_resumed_equals_uninterrupted() {
    let place = Place::with_images();
    let train = "train tiny.ir --data data --steps 11 --out";
    place.succeeds(&format!("{train} whole"));
    place.succeeds("train tiny.ir --data data --steps 3 --out parts");
    place.succeeds("train tiny.ir --data data --steps 7 --out parts --resume");
    assert!(place.read("parts/last") != place.read("whole/last"));
    place.succeeds(&format!("{train} parts --resume"));
    assert_eq!(place.metrics("parts"), place.metrics("whole"));
    assert!(place.read("parts/last") == place.read("whole/last"));
    place.succeeds("train tiny.ir --data data --steps 11 --out other --seed 4");
    assert!(
        place.read("other/last") != place.read("whole/last"),
        "the seed decides"
    );
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
fn ctrl_c_saves_and_resuming_ends_as_if_nothing_had_happened() {
    let place = Place::with_images();
    let train = "train tiny.ir --data data --steps 1500 --out";
    let child = place.start(&format!("{train} parts"));
    let begin = Instant::now();
    while !place.path("parts/last").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let message = place.failed(
        "train",
        &output,
        130,
        &["everything is saved in parts, and --resume continues"],
    );
    let stopped = Checkpoint::read(&place.path("parts/last")).unwrap().progress.step;
    assert!(
        stopped < 1500 && message.contains(&format!("stopped after step {stopped};")),
        "{message}"
    );
    place.succeeds(&format!("{train} parts --resume"));
    place.succeeds(&format!("{train} whole"));
    assert_eq!(
        place.metrics("parts"),
        place.metrics("whole"),
        "stopped after {stopped}"
    );
    assert!(
        place.read("parts/last") == place.read("whole/last"),
        "stopped after {stopped}"
    );
}

#[test]
fn images_that_go_away_cost_no_finished_step() {
    let place = Place::with_images();
    place.succeeds("train tiny.ir --data data --out whole");
    // A class whose validation images are all unreadable ends the first epoch.
    let class = std::fs::read_dir(place.path("data/val")).unwrap().next().unwrap();
    let class = class.unwrap().file_name().into_string().unwrap();
    for number in 0..12 {
        place.write(&format!("data/val/{class}/junk-{number}.jpg"), "junk");
    }
    let train = "train tiny.ir --data data --out run";
    place.fails(
        train,
        2,
        &["the finished steps are saved in run/checkpoints/step-4.safetensors; --resume continues after step 4"],
    );
    assert_eq!(place.metrics("run").len(), 4);
    // As long as they stay unreadable, the checkpoint stays.
    place.fails(
        &format!("{train} --resume"),
        2,
        &["the checkpoint of step 4 in run is intact"],
    );
    for number in 0..12 {
        std::fs::remove_file(place.path(&format!("data/val/{class}/junk-{number}.jpg"))).unwrap();
    }
    place.succeeds(&format!("{train} --resume"));
    assert_eq!(place.metrics("run"), place.metrics("whole"));
    assert!(place.read("run/last") == place.read("whole/last"));
}

#[test]
fn metrics_that_cannot_be_written_cost_no_finished_step() {
    let place = Place::with_images();
    let train = "train tiny.ir --data data --steps 700 --out";
    place.succeeds(&format!("{train} whole"));
    // No file may have more than 32 KiB: the checkpoints fit, the metrics of 700 steps do not.
    assert!(place.read("whole/last").len() < 32 << 10 && place.read("whole/metrics.jsonl").len() > 32 << 10);
    let script = format!("ulimit -f 32; exec \"$0\" {train} run");
    let output = Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_alexc")])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    let message = place.failed(
        "train",
        &output,
        1,
        &[
            "run/metrics.jsonl: the limit on the size of files is reached",
            "the finished steps are saved in run/checkpoints/step-",
            "run/metrics.jsonl lacks the newest line",
        ],
    );
    let saved = Checkpoint::read(&place.path("run/last")).unwrap().progress.step;
    assert!(
        message.contains(&format!("continues after step {saved}")),
        "{message}"
    );
    place.succeeds(&format!("{train} run --resume"));
    assert!(
        place.read("run/last") == place.read("whole/last"),
        "failed after {saved}"
    );
    // The line that could not be written is missing, nothing else.
    let (found, mut expected) = (place.metrics("run"), place.metrics("whole"));
    let missing: Vec<Value> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .cloned()
        .collect();
    assert!(missing.len() <= 1, "{missing:?}");
    expected.retain(|line| !missing.contains(line));
    assert_eq!(found, expected);
}

#[test]
fn a_second_process_is_refused_while_the_first_trains() {
    let place = Place::with_images();
    let train = "train tiny.ir --data data --epochs 100000 --out run";
    let mut first = place.start(train);
    let begin = Instant::now();
    while !place.path("run/last").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(2));
    }
    let holder = format!("run: process {}", first.id());
    for resume in ["", " --resume"] {
        let output = place.run(&format!("{train}{resume}"));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for part in [&holder[..], "trains in this folder", "choose another --out"] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
    // Reading its checkpoints is allowed.
    assert!(
        place
            .run("eval tiny.ir --weights run --data data")
            .status
            .success()
    );
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock of a dead process hinders nobody.
    let steps = Checkpoint::newest(&place.path("run"), |_| ())
        .unwrap()
        .unwrap()
        .progress
        .step
        + 1;
    let train = format!("train tiny.ir --data data --steps {steps} --out");
    place.succeeds(&format!("{train} run --resume"));
    place.succeeds(&format!("{train} whole"));
    assert_eq!(place.metrics("run"), place.metrics("whole"));
    assert!(
        place.read("run/last") == place.read("whole/last"),
        "after {steps} steps"
    );
}

#[test]
fn it_learns_and_eval_and_predict_agree() {
    let place = Place::new();
    place.succeeds("data synth data --classes 3 --per-class 60 --val-per-class 20 --size 16 --seed 1");
    let summary = place.json("train tiny.ir --data data --out run --epochs 25 --json");
    let metrics = place.metrics("run");
    let losses: Vec<f64> = metrics.iter().filter_map(|line| line["loss"].as_f64()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[losses.len() - 30..]));
    assert!(last < 0.9 * first, "the loss went from {first} to {last}");

    let report = place.json("eval tiny.ir --weights run --data data --json");
    assert_eq!(
        (&report["model"], &report["views"], &report["images"]),
        (&"tiny".into(), &1.into(), &60.into())
    );
    assert_eq!(report["unusable_images"], 0);
    for field in ["loss", "top1_error", "top5_error"] {
        let (found, expected) = (
            report[field].as_f64().unwrap(),
            summary["evaluation"][field].as_f64().unwrap(),
        );
        assert!(
            (found - expected).abs() < 1e-5,
            "{field}: {found} and {expected} while training"
        );
    }
    assert_eq!(report["top5_error"], 0.0, "there are three classes");
    let ten = place.json("eval tiny.ir --weights run/last --data data --views 10 --json");
    assert_eq!((&ten["views"], &ten["images"]), (&10.into(), &60.into()));
    let line = place.succeeds("eval tiny.ir --weights run --data data --batch 7");
    let percent = report["top1_error"].as_f64().unwrap() * 100.0;
    assert!(
        line.starts_with(&format!("60 images: top-1 error {percent:.2} %, top-5")),
        "{line}"
    );

    // Asked for one image after the other, the network is wrong as often.
    let images: Vec<String> = place
        .files()
        .into_iter()
        .map(|path| text(&path).to_string())
        .filter(|name| name.starts_with("data/val/") && name.ends_with(".jpg"))
        .collect();
    let predicted = place.json(&format!(
        "predict tiny.ir --weights run --top 3 --json {}",
        images.join(" ")
    ));
    let predictions = predicted["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 60);
    let mut wrong = 0;
    for (prediction, image) in predictions.iter().zip(&images) {
        assert_eq!(prediction["image"], image[..]);
        let guesses = prediction["guesses"].as_array().unwrap();
        let probabilities: Vec<f64> = guesses
            .iter()
            .map(|g| g["probability"].as_f64().unwrap())
            .collect();
        assert!(probabilities.is_sorted_by(|a, b| a >= b), "{prediction}");
        assert!(
            (probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-6,
            "{prediction}"
        );
        let class = image.split('/').nth(2).unwrap();
        wrong += usize::from(guesses[0]["name"] != class);
    }
    assert_eq!(report["top1_error"].as_f64().unwrap(), wrong as f64 / 60.0);
    assert!(wrong < 40, "{wrong} of 60 wrong is what guessing gives");

    let text = place.succeeds(&format!(
        "predict tiny.ir --weights run --top 2 {} {}",
        images[0], images[1]
    ));
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(
        (lines.len(), lines[0], lines[3]),
        (6, &images[0][..], &images[1][..])
    );
    assert!(lines[1].contains(" %  ") && lines[2].starts_with("  "), "{text}");
    let ten = place.json(&format!(
        "predict tiny.ir --weights run --views 10 --json {}",
        images[0]
    ));
    assert_eq!(
        ten["predictions"][0]["guesses"].as_array().unwrap().len(),
        3,
        "no more than classes"
    );
}

#[test]
fn tensors_are_taken_as_they_are_and_in_their_order() {
    let place = Place::new();
    place.tensors(
        "set.safetensors",
        &[("images", image(12)), ("labels", labels(&[0, 1, 2].repeat(4)))],
    );
    place.write(
        "as-is.toml",
        "[train]\nbatch = 6\ndropout = false\n[data]\nshuffle = false\naugment = false\nmean = false\n",
    );
    place.succeeds("train tiny.ir --data set.safetensors --recipe as-is.toml --out run --steps 1 --seed 2");
    // The first loss is that of the first six images with the initial weights of this seed.
    place.succeeds("init tiny.ir --seed 2 -o w.safetensors");
    let first = image(12).as_f32().unwrap()[..6 * 192].to_vec();
    place.tensors(
        "x.safetensors",
        &[
            ("image", Tensor::f32([6, 3, 8, 8], first).unwrap()),
            ("labels", labels(&[0, 1, 2, 0, 1, 2])),
        ],
    );
    place.succeeds("run tiny.ir --weights w.safetensors --inputs x.safetensors --out y.safetensors --grads");
    let expected = f64::from(place.read_tensors("y.safetensors")["loss"].as_f32().unwrap()[0]);
    let found = place.metrics("run")[0]["loss"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
}

#[test]
fn the_emulator_trains_as_the_processor_does() {
    let place = Place::with_images();
    let losses = |device: &str| -> Vec<f64> {
        place.succeeds(&format!(
            "train tiny.ir --data data --steps 4 --out runs/{device} --devices {device}"
        ));
        let steps = place.metrics(&format!("runs/{device}"));
        steps.iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (processor, emulator) = (losses("cpu"), losses("sim"));
    assert_eq!((processor.len(), emulator.len()), (4, 4));
    for (a, b) in processor.iter().zip(&emulator) {
        // Sums of a few hundred f32 terms in another order.
        assert!((a - b).abs() <= 2e-5 * a.abs(), "{processor:?} {emulator:?}");
    }
}
