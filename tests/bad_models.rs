//! Models and recipes that are wrong, huge, hostile or damaged: a message with the place and a remedy, and never a
//! panic, whichever command reads them.

mod program;

use program::{MODEL, Place, RECIPE};
use proptest::prelude::*;

#[test]
fn models_that_are_no_models() {
    let place = Place::new();
    let long_line = vec![b'x'; 10_000_000];
    let nested = format!("x = input() shape={}\noutput y = x\n", "[".repeat(9_000));
    let calls = format!(
        "x = input() shape=[4]\ny = relu({}\noutput y = y\n",
        "(".repeat(9_000)
    );
    let shape = |dims: &str| format!("x = input() shape=[{dims}]\ny = relu(x)\noutput y = y\n");
    let with = |from: &str, to: &str| {
        assert!(MODEL.contains(from));
        MODEL.replace(from, to)
    };
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "empty",
            vec![],
            &["a model without output", "help: End the model"],
        ),
        (
            "truncated",
            MODEL.as_bytes()[..MODEL.len() / 2].into(),
            &["m.ir:"],
        ),
        (
            "no UTF-8",
            b"x = input() shape=[4]\n\xff\xfe".into(),
            &["m.ir: byte 22 is not UTF-8"],
        ),
        (
            "a line of 10 MB",
            long_line,
            &["a line of 10000000 bytes", "at most 10000"],
        ),
        (
            "larger than any",
            vec![b'\n'; (16 << 20) + 1],
            &["m.ir: larger than the 16777216 bytes"],
        ),
        ("nested lists", nested.into(), &["m.ir:1:20", "found `[`"]),
        ("nested calls", calls.into(), &["m.ir:2:10", "found `(`"]),
        (
            "a NUL",
            b"x = input() shape=[4]\0\noutput y = x\n".into(),
            &["m.ir:1:22", "`\\0`"],
        ),
        (
            "a cycle",
            "a = relu(b)\nb = relu(a)\noutput y = b\n".into(),
            &["m.ir:1:10", "no cycles"],
        ),
        (
            "itself",
            "a = relu(a)\noutput y = a\n".into(),
            &["in its own definition", "no cycles"],
        ),
        (
            "beyond 64 bits",
            shape("99999999999999999999999").into(),
            &["m.ir:1:20", "too large"],
        ),
        (
            "beyond memory",
            shape("N, 2147483648, 2147483648").into(),
            &["at most 2^40 elements"],
        ),
        (
            "beyond extents",
            shape("N, 4000000000").into(),
            &["each from 1 up to 2147483648"],
        ),
        ("no elements", shape("N, 0").into(), &["m.ir:1:13", "from 1 up"]),
        (
            "negative",
            shape("N, -4").into(),
            &["m.ir:1:23", "positive integer"],
        ),
        (
            "a huge pad",
            with("pad=1", "pad=9223372036854775807").into(),
            &["m.ir:6:", "up to 2147483648"],
        ),
        (
            "a huge result",
            with("pad=1", "pad=1000000000").into(),
            &["m.ir:6:", "elements"],
        ),
        (
            "a stride of 0",
            with("stride=2", "stride=0").into(),
            &["m.ir:9:", "stride=0"],
        ),
        (
            "a window too large",
            with("kernel=2", "kernel=99").into(),
            &["m.ir:9:", "max_pool"],
        ),
        (
            "another shape",
            with("shape=[3, 64]", "shape=[3, 65]").into(),
            &["m.ir:12:", "65"],
        ),
        (
            "another type",
            with("f32[N, 3, 8, 8] = input", "i64[N, 3, 8, 8] = input").into(),
            &["m.ir:3:", "i64"],
        ),
        (
            "an unknown value",
            with("relu(conv1.sum)", "relu(conv1.sun)").into(),
            &["m.ir:8:", "`conv1.sum`"],
        ),
        (
            "an unknown operation",
            with("max_pool", "maxpool").into(),
            &["m.ir:9:", "`max_pool`"],
        ),
        (
            "defined twice",
            with("relu1  ", "conv1  ").into(),
            &["m.ir:8:", "conv1"],
        ),
        (
            "a rate of 1",
            with("rate=0.5", "rate=1.0").into(),
            &["m.ir:11:", "rate=1"],
        ),
        (
            "a rate of NaN",
            with("rate=0.5", "rate=nan").into(),
            &["m.ir:11:", "nan"],
        ),
        (
            "a deviation of infinity",
            with("std=0.2", "std=1e999").into(),
            &["m.ir:4:", "std"],
        ),
    ];
    for (what, source, parts) in cases {
        place.write("m.ir", source);
        for command in ["check m.ir", "compile m.ir", "init m.ir -o w"] {
            let message = place.refused(command, parts);
            assert!(message.starts_with("error: "), "{what}: {message}");
        }
    }
    let left = place.files();
    assert_eq!(
        left,
        ["m.ir", "tiny.ir", "tiny.toml"].map(std::path::PathBuf::from)
    );
}

#[test]
fn models_that_are_no_files() {
    let place = Place::new();
    place.refused(
        "check nowhere.ir",
        &["nowhere.ir: cannot be read", "check the path"],
    );
    place.refused("check .", &[".: is a folder; name a file"]);
    place.refused(
        "check tiny.ir/x.ir",
        &["tiny.ir/x.ir: cannot be read", "is a file, not a folder"],
    );
    place.refused("check /dev/zero", &["/dev/zero: larger than"]);
    place.refused("check /dev/null", &["/dev/null:1:1", "without output"]);
}

