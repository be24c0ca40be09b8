//! `alexrun train`, `eval` and `predict` from outside, on a small data set of image files.

mod support;

use runtime::checkpoint::Checkpoint;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SIDE: usize = 8;
const RECIPE: &str = "[train]\nbatch = 4\nepochs = 3\nseed = 3\n[sgd]\nlr = 0.01\n[data]\nscale = 0.01\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An artifact and a data set whose classes are red, green and blue pictures.
    fn new(recipe: &str) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
        };
        let mut artifact = support::classifier(4, 4, SIDE, 3);
        artifact.recipe = Some(recipe.to_string());
        artifact.write(&place.path("m.alx")).unwrap();
        for (split, count) in [("train", 6), ("val", 3)] {
            for (class, name) in ["blue", "green", "red"].iter().enumerate() {
                let folder = place.path("data").join(split).join(name);
                std::fs::create_dir_all(&folder).unwrap();
                for number in 0..count {
                    picture(&folder.join(format!("{number}.png")), 2 - class, number);
                }
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexrun"));
        command
            .current_dir(self.folder.path())
            .args(args)
            .env("NO_COLOR", "1");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The command succeeds; its standard output.
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command fails with this exit code and these words; its message.
    fn fails(&self, args: &[&str], code: i32, part: &str) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }

    fn last(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.path(run).join("last")).unwrap()
    }

    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let line = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("images_per_s");
            value
        };
        text.lines().map(line).collect()
    }
}

/// A picture that is bright in one channel, with a texture that is its own.
fn picture(path: &Path, channel: usize, number: u32) {
    let side = SIDE as u32 + 4;
    let image = image::RgbImage::from_fn(side, side, |x, y| {
        let mut pixel = [60u8, 60, 60].map(|v| v + ((x * 7 + y * 3 + number * 11) % 40) as u8);
        pixel[channel] += 120;
        image::Rgb(pixel)
    });
    image.save(path).unwrap();
}

#[test]
fn a_network_is_trained_evaluated_and_asked() {
    let place = Place::new(RECIPE);
    let json = place.succeeds(&["train", "m.alx", "--data", "data", "--out", "runs/a", "--json"]);
    let summary: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&summary["steps"], &summary["epochs"]), (&12.into(), &3.into()));
    assert_eq!(summary["evaluation"]["top1_error"], 0.0);
    assert_eq!(place.metrics("runs/a").len(), 12 + 3);

    let json = place.succeeds(&["eval", "m.alx", "--weights", "runs/a", "--data", "data", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&report["images"], &report["top1_error"], &report["views"]),
        (&9.into(), &0.0.into(), &1.into())
    );
    assert_eq!(report["loss"], summary["evaluation"]["loss"]);
    let text = place.succeeds(&[
        "eval",
        "m.alx",
        "--weights",
        "runs/a/last",
        "--data",
        "data",
        "--views",
        "10",
    ]);
    assert!(text.contains("9 images: top-1 error 0.00 %"), "{text}");

    let images = ["data/val/red/0.png", "data/val/blue/1.png"];
    let json = place.succeeds(&[
        "predict",
        "m.alx",
        "--weights",
        "runs/a",
        "--top",
        "2",
        "--json",
        images[0],
        images[1],
    ]);
    let report: Value = serde_json::from_str(&json).unwrap();
    for (prediction, (image, class)) in report["predictions"]
        .as_array()
        .unwrap()
        .iter()
        .zip([(0, "red"), (1, "blue")])
    {
        let guesses = prediction["guesses"].as_array().unwrap();
        assert_eq!(
            (&prediction["image"], &guesses[0]["name"]),
            (&images[image].into(), &class.into())
        );
        assert_eq!(guesses.len(), 2);
        assert!(guesses[0]["probability"].as_f64() > guesses[1]["probability"].as_f64());
    }
    let text = place.succeeds(&[
        "predict",
        "m.alx",
        "--weights",
        "runs/a",
        "--views",
        "10",
        images[1],
    ]);
    assert!(text.lines().nth(1).unwrap().contains("%  blue"), "{text}");
}

