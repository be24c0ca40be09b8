//! The key of the compile cache: a hash of everything that decides what a model is compiled to.

use crate::compile::{Request, options};
use crate::costs::DeviceCosts;
use std::fmt::{Display, Write};

/// What an artifact is found by: the SHA-256 of all that it was compiled from, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// This build of the compiler: a hash of its sources and dependencies, and LLVM's version.
pub fn build() -> String {
    let llvm = codegen::bridge::llvm_version();
    let package = env!("CARGO_PKG_VERSION");
    format!("{package}-{}-{}-llvm-{llvm}", env!("ALEXC_BUILD"), codegen::VERSION)
}

impl Key {
    /// The key of what `build` compiles `model` to. Of the recipe only what the passes are told counts.
    pub fn of(build: &str, model: &str, request: &Request, costs: &[DeviceCosts]) -> Key {
        let mut all = String::new();
        // The length keeps the end of one part from being read as the start of the next.
        let mut add = |what: &str, text: &str| {
            _ = writeln!(all, "{what} {}\n{text}", text.len());
        };
        add("build", build);
        add("model", model);
        for &mode in &request.modes {
            // `Debug` writes every field, those of later versions of the compiler included.
            add("options", &format!("{:?}", options(request, mode, None)));
        }
        for target in &request.targets {
            add("target", &format!("{target:?}"));
        }
        for device in costs {
            add("profile", &format!("{:?}", device.profile));
            add("limit", &device.is_limit.to_string());
            let mut times = String::new();
            for (kernel, time) in device.times.all() {
                _ = writeln!(times, "{kernel} {}", time.us);
            }
            add("times", &times);
        }
        Key(runtime::artifact::sha256(all.as_bytes()))
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
