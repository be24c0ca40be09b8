//! Weights, inputs and outputs that are wrong, damaged or hostile, and places that cannot be written.

mod program;

use program::{Place, image, labels};
use proptest::prelude::*;
use runtime::Tensor;
use serde_json::{Value, json};
use std::process::Output;

/// A safetensors file of bytes, with its header as `change` leaves it and a length that may lie.
fn safetensors(place: &Place, from: &str, to: &str, length: Option<u64>, change: impl FnOnce(&mut Value)) {
    let bytes = place.read(from);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    change(&mut header);
    let header = header.to_string();
    let length = length.unwrap_or(header.len() as u64);
    place.write(
        to,
        [&length.to_le_bytes(), header.as_bytes(), &bytes[end..]].concat(),
    );
}

const RUN: &str = "run tiny.ir --inputs x.safetensors --out y.safetensors --weights";

#[test]
fn weights_that_are_no_weights_of_the_model() {
    let place = Place::with_tensors();
    let whole = place.read_tensors("w.safetensors");
    let with = |name: &str, tensor: Option<Tensor>| {
        let mut tensors: Vec<(&str, Tensor)> = whole.iter().map(|(n, t)| (&n[..], t.clone())).collect();
        tensors.retain(|(other, _)| *other != name);
        tensors.extend(tensor.map(|tensor| (name, tensor)));
        place.tensors("bad", &tensors);
    };
    let refused = |parts: &[&str]| {
        let parts = [
            parts,
            &[
                "bad: these weights cannot be used",
                "give whole weights of this model",
            ],
        ]
        .concat();
        place.refused(&format!("{RUN} bad"), &parts);
        place.refused("predict tiny.ir --weights bad x.safetensors", &parts);
        assert!(!place.path("y.safetensors").exists());
    };
    with("fc2.bias", None);
    refused(&["fc2.bias is missing (expected f32[3])"]);
    with("fc9.bias", Some(Tensor::f32([3], vec![0.0; 3]).unwrap()));
    refused(&["fc9.bias (f32[3]) belongs to no parameter"]);
    with("fc2.weight", Some(Tensor::f32([64, 3], vec![0.0; 192]).unwrap()));
    refused(&["fc2.weight is f32[64, 3] (expected f32[3, 64])"]);
    with("fc2.bias", Some(labels(&[1, 2, 3])));
    refused(&["fc2.bias is i64[3] (expected f32[3])"]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        with("fc2.bias", Some(Tensor::f32([3], vec![0.0, value, 0.0]).unwrap()));
        refused(&["fc2.bias holds a value that is not finite (element 1)"]);
    }
    place.tensors("bad", &[]);
    refused(&[
        "conv1.bias is missing",
        "conv1.weight is missing",
        "fc2.bias is missing",
    ]);
}

#[test]
fn weights_that_are_damaged_or_lie() {
    let place = Place::with_tensors();
    let refused = |parts: &[&str]| {
        place.refused(&format!("{RUN} bad"), &[parts, &["bad: "]].concat());
    };
    let broken = ["truncated or not safetensors", "copy or write it again"];
    let whole = place.read("w.safetensors");
    for length in [0, 7, 8, 100, whole.len() - 1] {
        place.write("bad", &whole[..length]);
        refused(&broken);
    }
    place.write("bad", [&whole[..], b"more"].concat());
    refused(&broken);
    for length in [0, 10, whole.len() as u64, 1 << 40, u64::MAX] {
        safetensors(&place, "w.safetensors", "bad", Some(length), |_| ());
        refused(&broken);
    }
    let offsets = [
        json!([0, 12]),
        json!([12, 0]),
        json!([0, 1u64 << 60]),
        json!([-4, 8]),
        json!("all"),
        json!([1]),
    ];
    for offsets in offsets {
        let change = |header: &mut Value| header["fc2.bias"]["data_offsets"] = offsets;
        safetensors(&place, "w.safetensors", "bad", None, change);
        refused(&broken);
    }
    for shape in [
        json!([1u64 << 40, 1u64 << 40]),
        json!([-3]),
        json!([4]),
        json!([3.5]),
        json!("three"),
    ] {
        safetensors(&place, "w.safetensors", "bad", None, |header| {
            header["fc2.bias"]["shape"] = shape
        });
        refused(&broken);
    }
    safetensors(&place, "w.safetensors", "bad", None, |header| {
        header["fc2.bias"]["dtype"] = json!("F99")
    });
    refused(&broken);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    place.write(
        "bad",
        [&(deep.len() as u64).to_le_bytes(), deep.as_bytes()].concat(),
    );
    refused(&broken);
    assert!(!place.path("y.safetensors").exists());
}

