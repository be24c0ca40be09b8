//! Every kind of data set: written by the test, read back; and what is told of files that are not whole, not what
//! they say, or not what the others say.

mod data;

use data::{everything, refused, save, temporary, tensors, tree};
use image::RgbImage;
use runtime::data::{Dataset, Split};
use runtime::{Tensor, TensorFile};
use std::fs;
use std::path::Path;

#[test]
fn folder_trees() {
    let (_guard, root) = temporary("tree");
    tree(&root, 3, 2);
    // Upper case counts, other files and hidden ones do not.
    let red = RgbImage::from_pixel(8, 8, image::Rgb([255, 0, 0]));
    save(&root.join("train/ant/Z.png"), red.clone());
    fs::rename(root.join("train/ant/Z.png"), root.join("train/ant/Z.PNG")).unwrap();
    save(&root.join("train/ant/.hidden.png"), red);
    fs::write(root.join("train/ant/notes.txt"), "not an image").unwrap();
    fs::write(root.join("train/readme.md"), "not a class").unwrap();
    let dataset = Dataset::open(&root).unwrap();
    assert_eq!(dataset.class_names(), ["ant", "cat", "dog"]);
    assert_eq!((dataset.len(Split::Train), dataset.len(Split::Val)), (7, 4));
    assert_eq!(dataset.sample_shape(), None);
    let batch = everything(&dataset, Split::Train, [3, 8, 8]);
    assert_eq!(batch.labels, [0, 1, 1, 1, 2, 2, 2]);
    assert_eq!(batch.images[..64], [255.0; 64]);
    assert_eq!(batch.images[64..192], [0.0; 128]);
    assert_eq!(everything(&dataset, Split::Val, [3, 8, 8]).labels, [1, 1, 2, 2]);
}

#[test]
fn folder_trees_that_contradict_themselves() {
    let (_guard, root) = temporary("tree");
    refused(&root, &["tree", "cannot be read"]);
    fs::create_dir_all(root.join("pictures")).unwrap();
    refused(&root, &["not a recognised data set", "train/CLASS"]);
    fs::create_dir_all(root.join("train")).unwrap();
    refused(&root, &["holds no class folders"]);
    fs::create_dir_all(root.join("train/cat")).unwrap();
    refused(&root, &["hold no images", ".jpg"]);
    refused(&root.join("train"), &["name the folder above it"]);
    tree(&root, 1, 1);
    fs::create_dir_all(root.join("val/emu")).unwrap();
    refused(&root, &["val/emu", "train/ has no class of this name"]);
    fs::remove_dir_all(root.join("train")).unwrap();
    let dataset = Dataset::open(&root).unwrap();
    assert_eq!((dataset.classes(), dataset.len(Split::Train)), (3, 0));
}

fn cifar_record(label: u8, seed: usize) -> Vec<u8> {
    let mut record = vec![label];
    record.extend((0..3072).map(|i| (i * 7 + seed * 13) as u8));
    record
}

