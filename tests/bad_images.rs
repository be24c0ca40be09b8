//! Images and data sets that are damaged, missing or hostile, and training that comes to nothing.

mod program;

use program::{Place, RECIPE, image, labels, text};
use runtime::checkpoint::Checkpoint;
use std::os::unix::fs::PermissionsExt;

/// The JPEG files below a folder, sorted.
fn jpegs(place: &Place, folder: &str) -> Vec<String> {
    let names = place.files().into_iter().map(|path| text(&path).to_string());
    names
        .filter(|name| name.starts_with(folder) && name.ends_with(".jpg"))
        .collect()
}

#[test]
fn images_that_are_damaged_are_named_skipped_and_counted() {
    let place = Place::with_images();
    let training = jpegs(&place, "data/train/disc");
    let validation = jpegs(&place, "data/val/");
    let whole = place.read(&training[3]);
    place.write(&training[0], &whole[..whole.len() / 2]);
    place.write(&training[1], "no image");
    place.write(&training[2], "");
    place.write(&validation[0], &whole[..100]);
    let output = place.run("train tiny.ir --data data --out run --json");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for (name, why) in [
        (&training[0], "the JPEG ends early"),
        (&training[1], "neither JPEG nor PNG"),
        (&training[2], "it is empty"),
        (&validation[0], "the JPEG ends early, after 100 bytes"),
    ] {
        let told = format!("warning: {name}: cannot be used as an image: ");
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with(&told)).collect();
        assert_eq!(lines.len(), 1, "{name} is told once, over three epochs: {stderr}");
        assert!(
            lines[0].contains(why) && lines[0].contains("remove it or save it again"),
            "{stderr}"
        );
    }
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["unusable_images"], &summary["steps"]),
        (&4.into(), &12.into())
    );
    assert_eq!(summary["evaluation"]["images"], 5, "one of six was left out");

    let report = place.json("eval tiny.ir --weights run --data data --json");
    assert_eq!(
        (&report["images"], &report["unusable_images"]),
        (&5.into(), &1.into())
    );
    let text = place.succeeds("eval tiny.ir --weights run --data data --views 10 --batch 3");
    assert!(
        text.contains("5 images: ") && text.contains("\n1 images could not be used"),
        "{text}"
    );
    // What is left out has no part in the result.
    place.write("fewer/val/disc-solid/1.jpg", place.read(&validation[1]));
    for name in &validation[2..] {
        place.write(&name.replace("data/", "fewer/"), place.read(name));
    }
    let fewer = place.json("eval tiny.ir --weights run --data fewer --json");
    for field in ["images", "loss", "top1_error", "top5_error"] {
        assert_eq!(fewer[field], report[field], "{field}");
    }
}

#[test]
fn too_many_damaged_images_are_an_error() {
    let place = Place::with_images();
    for name in &jpegs(&place, "data/train/")[..11] {
        place.write(name, "no image");
    }
    place.refused(
        "train tiny.ir --data data --out run",
        &[
            "data: 11 train",
            "images cannot be used, the last: data/train/",
            "neither JPEG nor PNG",
        ],
    );
    let place = Place::with_images();
    place.succeeds("train tiny.ir --data data --out run --steps 1");
    for name in jpegs(&place, "data/val/") {
        place.write(&name, "no image");
    }
    place.refused(
        "eval tiny.ir --weights run --data data",
        &["data: no val", "image can be used, the last: data/val/"],
    );
}