#[test]
fn weights_that_are_no_files() {
    let place = Place::with_images();
    place.succeeds("init tiny.ir -o w.safetensors");
    place.tensors("x.safetensors", &[("image", image(2))]);
    place.refused(
        &format!("{RUN} nowhere"),
        &["nowhere: cannot be read", "check the path"],
    );
    place.refused(&format!("{RUN} data"), &["data/last: cannot be read"]);
    place.refused(&format!("{RUN} /dev/zero"), &["/dev/zero: is not a regular file"]);
    place.refused(
        "train tiny.ir --data data --out run --weights nowhere",
        &["nowhere: cannot be read"],
    );
    place.refused(
        "train tiny.ir --data data --out run2 --weights x.safetensors",
        &["x.safetensors: these weights cannot be used"],
    );
    place.refused(
        "predict tiny.ir --weights w.safetensors x.safetensors",
        &["the recipe needs the mean of the training images"],
    );
}

#[test]
fn inputs_that_are_no_inputs_of_the_model() {
    let place = Place::with_tensors();
    let refused = |more: &str, tensors: &[(&str, Tensor)], parts: &[&str]| {
        place.tensors("bad", tensors);
        let run = format!("run tiny.ir --weights w.safetensors --inputs bad --out y.safetensors {more}");
        place.refused(&run, &[parts, &["bad: "]].concat());
        assert!(!place.path("y.safetensors").exists());
    };
    refused(
        "",
        &[("picture", image(2))],
        &["picture is not an input of the model (infer), which has: image"],
    );
    refused(
        "--batch 3",
        &[("image", image(2))],
        &["image is f32[3, 3, 8, 8] and f32[2, 3, 8, 8] was given"],
    );
    refused(
        "",
        &[("image", labels(&[1, 2]))],
        &["image is f32[2, 3, 8, 8] and i64[2] was given"],
    );
    refused(
        "",
        &[("image", Tensor::f32([], vec![1.0]).unwrap())],
        &["f32[] was given"],
    );
    refused(
        "",
        &[("image", Tensor::f32([0, 3, 8, 8], vec![]).unwrap())],
        &["f32[0, 3, 8, 8] was given"],
    );
    refused("", &[], &["the input image is missing"]);
    refused(
        "--grads",
        &[("image", image(2))],
        &["the input labels is missing; add it"],
    );
    let with_labels = |classes: &[i64]| vec![("image", image(2)), ("labels", labels(classes))];
    refused(
        "--grads",
        &with_labels(&[0, 3]),
        &["label 3 and the model has 3 classes (0 to 2)"],
    );
    refused(
        "--grads",
        &with_labels(&[-1, 0]),
        &["label -1 and the model has 3 classes"],
    );
    refused(
        "--grads",
        &with_labels(&[0]),
        &["labels is i64[2] and i64[1] was given"],
    );
    refused(
        "--grads",
        &[("image", image(2)), ("labels", image(2))],
        &["labels is i64[2] and f32"],
    );
}

/// The output of `alexc ARGUMENTS` where no file may be longer than some KiB.
fn with_file_limit(place: &Place, kib: usize, arguments: &str) -> Output {
    let script = format!("ulimit -f {kib}; exec \"$0\" {arguments}");
    std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_alexc")])
        .current_dir(place.path("."))
        .env("XDG_CACHE_HOME", place.path("cache"))
        .env_remove("ALEXC_CACHE_DIR")
        .env("ALEXC_CACHE_LIMIT", "0")
        .output()
        .unwrap()
}

