//! The compile cache from outside: a second start finds what the first one compiled, and nothing else.

mod program;

use program::Place;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

const RUN: &str = "run tiny.ir --weights w.safetensors --inputs x.safetensors --out y.safetensors";

/// A folder whose `alexc` keeps what it compiled in `cache`.
struct Cached(Place);

impl Cached {
    fn new() -> Cached {
        Cached(Place::with_tensors())
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("ALEXC_CACHE_DIR", self.0.path("cache"))
            .env_remove("ALEXC_CACHE_LIMIT");
        command
    }

    fn output(&self, arguments: &str) -> Output {
        succeeded(arguments, self.command(arguments).output().unwrap())
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_slice(&self.output(arguments).stdout).unwrap()
    }

    /// Whether the program that a bench with these flags times came from the cache.
    fn is_found(&self, flags: &str) -> bool {
        let report = self.json(&format!("bench tiny.ir --iters 1 --json {flags}"));
        assert!(report["compile_ms"].as_f64() > Some(0.0), "{report}");
        report["cached"].as_bool().unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let files = self.0.files().into_iter();
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "entry"))
            .map(|path| self.0.path(path.to_str().unwrap()))
            .collect()
    }
}

fn succeeded(arguments: &str, output: Output) -> Output {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "alexc {arguments}: {stderr}");
    output
}

#[test]
fn a_second_start_finds_what_the_first_compiled() {
    let place = Cached::new();
    assert!(!place.is_found(""));
    assert!(place.is_found(""));
    // Batch 1 is what inference without --batch runs; what is the same is found from wherever it is asked for.
    assert!(place.is_found("--batch 1 --recipe tiny.toml"));
    for other in [
        "--batch 2",
        "--opt-level 1",
        "--mode train",
        "--devices cpu:0,cpu:0",
    ] {
        assert!(!place.is_found(other), "{other}");
        assert!(place.is_found(other), "{other}");
    }

    let fresh = place.output(&format!("{RUN} --no-cache"));
    let expected = place.0.read("y.safetensors");
    assert!(fresh.stderr.is_empty() && place.output(RUN).stderr.is_empty());
    assert!(place.0.read("y.safetensors") == expected, "the same bits");
    assert!(place.output(RUN).stderr.is_empty());
    assert!(place.0.read("y.safetensors") == expected, "the same bits");
}

#[test]
fn an_artifact_from_the_cache_is_the_compiled_one() {
    let place = Cached::new();
    let said = |output: Output| String::from_utf8(output.stderr).unwrap();
    place.output("compile tiny.ir --mode train -o fresh.alx --no-cache");
    assert!(place.entries().is_empty(), "--no-cache keeps nothing");
    assert!(!said(place.output("compile tiny.ir --mode train -o first.alx")).contains("from the cache"));
    assert!(said(place.output("compile tiny.ir --mode train -o second.alx")).contains("from the cache"));
    let fresh = place.0.read("fresh.alx");
    assert!(place.0.read("first.alx") == fresh && place.0.read("second.alx") == fresh);

    // The learning rate is not compiled in, and the artifact has the recipe that was given.
    let recipe = place.0.read_text("tiny.toml").replace("lr = 0.02", "lr = 0.5");
    place.0.write("tiny.toml", &recipe);
    assert!(said(place.output("compile tiny.ir --mode train -o other.alx")).contains("from the cache"));
    let artifact = runtime::Artifact::read(&place.0.path("other.alx")).unwrap();
    assert!(artifact.recipe.unwrap().contains("lr = 0.5"));
    // Momentum is.
    place
        .0
        .write("tiny.toml", recipe.replace("[sgd]", "[sgd]\nmomentum = 0.5"));
    assert!(!said(place.output("compile tiny.ir --mode train -o other.alx")).contains("from the cache"));

    // Stages are shown of what is compiled now.
    place.output("compile tiny.ir --mode train --emit mlir=m --no-cache");
    place.output("compile tiny.ir --mode train --emit mlir=n");
    assert!(place.0.read("m") == place.0.read("n"));
}

#[test]
fn what_a_run_compiled_evaluation_does_not_need() {
    let place = Cached(Place::with_images());
    place.output("train tiny.ir --data data --out one --steps 4");
    place.output("train tiny.ir --data data --out two --steps 4");
    assert_eq!(place.0.metrics("one"), place.0.metrics("two"));
    assert!(place.0.read("one/model.ir") == place.0.read("two/model.ir"));
    assert_eq!(place.entries().len(), 1);
    let eval = "eval tiny.ir --weights one --data data --json";
    let (first, second) = (place.json(eval), place.json(eval));
    assert_eq!(first, second);
    assert_eq!(place.entries().len(), 2);
    place.output("train tiny.ir --data data --out one --steps 6 --resume");
    assert_eq!(
        place.entries().len(),
        2,
        "a run goes on with what it was compiled to"
    );
}