#[test]
fn cifar() {
    let (_guard, root) = temporary("cifar");
    fs::create_dir(&root).unwrap();
    fs::write(
        root.join("data_batch_1.bin"),
        [cifar_record(3, 0), cifar_record(9, 1)].concat(),
    )
    .unwrap();
    fs::write(root.join("data_batch_2.bin"), cifar_record(0, 2)).unwrap();
    fs::write(root.join("test_batch.bin"), cifar_record(5, 3)).unwrap();
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(root.join("batches.meta.txt"), names).unwrap();
    let dataset = Dataset::open(&root).unwrap();
    assert_eq!(
        (dataset.classes(), dataset.class_names()[3].as_str()),
        (10, "cat")
    );
    assert_eq!(dataset.sample_shape(), Some([3, 32, 32]));
    let train = everything(&dataset, Split::Train, [3, 32, 32]);
    assert_eq!(train.labels, [3, 9, 0]);
    let expected = (0..3).flat_map(|seed| (0..3072).map(move |i| f32::from((i * 7 + seed * 13) as u8)));
    assert!(expected.eq(train.images.iter().copied()));
    assert_eq!(everything(&dataset, Split::Val, [3, 32, 32]).labels, [5]);
    // Also where the archive puts it, and without names.
    let inner = root.join("in/cifar-10-batches-bin");
    fs::create_dir_all(&inner).unwrap();
    fs::copy(root.join("data_batch_1.bin"), inner.join("data_batch_1.bin")).unwrap();
    let dataset = Dataset::open(&root.join("in")).unwrap();
    assert_eq!(
        (dataset.class_names()[9].as_str(), dataset.len(Split::Val)),
        ("9", 0)
    );

    fs::write(root.join("batches.meta.txt"), "one\ntwo").unwrap();
    refused(&root, &["batches.meta.txt", "names 2 classes, expected 10"]);
    fs::remove_file(root.join("batches.meta.txt")).unwrap();
    fs::write(root.join("data_batch_2.bin"), &cifar_record(0, 2)[1..]).unwrap();
    refused(
        &root,
        &["data_batch_2.bin", "has 3072 bytes, expected a multiple of 3073"],
    );
    fs::write(
        root.join("data_batch_2.bin"),
        [cifar_record(0, 2), cifar_record(10, 2)].concat(),
    )
    .unwrap();
    refused(
        &root,
        &["data_batch_2.bin", "record 1 has the label 10, expected 0 to 9"],
    );
    fs::write(root.join("data_batch_2.bin"), []).unwrap();
    refused(&root, &["has 0 bytes"]);
    fs::rename(root.join("data_batch_2.bin"), root.join("data_batch_4.bin")).unwrap();
    refused(&root, &["data_batch_4.bin is there and data_batch_2.bin is not"]);
}

