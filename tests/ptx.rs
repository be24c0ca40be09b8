//! The PTX of every model, put before NVIDIA's own assembler: it is accepted for every architecture and precision, and
//! no kernel spills more than a few registers to memory.
//!
//! `ptxas` needs no GPU. It is looked for where `make test` installs it, or where `ALEXC_PTXAS` says.

mod program;

use program::Place;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODELS: [&str; 3] = ["alexnet.ir", "alexnet-owt.ir", "alexnet-cifar.ir"];
/// What a block may have of shared memory on the smallest of the architectures, in bytes (CUDA C programming guide,
/// technical specifications, compute capability 8.0).
const SHARED_BYTES: u64 = 163 * 1024;
/// Registers of a multiprocessor, on all architectures.
const REGISTERS: u64 = 64 * 1024;

fn ptxas() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ALEXC_PTXAS") {
        return Some(path.into());
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/lib");
    let pythons = std::fs::read_dir(lib).ok()?;
    let found = pythons.filter_map(Result::ok).map(|python| {
        let packages = python.path().join("site-packages/nvidia/cu13/bin/ptxas");
        packages.exists().then_some(packages)
    });
    found.flatten().next()
}

/// Bytes that a thread may store to memory for want of registers, and load again. Kernels of warpgroups are held to so many
/// registers that a multiprocessor has two of their blocks: gradients of weights ran 1.7 times as fast so on an H100, with
/// up to a dozen numbers, which the loop over the depth does not change, in memory.
const SPILLED: u64 = 96;

/// What the assembler says of a kernel.
#[derive(Debug, Default)]
struct Usage {
    registers: u64,
    spilled: u64,
}

/// Reads the report of `ptxas -v`.
fn usages(report: &str) -> BTreeMap<String, Usage> {
    let mut usages = BTreeMap::new();
    let mut kernel = String::new();
    for line in report.lines() {
        let number_before = |word: &str| -> Option<u64> {
            let before = line[..line.find(word)?].trim_end();
            before.rsplit(' ').next()?.parse().ok()
        };
        if let Some(at) = line.find("Compiling entry function '") {
            let rest = &line[at + "Compiling entry function '".len()..];
            kernel = rest[..rest.find('\'').expect("a quoted name")].to_string();
        }
        let usage: &mut Usage = usages.entry(kernel.clone()).or_default();
        for spill in ["bytes spill stores", "bytes spill loads"] {
            usage.spilled += number_before(spill).unwrap_or(0);
        }
        usage.registers = number_before("registers").unwrap_or(usage.registers);
    }
    usages.remove("");
    usages
}

#[test]
fn the_assembler_takes_every_model_for_every_architecture_and_little_spills() {
    let Some(ptxas) = ptxas() else {
        panic!(
            "no ptxas in .tools: run `make .tools/installed`, which installs the package of tests/ptxas.txt, or set \
             ALEXC_PTXAS"
        );
    };
    let place = Place::new();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for model in MODELS {
        for (architecture, precision) in [
            ("sm_80", "tf32"),
            ("sm_80", "bf16"),
            ("sm_90", "f32"),
            ("sm_90", "tf32"),
            ("sm_90", "bf16"),
            ("sm_90a", "tf32"),
            ("sm_90a", "bf16"),
            ("sm_100", "tf32"),
        ] {
            let what = format!("{model} for {architecture} in {precision}");
            let path = models.join(model);
            let path = path.to_str().expect("the folder has a plain name");
            place.succeeds(&format!(
                "compile {path} --mode train --target {architecture} --precision {precision} --emit ptx=k.ptx \
                 --emit plan=plan.json"
            ));
            let output = Command::new(&ptxas)
                .args(["-v", &format!("-arch={architecture}")])
                .arg(place.path("k.ptx"))
                .arg("-o")
                .arg(place.path("k.cubin"))
                .output()
                .expect("ptxas runs");
            let report = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{what}: {report}");
            // Said of products of warpgroups whose sums are touched before they are waited for.
            assert!(!report.contains("serialized"), "{what}: {report}");
            let plan: ir::plan::Plan = serde_json::from_str(&place.read_text("plan.json")).expect("a plan");
            let usages = usages(&report);
            for kernel in &plan.kernels {
                let usage = usages
                    .get(&kernel.symbol)
                    .unwrap_or_else(|| panic!("{what}: no report of {}: {report}", kernel.symbol));
                let what = format!("{what}: {} {usage:?} {kernel:?}", kernel.symbol);
                let most = if architecture == "sm_90a" { SPILLED } else { 0 };
                assert!(usage.spilled <= most, "{what}");
                assert!(usage.registers > 0, "{what}");
                assert!(usage.registers * u64::from(kernel.threads) <= REGISTERS, "{what}");
                assert!(u64::from(kernel.shared_bytes) <= SHARED_BYTES, "{what}");
            }
        }
    }
}

#[test]
fn a_report_is_read() {
    let report = "ptxas info    : Compiling entry function 'k3' for 'sm_90'\n\
        ptxas info    : Function properties for k3\n    \
        8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n\
        ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size\n";
    let usages = usages(report);
    assert_eq!((usages["k3"].registers, usages["k3"].spilled), (40, 28));
}

#[test]
fn ptx_of_a_processor_is_refused() {
    let place = Place::new();
    place.refused("compile tiny.ir --emit ptx", &["--target sm_90"]);
    place.refused("compile tiny.ir --precision tf32", &["processors compute in f32"]);
    place.refused("compile tiny.ir --target sm_35", &["sm_80"]);
}