#[test]
fn stopped_by_a_signal_and_resumed_equals_uninterrupted() {
    let place = Place::new(&format!("{RECIPE}resize = 12\n").replace("epochs = 3", "epochs = 2000"));
    let args = ["train", "m.alx", "--data", "data", "--steps", "4000", "--out"];
    let train = |run: &str, more: &[&str]| {
        [&args[..], &[run], more]
            .concat()
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<_>>()
    };
    let strings = |list: &[String]| place.run(&list.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(strings(&train("whole", &[])).status.success());
    for (run, signal) in [("interrupted", "-INT"), ("terminated", "-TERM")] {
        let given = train(run, &[]);
        let child = place
            .command(&given.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while !place.path(run).join("last").exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint came");
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("everything is saved in"), "{stderr}");
        let stopped = Checkpoint::read(&place.path(run).join("last"))
            .unwrap()
            .progress
            .step;
        assert!(stopped < 4000, "the run ended before the signal came");
        assert!(strings(&train(run, &["--resume"])).status.success());
        assert_eq!(
            place.metrics(run),
            place.metrics("whole"),
            "stopped after {stopped}"
        );
        assert!(place.last(run) == place.last("whole"), "stopped after {stopped}");
    }
}

#[test]
fn a_process_killed_while_it_saves_loses_nothing_older() {
    let recipe = RECIPE.replace("epochs = 3", "epochs = 1000000\ncheckpoint_every = 1");

    let place = Place::new(&recipe);
    // Checkpoints so large that most of the time is spent writing them.
    let mut artifact = support::classifier(4, 4, 128, 3);
    artifact.recipe = Some(recipe);
    artifact.write(&place.path("m.alx")).unwrap();
    let train = ["train", "m.alx", "--data", "data", "--out"];
    let newest = || {
        let torn = |error: &runtime::Error| panic!("a torn file has the name of a checkpoint: {error}");
        let checkpoint = Checkpoint::newest(&place.path("run"), torn).unwrap();
        checkpoint.map_or(0, |checkpoint| checkpoint.progress.step)
    };
    for round in 0..10 {
        let before = newest();
        let resume: &[&str] = if round == 0 { &[] } else { &["--resume"] };
        let mut child = place
            .command(&[&train[..], &["run"], resume].concat())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let link = place.path("run").join("last");
        let (first, begin) = (std::fs::read_link(&link).ok(), Instant::now());
        while std::fs::read_link(&link).ok() == first {
            assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint came");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(3700 * round));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was killed");
        assert!(newest() > before, "step {before} was lost");
    }
    let steps = (newest() + 1).to_string();
    place.succeeds(&[&train[..], &["run", "--resume", "--steps", &steps]].concat());
    place.succeeds(&[&train[..], &["whole", "--steps", &steps]].concat());
    assert!(place.last("run") == place.last("whole"), "after {steps} steps");
}

#[test]
fn flags_win_over_the_recipe_and_resume_remembers_it() {
    let place = Place::new(RECIPE);
    std::fs::write(place.path("r.toml"), RECIPE.replace("lr = 0.01", "lr = 0.005")).unwrap();
    let train = ["train", "m.alx", "--data", "data", "--out", "run"];
    let more = |more: &[&'static str]| [&train[..], more].concat();
    place.succeeds(&more(&["--recipe", "r.toml", "--epochs", "1", "--seed", "9"]));
    let metrics = place.metrics("run");
    assert_eq!((metrics.len(), &metrics[0]["lr"]), (4 + 1, &0.005.into()));
    place.succeeds(&more(&["--resume", "--epochs", "2"]));
    assert_eq!(place.metrics("run").len(), 2 * (4 + 1));
    place.fails(&more(&["--resume", "--seed", "8"]), 2, "differs in [train] seed");
    place.fails(&more(&[]), 2, "holds a run already");
    place.fails(&more(&["--resume", "--weights", "run"]), 2, "cannot be used with");
    place.fails(
        &more(&["--epochs", "1", "--steps", "1"]),
        2,
        "cannot be used with",
    );
}

#[test]
fn training_input_that_cannot_work_is_told() {
    let place = Place::new(RECIPE);
    let train = |data: &'static str| ["train", "m.alx", "--data", data, "--out", "run"];
    place.fails(&train("nowhere"), 2, "nowhere");
    place.fails(&train("m.alx"), 2, "is not a recognised data set");
    for class in ["yellow", "violet"] {
        std::fs::create_dir_all(place.path("more/train").join(class)).unwrap();
        picture(&place.path("more/train").join(class).join("0.png"), 1, 1);
    }
    place.fails(&train("more"), 2, "fewer than one batch of 4");
    for class in ["a", "b"] {
        std::fs::create_dir_all(place.path("more/train").join(class)).unwrap();
        picture(&place.path("more/train").join(class).join("0.png"), 1, 1);
    }
    place.fails(&train("more"), 2, "has 4 classes and the model has 3");
    for (change, part) in [
        ("momentum = 0.5", "differs in [sgd] (but for lr)"),
        ("lr = 0.01\n[schedule]\nkind = \"stairs\"", "line"),
        ("lr = -1.0", "[sgd] lr = -1"),
    ] {
        std::fs::write(place.path("r.toml"), RECIPE.replace("lr = 0.01", change)).unwrap();
        let recipe = [&train("data")[..], &["--recipe", "r.toml"]].concat();
        place.fails(&recipe, 2, part);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn evaluation_and_prediction_input_that_cannot_work_is_told() {
    let place = Place::new(RECIPE);
    place.succeeds(&["train", "m.alx", "--data", "data", "--out", "run", "--steps", "4"]);
    let eval =
        |weights: &'static str, data: &'static str| ["eval", "m.alx", "--weights", weights, "--data", data];
    std::fs::rename(place.path("data/val/red"), place.path("data/val/rot")).unwrap();
    std::fs::rename(place.path("data/train/red"), place.path("data/train/rot")).unwrap();
    place.fails(&eval("run", "data"), 2, "use data with these classes");
    place.fails(&eval("m.alx", "data"), 2, "truncated or not safetensors");
    let predict = |image: &'static str| ["predict", "m.alx", "--weights", "run", image];
    place.fails(&predict("nothing.png"), 2, "nothing.png: cannot be read");
    place.fails(&predict("m.alx"), 2, "neither JPEG nor PNG");
    let whole = std::fs::read(place.path("data/val/blue/0.png")).unwrap();
    std::fs::write(place.path("half.png"), &whole[..whole.len() / 2]).unwrap();
    place.fails(&predict("half.png"), 2, "half.png");
}

#[test]
fn a_damaged_image_is_named_and_passed_over() {
    let place = Place::new(RECIPE);
    std::fs::write(
        place.path("data/train/red/3.png"),
        b"\x89PNG\r\n\x1a\nand no more",
    )
    .unwrap();
    std::fs::write(place.path("data/val/red/1.png"), b"").unwrap();
    let output = place.run(&["train", "m.alx", "--data", "data", "--out", "run"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("warning: ") && stderr.contains("red/3.png"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("val/red/1.png").count(), 1, "told once: {stderr}");
}
