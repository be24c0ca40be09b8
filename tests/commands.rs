//! What a person meets first of the program: help, usage, the small commands, pipes and terminals.

mod program;

use program::{MODEL, PARAMETERS, Place, text};
use std::path::Path;
use std::process::{Command, Stdio};

const COMMANDS: [&str; 15] = [
    "compile",
    "check",
    "fmt",
    "init",
    "run",
    "train",
    "eval",
    "predict",
    "bench",
    "explain",
    "tune",
    "devices",
    "peaks",
    "cache",
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

#[test]
fn devices_are_listed_with_measured_peaks() {
    let place = Place::new();
    let report = place.json("devices --json");
    let cpu = &report["devices"][0];
    assert_eq!(cpu["name"], "cpu");
    let shipped = ["cpu-avx2", "cpu-avx512", "cpu-amx"];
    assert!(shipped.contains(&cpu["profile"].as_str().unwrap()), "{report}");
    assert!(cpu["profile_file"].is_null(), "{report}");
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
            output.status.success() && stderr.lines().all(|line| line.starts_with("compiled in ")),
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