#[test]
fn a_changed_ingredient_is_compiled_anew() {
    let place = Cached::new();
    assert!(!place.is_found(""));
    let text = place.0.read_text("tiny.ir");
    place
        .0
        .write("tiny.ir", text.replace("kernel=2 stride=2", "kernel=2  stride=2"));
    assert!(!place.is_found(""), "the text of the model is kept with it");
    place.0.write("tiny.ir", &text);
    assert!(place.is_found(""));

    // A profile and times count by their content, not by their name.
    let mut profile = ir::profile::Profile::shipped("cpu2").unwrap();
    place.0.write("here.toml", profile.to_toml());
    assert!(!place.is_found("--profile here.toml"));
    place.0.write("copy.toml", profile.to_toml());
    assert!(place.is_found("--profile copy.toml"));
    profile.memory.bandwidth *= 1.01;
    place.0.write("here.toml", profile.to_toml());
    assert!(!place.is_found("--profile here.toml"));
    assert!(place.is_found("--kernel-times nowhere.json"));
    place.output("tune tiny.ir --kernel-times times.json");
    assert!(!place.is_found("--kernel-times times.json"));
    let target = "compile tiny.ir -o t.alx --target";
    for name in ["avx2", "avx512", "sm_80", "sm_90"] {
        for cached in [false, true] {
            let said = place.output(&format!("{target} {name}")).stderr;
            let said = String::from_utf8(said).unwrap();
            assert_eq!(said.contains("from the cache"), cached, "{name}: {said}");
        }
    }
}

#[test]
fn damaged_entries_are_thrown_away_and_counted() {
    let place = Cached::new();
    place.output(RUN);
    let expected = place.0.read("y.safetensors");
    let entries = place.entries();
    let [path] = &entries[..] else {
        panic!("one entry: {entries:?}");
    };
    let whole = std::fs::read(path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let middle = whole.len() / 2;
    let mut changed = whole.clone();
    changed[middle] ^= 0x80;
    let damages = [
        &whole[..middle],
        &[],
        &flipped,
        &changed,
        b"alexc-cache-1 \n\n",
        b"\xff\xfe",
    ];
    for (count, damaged) in damages.iter().enumerate() {
        std::fs::write(path, damaged).unwrap();
        let output = place.output(RUN);
        assert!(output.stderr.is_empty(), "damage {count} is no one's business");
        assert!(place.0.read("y.safetensors") == expected);
        let listed = place.json("cache --json");
        assert_eq!(listed["entries"][0]["model"], "tiny", "it is written again");
        assert_eq!(listed["thrown_away"], count + 1);
    }
    std::fs::write(path, b"nothing").unwrap();
    let text = String::from_utf8(place.output("cache").stdout).unwrap();
    assert!(
        text.contains("damaged") && text.contains("6 damaged entries were thrown away"),
        "{text}"
    );
}

#[test]
fn two_processes_at_once_disturb_neither() {
    let place = Cached::new();
    for round in 0..3 {
        let start = |i: usize| {
            let run = RUN.replace("y.safetensors", &format!("y{i}"));
            place.command(&run).spawn().unwrap()
        };
        let started: Vec<_> = (0..4).map(start).collect();
        for (i, child) in started.into_iter().enumerate() {
            succeeded("run", child.wait_with_output().unwrap());
            assert!(
                place.0.read(&format!("y{i}")) == place.0.read("y0"),
                "round {round}"
            );
        }
        assert_eq!(place.entries().len(), 1);
        assert_eq!(place.json("cache --json")["thrown_away"], 0);
        if round == 1 {
            // Cleared while others may read.
            let started: Vec<_> = (0..2).map(start).collect();
            place.output("cache --clear");
            for child in started {
                succeeded("run", child.wait_with_output().unwrap());
            }
        }
    }
}

#[test]
fn the_least_recently_used_go_first() {
    let place = Cached::new();
    let compile = |batch: usize, limit: &str| {
        let arguments = format!("compile tiny.ir -o t.alx --batch {batch}");
        let output = place.command(&arguments).env("ALEXC_CACHE_LIMIT", limit).output();
        let said = String::from_utf8(succeeded(&arguments, output.unwrap()).stderr).unwrap();
        said.contains("from the cache")
    };
    for batch in [1, 2, 3] {
        assert!(!compile(batch, ""));
    }
    let sizes: Vec<u64> = place
        .entries()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .collect();
    let limit = (sizes.iter().sum::<u64>() + sizes.iter().max().unwrap() / 2).to_string();
    // 1 is used again, so 2 is the oldest, and a fourth needs its place.
    assert!(compile(1, &limit));
    assert!(!compile(4, &limit));
    let total: u64 = place
        .entries()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(total <= limit.parse().unwrap());
    assert_eq!(place.entries().len(), 3);
    assert!([1, 3, 4].into_iter().all(|batch| compile(batch, &limit)));
    assert!(!compile(2, &limit));
    // What is larger than all that may be kept is not kept; 0 switches the cache off.
    let before = place.entries();
    assert!(!compile(5, "1K") && !compile(5, "1K") && !compile(3, "0") && !compile(4, "0"));
    assert_eq!(place.entries(), before);
    let output = place
        .command("bench tiny.ir --iters 1")
        .env("ALEXC_CACHE_LIMIT", "much")
        .output()
        .unwrap();
    place.0.failed(
        "bench",
        &output,
        2,
        &["ALEXC_CACHE_LIMIT=much", "expected a number of bytes", "2G"],
    );
}

#[test]
fn without_a_folder_that_can_be_written_everything_works() {
    let place = Cached::new();
    for folder in ["/proc/alexc-cache", "tiny.ir/cache"] {
        let arguments = "bench tiny.ir --iters 1 --json";
        let output = place
            .command(arguments)
            .env("ALEXC_CACHE_DIR", folder)
            .output()
            .unwrap();
        let output = succeeded(arguments, output);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.matches("note: the compiled model is not kept").count(),
            1,
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["cached"], false);
        for arguments in ["cache", "cache --clear"] {
            let listed = place.command(arguments).env("ALEXC_CACHE_DIR", folder).output();
            succeeded(arguments, listed.unwrap());
        }
    }
    for arguments in [RUN, "cache"] {
        let output = place
            .command(arguments)
            .env_remove("ALEXC_CACHE_DIR")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("HOME")
            .output();
        let output = succeeded(arguments, output.unwrap());
        assert!(output.stderr.is_empty(), "no folder is no news");
    }
}

