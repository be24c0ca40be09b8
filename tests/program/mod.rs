//! The program `alexc`, run from outside in a folder of its own that holds a small model.
#![allow(dead_code, reason = "each test program uses a part")]

use runtime::{Tensor, TensorFile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A network with one layer of each kind that people use, small enough to compile in a fraction of a second.
pub const MODEL: &str = "model tiny

image        : f32[N, 3, 8, 8] = input()                            shape=[N, 3, 8, 8]
conv1.weight : f32[4, 3, 3, 3] = parameter()                        shape=[4, 3, 3, 3] init=normal std=0.2
conv1.bias   : f32[4]          = parameter()                        shape=[4]
conv1        : f32[N, 4, 8, 8] = conv2d(image, conv1.weight)        pad=1
conv1.sum    : f32[N, 4, 8, 8] = bias(conv1, conv1.bias)
relu1        : f32[N, 4, 8, 8] = relu(conv1.sum)
pool1        : f32[N, 4, 4, 4] = max_pool(relu1)                    kernel=2 stride=2
flat         : f32[N, 64]      = reshape(pool1)                     shape=[N, 64]
drop2        : f32[N, 64]      = dropout(flat)                      rate=0.5
fc2.weight   : f32[3, 64]      = parameter()                        shape=[3, 64] init=normal std=0.1
fc2.bias     : f32[3]          = parameter()                        shape=[3]
fc2          : f32[N, 3]       = fully_connected(drop2, fc2.weight)
fc2.sum      : f32[N, 3]       = bias(fc2, fc2.bias)

output logits = fc2.sum
";

/// Its recipe. Images of 0 to 255 are made small, so that it learns in a few steps.
pub const RECIPE: &str = "[train]
batch = 6
epochs = 3
seed = 3

[sgd]
lr = 0.02

[data]
scale = 0.01
";

/// Names and shapes of the model's parameters.
pub const PARAMETERS: [(&str, &[usize]); 4] = [
    ("conv1.bias", &[4]),
    ("conv1.weight", &[4, 3, 3, 3]),
    ("fc2.bias", &[3]),
    ("fc2.weight", &[3, 64]),
];

/// A folder with `tiny.ir` and `tiny.toml`, in which the program runs.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
        };
        place.write("tiny.ir", MODEL);
        place.write("tiny.toml", RECIPE);
        place
    }

    /// With `data/`, 24 training and 6 validation images in three classes.
    pub fn with_images() -> Place {
        let place = Place::new();
        place.succeeds("data synth data --classes 3 --per-class 8 --val-per-class 2 --size 16 --seed 1");
        place
    }

    /// With `w.safetensors`, initial weights, and `x.safetensors`, two images.
    pub fn with_tensors() -> Place {
        let place = Place::new();
        place.succeeds("init tiny.ir --seed 5 -o w.safetensors");
        place.tensors("x.safetensors", &[("image", image(2))]);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), contents).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn read_text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn tensors(&self, name: &str, tensors: &[(&str, Tensor)]) {
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| (name.to_string(), tensor.clone()));
        let file = TensorFile {
            tensors: tensors.collect(),
            ..TensorFile::default()
        };
        file.write(&self.path(name)).unwrap();
    }

    pub fn read_tensors(&self, name: &str) -> BTreeMap<String, Tensor> {
        TensorFile::read(&self.path(name)).unwrap().tensors
    }

    /// The program with arguments that hold no spaces, separated by spaces.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexc"));
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("ALEXC_CACHE_DIR")
            // A test of what compiling gives compiles; tests/cache.rs switches the cache on.
            .env("ALEXC_CACHE_LIMIT", "0")
            .env_remove("NO_COLOR")
            .env_remove("RUST_BACKTRACE");
        command
    }

    pub fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The command succeeds and leaves no temporary file. Its standard output.
    pub fn succeeds(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "alexc {arguments}: {:?}\n{}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr)
        );
        self.expect_no_temporary_files(arguments);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command succeeds and prints one JSON object and nothing else.
    pub fn json(&self, arguments: &str) -> Value {
        let stdout = self.succeeds(arguments);
        let value: Value = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("alexc {arguments}: {error}: {stdout}"));
        assert!(value.is_object(), "alexc {arguments}: {stdout}");
        assert_eq!(stdout.lines().count(), 1, "alexc {arguments}: {stdout}");
        value
    }

    /// The command is refused as bad usage or bad input, with a message that holds all of `parts`.
    pub fn refused(&self, arguments: &str, parts: &[&str]) -> String {
        self.fails(arguments, 2, parts)
    }

    /// The command ends with `code` and a message that holds all of `parts`; nothing goes to stdout, nothing panics,
    /// no escape sequences come, no temporary file stays. The message.
    pub fn fails(&self, arguments: &str, code: i32, parts: &[&str]) -> String {
        self.failed(arguments, &self.run(arguments), code, parts)
    }

    /// The same of a command that has run.
    pub fn failed(&self, arguments: &str, output: &Output, code: i32, parts: &[&str]) -> String {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "alexc {arguments}: {stderr}");
        for part in parts {
            assert!(
                stderr.contains(part),
                "alexc {arguments}: {part:?} is not in: {stderr}"
            );
        }
        assert!(
            !stderr.contains("panicked") && !stderr.contains('\x1b'),
            "alexc {arguments}: {stderr}"
        );
        assert!(
            stderr.len() < 20_000,
            "alexc {arguments}: a message of {} bytes",
            stderr.len()
        );
        assert!(
            output.stdout.is_empty(),
            "alexc {arguments} printed {}",
            String::from_utf8_lossy(&output.stdout)
        );
        self.expect_no_temporary_files(arguments);
        stderr
    }

    fn expect_no_temporary_files(&self, arguments: &str) {
        let left = self.files().into_iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with('.') || name.ends_with(".part")
        });
        assert_eq!(left, None, "alexc {arguments} left a temporary file");
    }

    /// Every file and folder below, by its path from here.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                found.push(path.strip_prefix(self.folder.path()).unwrap().to_path_buf());
            }
        }
        found.sort();
        found
    }

    /// The lines of a run's metrics, without what depends on the clock.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let line = |line: &str| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("images_per_s");
            value
        };
        self.read_text(&format!("{run}/metrics.jsonl"))
            .lines()
            .map(line)
            .collect()
    }

    /// Starts the command, with its messages kept for later.
    pub fn start(&self, arguments: &str) -> std::process::Child {
        self.command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// `count` images for the model, different everywhere and the same in every test.
pub fn image(count: usize) -> Tensor {
    let values = (0..count * 192).map(|i| ((i * 7919 + 13) % 997) as f32 / 500.0 - 1.0);
    Tensor::f32([count, 3, 8, 8], values.collect()).unwrap()
}

/// Classes for as many images.
pub fn labels(classes: &[i64]) -> Tensor {
    Tensor::i64([classes.len()], classes.to_vec()).unwrap()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