#[test]
fn a_single_image() {
    let place = Place::with_images();
    place.succeeds("train tiny.ir --data data --out run --steps 1");
    let refused = |bytes: &[u8], parts: &[&str]| {
        place.write("image.jpg", bytes);
        let remedy = [
            "image.jpg: cannot be used as an image",
            "remove it or save it again",
        ];
        place.refused(
            "predict tiny.ir --weights run image.jpg",
            &[parts, &remedy].concat(),
        );
    };
    let jpeg = place.read(&jpegs(&place, "data/val/")[0]);
    refused(b"", &["it is empty"]);
    refused(b"GIF89a\x01\0\x01\0\0\0\0", &["Gif"]);
    refused(&jpeg[..jpeg.len() / 2], &["the JPEG ends early"]);
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == b"\xff\xc0")
        .expect("a baseline JPEG");
    for (height, width) in [(0xffffu16, 0xffffu16), (0, 16), (16, 0)] {
        let mut lying = jpeg.clone();
        lying[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        lying[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        refused(&lying, &[]);
    }
    // A picture of one pixel is a picture: the smallest PNG there is.
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\
                \0\0\0\nIDAT\x78\x9c\x63\x60\0\0\0\x02\0\x01\x48\xaf\xa4\x71\0\0\0\0IEND\xae\x42\x60\x82";
    place.write("pixel.png", png);
    let report = place.json("predict tiny.ir --weights run --json pixel.png");
    assert_eq!(report["predictions"][0]["guesses"].as_array().unwrap().len(), 3);
    let mut huge = png.to_vec();
    huge[16..24].copy_from_slice(b"\x7f\xff\xff\xff\x7f\xff\xff\xff");
    refused(&huge, &[]);
    place.refused(
        "predict tiny.ir --weights run nowhere.jpg",
        &["nowhere.jpg: cannot be read", "check the path"],
    );
    place.refused(
        "predict tiny.ir --weights run data",
        &["data: is a folder; name a file"],
    );
    // One that is bad among others: nothing is printed of the others.
    place.refused(
        "predict tiny.ir --weights run --json pixel.png image.jpg",
        &["image.jpg"],
    );
}

#[test]
fn files_that_have_the_name_of_an_image_only() {
    let place = Place::with_images();
    let inside = |name: &str| place.path("data/train/disc-solid").join(name);
    // Whoever opened the pipe would wait for ever.
    let pipe = std::process::Command::new("mkfifo")
        .arg(inside("pipe.jpg"))
        .status()
        .unwrap();
    assert!(pipe.success());
    std::os::unix::fs::symlink("/dev/zero", inside("zeros.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere.jpg", inside("dangling.jpg")).unwrap();
    std::fs::create_dir(inside("folder.jpg")).unwrap();
    let output = place.run("train tiny.ir --data data --out run --epochs 1 --json");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for (name, why) in [
        ("pipe.jpg", "is not a regular file"),
        ("zeros.jpg", "is not a regular file"),
        ("folder.jpg", "is not a regular file"),
        ("dangling.jpg", "cannot be read"),
    ] {
        assert!(
            stderr.contains(&format!("disc-solid/{name}: {why}")),
            "{name}: {stderr}"
        );
    }
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["unusable_images"], 4);
}

#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with_images();
    place.succeeds("train tiny.ir --data data --out run --steps 1");
    let strange = std::ffi::OsStr::from_bytes(b"\xff.jpg");
    let images = jpegs(&place, "data/val/");
    std::fs::copy(place.path(&images[0]), place.path(".").join(strange)).unwrap();
    let mut predict = place.command("predict tiny.ir --weights run --json");
    let output = predict.arg(strange).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["predictions"][0]["image"], "\u{fffd}.jpg");
    std::fs::copy(
        place.path(&images[0]),
        place.path("data/train/disc-solid").join(strange),
    )
    .unwrap();
    place.refused(
        "train tiny.ir --data data --out new",
        &["data/train/disc-solid/", "the name is not UTF-8; rename it"],
    );
}

#[test]
fn data_sets_that_are_none() {
    let place = Place::with_images();
    place.write("file", "text");
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::create_dir_all(place.path("classless/train")).unwrap();
    std::fs::create_dir_all(place.path("imageless/train/cat")).unwrap();
    place.write("tiny.tar", "");
    place.tensors("labelless.safetensors", &[("images", image(6))]);
    place.tensors(
        "narrow.safetensors",
        &[("images", image(6)), ("labels", labels(&[0, 1, 2, 3, 0, 1]))],
    );
    place.succeeds("train tiny.ir --data data --out run --steps 1");
    for (data, parts) in [
        ("nowhere", &["nowhere: cannot be read", "check the path"][..]),
        ("file", &["file: is not a recognised data set", "expected"]),
        ("empty", &["empty: is not a recognised data set", "train/CLASS"]),
        ("classless", &["classless/train", "holds no class folders"]),
        ("imageless", &["imageless", "no images"]),
        ("data/train", &["name the folder above it"]),
        ("tiny.tar", &["tiny.tar: ", "unpack it first"]),
        ("labelless.safetensors", &["labels i64[n]", "it holds images"]),
        (
            "narrow.safetensors",
            &["narrow.safetensors: has 4 classes and the model has 3"],
        ),
    ] {
        place.refused(&format!("train tiny.ir --data {data} --out new"), parts);
        assert!(!place.path("new").exists());
        if data != "narrow.safetensors" {
            place.refused(&format!("eval tiny.ir --weights run --data {data}"), parts);
        }
    }
    place.refused(
        "train tiny.ir --data data --out new --batch 25",
        &["24 training images, fewer than one batch of 25"],
    );
    std::fs::rename(
        place.path("data/val/disc-solid"),
        place.path("data/val/disk-solid"),
    )
    .unwrap();
    place.refused(
        "train tiny.ir --data data --out new",
        &["data/val/disk-solid", "no class of this name"],
    );
    std::fs::remove_dir_all(place.path("data/val")).unwrap();
    place.refused("eval tiny.ir --weights run --data data", &["data", "val"]);
    place.succeeds("train tiny.ir --data data --out new --epochs 1");
    assert_eq!(
        place.metrics("new").len(),
        4,
        "without validation images there is no evaluation"
    );
}