#[test]
fn the_cache_is_listed_and_cleared() {
    let place = Cached::new();
    let empty = place.json("cache --json");
    assert_eq!(
        (&empty["total_bytes"], &empty["limit_bytes"]),
        (&0.into(), &2_000_000_000u64.into())
    );
    place.output("compile tiny.ir --mode train -o t.alx");
    place.output("compile tiny.ir --target sm_90 --precision tf32 --batch 5 -o t.alx --devices sim");
    let listed = place.json("cache --json");
    let folder = place.0.path("cache/compiled");
    assert_eq!(listed["folder"], folder.to_str().unwrap());
    let entries = listed["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let (gpu, train) = (&entries[0], &entries[1]);
    assert_eq!(
        (&gpu["model"], &gpu["batch"]),
        (&"tiny".into(), &5.into()),
        "the last used first"
    );
    assert_eq!(gpu["targets"], serde_json::json!(["sm_90 tf32"]));
    assert_eq!(train["modes"], serde_json::json!(["infer", "train"]));
    assert!(train["last_used"].as_str().unwrap().ends_with('Z') && train["compile_ms"].as_f64() > Some(0.0));
    let bytes: u64 = entries.iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum();
    assert_eq!(listed["total_bytes"], bytes);
    let text = String::from_utf8(place.output("cache").stdout).unwrap();
    for part in [
        "tiny, infer and train, batch 6",
        "sm_90 tf32",
        "2 entries",
        "2.0 GB",
        "last used 20",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What tuning and calibrating kept is not the cache's.
    place.output("tune tiny.ir");
    assert!(place.0.path("cache/kernel-times.json").exists());
    let cleared = place.json("cache --clear --json");
    assert_eq!(
        (&cleared["removed_entries"], &cleared["removed_bytes"]),
        (&2.into(), &bytes.into())
    );
    assert!(place.entries().is_empty() && place.0.path("cache/kernel-times.json").exists());
    let text = String::from_utf8(place.output("cache --clear").stdout).unwrap();
    assert!(text.contains("0 entries removed"), "{text}");
}