#[test]
fn places_that_cannot_be_written() {
    let place = Place::with_images();
    place.succeeds("init tiny.ir -o w");
    place.tensors("x", &[("image", image(1))]);
    for command in [
        "init tiny.ir -o",
        "compile tiny.ir -o",
        "run tiny.ir --weights w --inputs x --out",
        "compile tiny.ir --emit",
    ] {
        let into = |path: &str| match command {
            "compile tiny.ir --emit" => format!("{command} plan={path}"),
            _ => format!("{command} {path}"),
        };
        place.refused(
            &into("no/such/y"),
            &["no/such/y: cannot be written", "make its folder first"],
        );
        place.refused(&into("data"), &["data: is a folder; name a file"]);
        place.refused(
            &into("w/y"),
            &["w/y: cannot be written", "something else is there"],
        );
        place.fails(
            &into("/dev/full"),
            1,
            &["/dev/full: the disk is full", "Free some space"],
        );
        assert!(
            std::fs::metadata("/dev/full").unwrap().len() == 0,
            "/dev/full is a device still"
        );
    }
    for out in ["w", "w/run"] {
        place.refused(
            &format!("train tiny.ir --data data --out {out}"),
            &[out, "choose"],
        );
    }
    place.refused(
        "train tiny.ir --data data --out /dev/full",
        &["/dev/full is a file; choose a folder"],
    );
    place.fails(
        "train tiny.ir --data data --out /proc/nowhere",
        2,
        &["/proc/nowhere: cannot be written"],
    );
    place.refused("data synth w", &["w: "]);
}

#[test]
fn a_disk_that_fills_up_loses_nothing_that_was_there() {
    let place = Place::with_images();
    let init = "init tiny.ir --seed 1 -o w";
    place.succeeds(init);
    let before = place.read("w");
    let output = with_file_limit(&place, 1, "init tiny.ir --seed 2 -o w");
    place.failed(
        "init",
        &output,
        1,
        &["w: the limit on the size of files is reached", "ulimit -f"],
    );
    assert!(place.read("w") == before);
    let output = with_file_limit(&place, 1, "data synth more --size 64 --classes 2 --per-class 2");
    place.failed(
        "data synth",
        &output,
        1,
        &["the limit on the size of files is reached"],
    );
    assert!(!place.path("more").exists());

    // A run stops at the checkpoint that does not fit; the one before is whole, and the run goes on from there. The
    // model's checkpoints are larger than everything else that is written.
    let wide = program::MODEL
        .replace("[3, 64]", "[5000, 64]")
        .replace("[3]", "[5000]");
    place.write("wide.ir", wide.replace("f32[N, 3] ", "f32[N, 5000] "));
    place.write("wide.toml", program::RECIPE);
    let train = "train wide.ir --data data --steps 20 --out";
    place.succeeds(&format!("{train} whole"));
    place.succeeds("train wide.ir --data data --steps 6 --out run");
    let half = place.read("run/last").len() / 2048;
    let output = with_file_limit(&place, half, &format!("{train} run --resume"));
    let parts = [
        "run/checkpoints/step-8.safetensors",
        "the limit on the size of files is reached",
    ];
    place.failed("train", &output, 1, &parts);
    place.succeeds(&format!("{train} run --resume"));
    assert_eq!(place.metrics("run"), place.metrics("whole"));
    assert!(place.read("run/last") == place.read("whole/last"));
}

#[test]
fn messages_that_nobody_can_read_stop_nothing() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command("compile tiny.ir").stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(place.path("tiny.alx").exists());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command("check nowhere.ir").stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    /// Damaged weights are read as other weights, or told of.
    #[test]
    fn flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4), header in any::<bool>()) {
        thread_local!(static PLACE: (Place, Vec<u8>) = {
            let place = Place::new();
            let linear = "w = parameter() shape=[3, 4] init=normal std=1\ny = fully_connected(x, w)\noutput z = y\n";
            place.write("linear.ir", format!("x = input() shape=[N, 4]\n{linear}"));
            place.succeeds("init linear.ir -o w");
            place.tensors("x", &[("x", Tensor::f32([1, 4], vec![1.0; 4]).unwrap())]);
            let whole = place.read("w");
            (place, whole)
        });
        PLACE.with(|(place, whole)| {
            let mut bytes = whole.clone();
            // The last 48 bytes are elements; most of what can go wrong is before them.
            let range = if header { bytes.len() - 48 } else { bytes.len() };
            for (at, bit) in &flips {
                bytes[at.index(range)] ^= 1 << bit;
            }
            place.write("bad", bytes);
            let arguments = "run linear.ir --weights bad --inputs x --out y --opt-level 0";
            let output = place.run(arguments);
            if !output.status.success() {
                place.failed(arguments, &output, 2, &["bad: ", "error: "]);
            }
        });
    }
}
