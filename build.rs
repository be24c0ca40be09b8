//! Names the build of the compiler: a hash of all its sources, of its dependencies and of the Rust compiler. What another
//! build compiled is not found in the cache.

#[path = "codegen/source_hash.rs"]
mod source_hash;

use std::process::Command;

/// Everything that decides what a model is compiled to. The tests of the crates do not.
const SOURCES: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "src",
    "ir/Cargo.toml",
    "ir/src",
    "ir/profiles",
    "passes/Cargo.toml",
    "passes/src",
    "codegen/Cargo.toml",
    "codegen/src",
    "runtime/Cargo.toml",
    "runtime/src",
];

fn main() {
    let mut hash = source_hash::hash(&SOURCES);
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let rustc = Command::new(variable("RUSTC")).arg("-vV").output();
    hash.add(&rustc.map(|output| output.stdout).unwrap_or_default());
    for name in ["TARGET", "OPT_LEVEL", "DEBUG", "CARGO_ENCODED_RUSTFLAGS"] {
        hash.add(variable(name).as_bytes());
    }
    println!("cargo:rustc-env=ALEXC_BUILD={:016x}", hash.0);
}