#[test]
fn models_that_are_sound_and_too_large_for_this_machine() {
    let place = Place::new();
    place.write(
        "vast.ir",
        "x = input() shape=[N, 3]\nw = parameter() shape=[1000000, 1000000]\ny = relu(w)\noutput z = y\n",
    );
    place.succeeds("check vast.ir");
    for command in ["init vast.ir -o w", "bench vast.ir --iters 1"] {
        place.fails(command, 1, &["MiB of memory and this machine has"]);
    }
}

#[test]
fn models_that_cannot_do_what_is_asked() {
    let place = Place::with_images();
    place.write(
        "flat.ir",
        "x = input() shape=[N, 3]\ny = relu(x)\noutput logits = y\n",
    );
    place.refused(
        "train flat.ir --data data --out run",
        &["is not an image classifier", "expected f32[N, C, H, W]"],
    );
    place.write(
        "two.ir",
        format!("{MODEL}output more = relu1\noutput scores = fc2\n"),
    );
    place.refused("train two.ir --data data --out run", &["output"]);
    place.write(
        "wide.ir",
        MODEL
            .replace("[3, 64]", "[2, 64]")
            .replace("shape=[3]", "shape=[2]")
            .replace("f32[3] ", "f32[2] ")
            .replace("f32[N, 3] ", "f32[N, 2] "),
    );
    place.refused(
        "train wide.ir --data data --out run",
        &["data: has 3 classes and the model has 2"],
    );
    assert!(!place.path("run").exists());
}

#[test]
fn recipes() {
    let place = Place::with_images();
    let cases: [(&[u8], &[&str]); 15] = [
        (b"[train\nbatch = 3", &["r.toml", "line 1"]),
        // Nothing that a terminal would obey.
        (b"\x1b[2Jtrain]", &["r.toml", "line 1", "\u{fffd}[2Jtrain]"]),
        (
            b"[train]\nbatch = 6\nepoks = 3",
            &["r.toml", "line 3", "epoks", "did you mean `epochs`?"],
        ),
        (b"[sgdd]", &["r.toml", "sgdd", "`sgd`"]),
        (b"[train]\nbatch = \"many\"", &["r.toml", "line 2", "many"]),
        (
            b"[train]\nbatch = 0",
            &["r.toml", "[train] batch = 0: expected at least 1"],
        ),
        (b"[train]\nbatch = -1", &["r.toml", "line 2"]),
        (
            b"[train]\nepochs = 99999999999999999999999",
            &["r.toml", "line 2"],
        ),
        (
            b"[sgd]\nlr = nan",
            &["r.toml", "[sgd] lr = NaN: expected a number from 0"],
        ),
        (b"[sgd]\nlr = -inf", &["r.toml", "[sgd] lr = -inf"]),
        (
            b"[sgd]\nmomentum = 1.0",
            &["r.toml", "momentum = 1", "less than 1"],
        ),
        (b"[schedule]\nkind = \"stairs\"", &["r.toml", "stairs"]),
        (b"[data]\ncrop = 0", &["r.toml", "crop"]),
        (b"[data]\nresize = 4\ncrop = 8", &["crop"]),
        (b"\xff\xfe", &["r.toml: byte 0 is not UTF-8"]),
    ];
    for (recipe, parts) in cases {
        place.write("r.toml", recipe);
        place.refused("train tiny.ir --data data --out run --recipe r.toml", parts);
    }
    let deep = [b"a = ".as_slice(), &[b'['; 400_000]].concat();
    place.write("r.toml", deep);
    place.refused("train tiny.ir --data data --out run --recipe r.toml", &["r.toml"]);
    place.write("r.toml", vec![b'#'; (1 << 20) + 1]);
    place.refused(
        "bench tiny.ir --recipe r.toml",
        &["r.toml: larger than the 1048576 bytes"],
    );
    place.refused(
        "bench tiny.ir --recipe no.toml",
        &["no.toml: cannot be read", "check the path"],
    );
    assert!(!place.path("run").exists());
    // The recipe beside the model is read without being named.
    place.write("tiny.toml", "[train]\nbatch = 0");
    place.refused("compile tiny.ir --mode train", &["tiny.toml: [train] batch = 0"]);
}

/// A text with some of its bytes replaced, removed, doubled or moved.
fn mutated(text: &str, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, kind, value) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        let end = (at + usize::from(*value % 23)).min(bytes.len());
        match kind % 5 {
            0 => bytes[at] = *value,
            1 => drop(bytes.drain(at..end)),
            2 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
            3 => bytes[at..end].reverse(),
            _ => bytes[at] = b"0123456789-.,=[]()#\n N"[usize::from(*value) % 22],
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// A damaged model compiles or is told of.
    #[test]
    fn mutated_models(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..5)) {
        thread_local!(static PLACE: Place = Place::new());
        PLACE.with(|place| {
            place.write("m.ir", mutated(MODEL, &edits));
            let arguments = "compile m.ir -o m.alx --opt-level 1";
            let output = place.run(arguments);
            if output.status.success() {
                place.succeeds("check m.ir");
                std::fs::remove_file(place.path("m.alx")).unwrap();
            } else {
                place.failed(arguments, &output, 2, &["m.ir", "error: "]);
            }
            assert!(!place.path("m.alx").exists());
        });
    }

    /// A damaged recipe is read or is told of.
    #[test]
    fn mutated_recipes(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4)) {
        thread_local!(static PLACE: Place = Place::new());
        PLACE.with(|place| {
            place.write("r.toml", mutated(RECIPE, &edits));
            let arguments = "compile tiny.ir --mode infer --recipe r.toml --emit graph=g";
            let output = place.run(arguments);
            if !output.status.success() {
                place.failed(arguments, &output, 2, &["r.toml", "error: "]);
            }
        });
    }
}