#[test]
fn a_folder_that_may_not_be_read() {
    let place = Place::with_images();
    let folder = place.path("data/train/disc-solid");
    let allow = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    // The superuser may read everything; for everybody else this is an error.
    if std::fs::read_dir(&folder).is_ok() {
        place.succeeds("train tiny.ir --data data --out run --steps 1");
    } else {
        let parts = [
            "data/train/disc-solid: cannot be read",
            "allow this user to read it",
        ];
        place.refused("train tiny.ir --data data --out run --steps 1", &parts);
    }
    allow(0o755);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good() {
    let place = Place::with_images();
    let diverging = |lr: &str| {
        let recipe = RECIPE
            .replace("lr = 0.02", &format!("lr = {lr}"))
            .replace("seed = 3", "seed = 3\ncheckpoint_every = 1");
        place.write("diverging.toml", recipe);
        "train tiny.ir --data data --recipe diverging.toml --out"
    };
    let train = diverging("1e15");
    let message = place.fails(
        &format!("{train} run"),
        1,
        &["the loss is", "fc2", "smaller learning rate"],
    );
    let kept = Checkpoint::read(&place.path("run/last")).unwrap();
    let step = kept.progress.step;
    for part in [
        format!("step {}: the loss is", step + 1),
        format!("the checkpoint of step {step} in run is intact"),
    ] {
        assert!(message.contains(&part), "{part:?} is not in {message}");
    }
    let values = kept.parameters.values().chain(kept.state.values());
    let finite = |tensor: &runtime::Tensor| tensor.as_f32().unwrap().iter().all(|value| value.is_finite());
    assert!(values.into_iter().all(finite));
    assert_eq!(
        place.metrics("run").len() as u64,
        step,
        "a line a step, up to the last good one"
    );

    // An update that overflows is noticed before it is saved, though the loss of its step is finite.
    let train = diverging("1e39");
    place.fails(
        &format!("{train} new"),
        1,
        &[
            "step 1: the update gives",
            "not finite",
            "no checkpoint was saved yet",
        ],
    );
    assert!(!place.path("new/last").exists());

    // Images that are not finite.
    let mut values = image(12).as_f32().unwrap().to_vec();
    values[7 * 192 + 5] = f32::NAN;
    let images = runtime::Tensor::f32([12, 3, 8, 8], values).unwrap();
    place.tensors(
        "nan.safetensors",
        &[("images", images), ("labels", labels(&[0, 1, 2].repeat(4)))],
    );
    place.write(
        "as-is.toml",
        "[train]\nbatch = 6\n[data]\nshuffle = false\naugment = false\nmean = false\n",
    );
    place.fails(
        "train tiny.ir --data nan.safetensors --recipe as-is.toml --out nan",
        1,
        &[
            "step 2: the loss is NaN",
            "image was given with a value that is not finite",
        ],
    );
}

#[test]
fn run_folders_that_are_damaged() {
    let place = Place::with_images();
    place.succeeds("train tiny.ir --data data --out whole");
    let train = "train tiny.ir --data data --out run";
    place.succeeds(&format!("{train} --steps 9"));
    let newest = "run/checkpoints/step-9.safetensors";
    let bytes = place.read(newest);
    // The newest checkpoint is damaged: the one before it is taken, and the end is the same.
    place.write(newest, &bytes[..bytes.len() / 2]);
    place.refused(
        "eval tiny.ir --weights run --data data",
        &["run/last", "copy or write it again"],
    );
    let output = place.run(&format!("{train} --resume"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("the checkpoint before it is taken"),
        "{stderr}"
    );
    assert_eq!(place.metrics("run"), place.metrics("whole"));
    assert!(place.read("run/last") == place.read("whole/last"));
    // Another model, another recipe, a recipe that is none.
    place.write("run/model.ir", program::MODEL.replace("tiny", "tinier"));
    place.refused(&format!("{train} --resume"), &["run/model.ir is another model"]);
    place.write("run/model.ir", program::MODEL);
    place.write("run/recipe.toml", "[train");
    place.refused(&format!("{train} --resume"), &["run/recipe.toml"]);
}