fn idx(path: &Path, kind: u8, sizes: &[u32], data: &[u8]) {
    let mut bytes = vec![0, 0, kind, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

#[test]
fn idx_files() {
    let (_guard, root) = temporary("mnist");
    fs::create_dir(&root).unwrap();
    let (images, labels) = (
        root.join("train-images-idx3-ubyte"),
        root.join("train-labels-idx1-ubyte"),
    );
    let pixels: Vec<u8> = (0..3 * 4 * 5).map(|i| i * 4).collect();
    idx(&images, 8, &[3, 4, 5], &pixels);
    refused(&root, &["the file with its labels is not in the same folder"]);
    idx(&labels, 8, &[3], &[2, 0, 1]);
    idx(&root.join("t10k-images.idx3-ubyte"), 8, &[1, 4, 5], &pixels[..20]);
    idx(&root.join("t10k-labels.idx1-ubyte"), 8, &[1], &[6]);
    let dataset = Dataset::open(&root).unwrap();
    assert_eq!((dataset.classes(), dataset.sample_shape()), (7, Some([1, 4, 5])));
    let train = everything(&dataset, Split::Train, [1, 4, 5]);
    assert_eq!(train.labels, [2, 0, 1]);
    assert!(
        train
            .images
            .iter()
            .copied()
            .eq(pixels.iter().map(|&p| f32::from(p)))
    );
    assert_eq!(everything(&dataset, Split::Val, [1, 4, 5]).labels, [6]);
    // Gray images for a model of colours.
    let color = everything(&dataset, Split::Val, [3, 4, 5]);
    assert_eq!(color.images[..20], color.images[40..]);

    idx(&root.join("t10k-images.idx3-ubyte"), 8, &[1, 5, 4], &pixels[..20]);
    refused(&root, &["[1, 4, 5]", "[1, 5, 4]", "expected one size"]);
    idx(&root.join("t10k-images.idx3-ubyte"), 8, &[1, 4, 5], &pixels[..20]);
    let huge = u32::MAX;
    for (kind, sizes, data, part) in [
        (8, &[3, 4, 5][..], &pixels[..59], "60 bytes, and 59 follow"),
        (8, &[2, 4, 5], &pixels[..], "40 bytes, and 60 follow"),
        (
            8,
            &[huge, huge, huge],
            &pixels,
            "more than this machine can address",
        ),
        (8, &[huge, huge, 0], &[], "expected no 0"),
        (13, &[3, 4, 5], &pixels, "type 0x0d; expected bytes"),
        (8, &[60], &pixels, "has 1 dimensions"),
        (8, &[2, 5, 6], &pixels, "[3] and"),
    ] {
        idx(&images, kind, sizes, data);
        refused(&root, &[part]);
    }
    for (bytes, part) in [
        (&b"\0\0"[..], "has 2 bytes, which is not an IDX header"),
        (b"\0\0\x08\xff\0\0", "ends within its header of 255 sizes"),
        (b"\x1f\x8b\x08\0\0\0", "gunzip it"),
        (b"hello world", "begins with 0x68 0x65"),
    ] {
        fs::write(&images, bytes).unwrap();
        refused(&root, &["train-images-idx3-ubyte", part]);
    }
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("train-images-idx3-ubyte.gz"), b"").unwrap();
    refused(&root, &["gunzip them"]);
}

#[test]
fn safetensors() {
    let (_guard, path) = temporary("set.safetensors");
    let values = tensors(&path, 5, [2, 3, 4], 3);
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!((dataset.classes(), dataset.sample_shape()), (3, Some([2, 3, 4])));
    for split in [Split::Train, Split::Val] {
        let batch = everything(&dataset, split, [2, 3, 4]);
        assert_eq!(
            (batch.images, batch.labels),
            (values.clone(), vec![0, 1, 2, 0, 1])
        );
    }
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused(&path, &["truncated or not safetensors"]);
    let images = || Tensor::f32([2, 1, 1, 1], vec![0.0; 2]).unwrap();
    let labels = |values: [i64; 2]| Tensor::i64([2], values.to_vec()).unwrap();
    for (images, labels, parts) in [
        (images(), labels([0, -1]), &["label 1 is -1", "from 0"][..]),
        (
            images(),
            labels([i64::MAX, 0]),
            &["label 0 is 9223372036854775807"],
        ),
        (
            images(),
            Tensor::i64([1], vec![0]).unwrap(),
            &["labels is i64[1], expected i64[2]"],
        ),
        (images(), images(), &["labels is f32[2, 1, 1, 1]"]),
        (
            Tensor::f32([2], vec![0.0; 2]).unwrap(),
            labels([0, 1]),
            &["images is f32[2], expected f32[n, c, h, w]"],
        ),
        (
            Tensor::f32([0, 1, 1, 1], vec![]).unwrap(),
            labels([0, 1]),
            &["expected no size 0"],
        ),
        (
            Tensor::i64([2, 1, 1, 1], vec![0; 2]).unwrap(),
            labels([0, 1]),
            &["i64[2, 1, 1, 1]", "expected f32"],
        ),
    ] {
        let tensors = [("images".to_string(), images), ("labels".to_string(), labels)];
        TensorFile {
            tensors: tensors.into(),
            ..TensorFile::default()
        }
        .write(&path)
        .unwrap();
        refused(&path, parts);
    }
    let tensors = [("x".to_string(), images())];
    TensorFile {
        tensors: tensors.into(),
        ..TensorFile::default()
    }
    .write(&path)
    .unwrap();
    refused(
        &path,
        &["expected images f32[n, c, h, w] and labels i64[n]", "holds x"],
    );
    refused(&path.with_extension("tar.gz"), &["cannot be read"]);
    fs::write(path.with_extension("tar.gz"), b"").unwrap();
    refused(&path.with_extension("tar.gz"), &["unpack it first"]);
}
