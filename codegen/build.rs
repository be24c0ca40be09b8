//! Names the version of the generated code: a hash of the sources that generate it, so that times measured of kernels
//! that other sources made are not taken for those of today's.

mod source_hash;

fn main() {
    let hash = source_hash::hash(&["src"]).0;
    println!("cargo:rustc-env=ALEXC_CODEGEN_SOURCES={hash:016x}");
}
