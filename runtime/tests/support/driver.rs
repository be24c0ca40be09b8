//! The pretended driver of `fake_cuda.c`, and processes that find it.

use super::feeds::{BATCH, CLASSES, ELEMENTS};
use ir::plan::{self, Plan};
use runtime::{Artifact, Compiled, Ptx};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Set in a process that was started to run one test with the driver.
const INSIDE: &str = "FAKE_CUDA_INSIDE";

/// A module that the parser takes, with these kernels of so many parameters; what they do, the driver knows.
pub fn text<'k>(target: &str, kernels: impl IntoIterator<Item = (&'k str, usize)>) -> String {
    let entry = |(name, parameters): (&str, usize)| {
        let parameters: Vec<String> = (0..parameters)
            .map(|i| format!(".param .u64 .ptr .global {name}_{i}"))
            .collect();
        format!(
            ".visible .entry {name}(\n{}\n)\n{{\nret;\n}}\n",
            parameters.join(",\n")
        )
    };
    let entries: String = kernels.into_iter().map(entry).collect();
    format!(".version 8.0\n.target {target}\n.address_size 64\n{entries}")
}

/// A program whose kernels the driver knows, for a GPU.
pub fn on_gpu(mut plan: Plan) -> Compiled {
    plan.devices = vec![plan::PTX.into()];
    for kernel in &mut plan.kernels {
        kernel.threads = kernel.threads.max(1);
    }
    let kernels = plan.kernels.iter();
    let kernels = kernels.map(|kernel| (&kernel.symbol[..], kernel.argument_bytes.len()));
    let ptx = Ptx {
        target: "sm_80".into(),
        text: text("sm_80", kernels),
    };
    Compiled {
        plan,
        graph: String::new(),
        precision: "f32".into(),
        predicted_ms: None,
        host: None,
        ptx: vec![ptx],
    }
}

/// A folder with the driver.
pub struct Driver {
    folder: tempfile::TempDir,
}

impl Driver {
    pub fn new() -> Driver {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/fake_cuda.c");
        let shape = [("BATCH", BATCH), ("FEATURES", ELEMENTS), ("CLASSES", CLASSES)];
        let status = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join("libcuda.so.1"))
            .arg(source)
            .arg("-lm")
            .args(shape.map(|(name, value)| format!("-D{name}={value}")))
            .status()
            .expect("whoever builds Rust has cc");
        assert!(status.success());
        Driver { folder }
    }

    /// With an artifact, `m.alx`.
    pub fn with(artifact: &Artifact) -> Driver {
        let driver = Driver::new();
        artifact.write(&driver.folder.path().join("m.alx")).unwrap();
        driver
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A program that finds this driver, which is as these variables say.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("FAKE_CUDA_LOG", self.log())
            .envs(settings.iter().copied());
        command
    }

    /// `alexrun check m.alx --devices DEVICE`.
    pub fn check(&self, device: &str, settings: &[(&str, &str)]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_alexrun"), settings);
        command
            .args(["check", "m.alx", "--devices", device])
            .output()
            .expect("alexrun runs")
    }

    /// The message of a check that fails.
    pub fn refused(&self, code: i32, device: &str, settings: &[(&str, &str)], parts: &[&str]) {
        let output = self.check(device, settings);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }

    /// Runs `body` where this driver is found, in a process of its own, once for each of these settings; `look` gets the
    /// log of each. The process is this test program with the one test `name`, which comes here again, and then has nothing
    /// else to do.
    pub fn inside(name: &str, settings: &[&[(&str, &str)]], body: impl Fn(), look: impl Fn(&str)) {
        if std::env::var_os(INSIDE).is_some() {
            return body();
        }
        let driver = Driver::new();
        let program = std::env::current_exe().expect("a test program knows where it is");
        for &settings in settings {
            let _ = std::fs::remove_file(driver.log());
            let mut command = driver.command(&program, settings);
            let output = command
                .args([name, "--exact", "--nocapture"])
                .env(INSIDE, "1")
                .output()
                .expect("it runs again");
            let said = [&output.stdout[..], &output.stderr[..]]
                .map(String::from_utf8_lossy)
                .concat();
            assert!(output.status.success(), "{settings:?}: {said}");
            assert!(said.contains("1 passed"), "there is no test {name}: {said}");
            let log = std::fs::read_to_string(driver.log()).expect("the driver was called");
            assert!(!log.contains("freed in use"), "{settings:?}: {log}");
            assert!(log.ends_with("free\nrelease\n"), "{settings:?}: {log}");
            look(&log);
        }
    }
}
