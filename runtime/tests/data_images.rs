//! Single image files: every kind that people have, and files that are broken or lie.

mod data;

use data::{recipe, save, temporary, told};
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use runtime::Error;
use runtime::data::{ColorPca, Mean, Preprocess, Statistics, load_image};
use std::fs;
use std::path::Path;

/// One view of a file as it is, for a model of `shape`.
fn load(path: &Path, shape: [usize; 3]) -> Result<Vec<f32>, Error> {
    let preprocess = Preprocess::as_is();
    let statistics = Statistics::unmeasured(&preprocess, shape)?;
    Ok(load_image(path, &preprocess, &statistics, shape, 1)?.remove(0))
}

fn near(values: &[f32], expected: [f32; 3], tolerance: f32) {
    for (plane, expected) in values.chunks(values.len() / 3).zip(expected) {
        plane
            .iter()
            .for_each(|value| assert!((value - expected).abs() <= tolerance, "{value} {expected}"));
    }
}

#[test]
fn kinds_of_pixels() {
    let (_guard, path) = temporary("image.png");
    let shape = [3, 4, 4];
    for (image, expected) in [
        (
            DynamicImage::from(RgbImage::from_pixel(4, 4, Rgb([10, 20, 30]))),
            [10.0, 20.0, 30.0],
        ),
        (GrayImage::from_pixel(4, 4, Luma([77])).into(), [77.0; 3]),
        (
            RgbaImage::from_pixel(4, 4, Rgba([10, 20, 30, 0])).into(),
            [10.0, 20.0, 30.0],
        ),
        (ImageBuffer::from_pixel(4, 4, LumaA([77u8, 3])).into(), [77.0; 3]),
        (
            ImageBuffer::from_pixel(4, 4, Rgb([10 * 257u16, 20 * 257, 30 * 257])).into(),
            [10.0, 20.0, 30.0],
        ),
        (
            ImageBuffer::from_pixel(4, 4, Luma([77 * 257u16])).into(),
            [77.0; 3],
        ),
    ] {
        let color = image.color();
        save(&path, image);
        let values = load(&path, shape).unwrap();
        near(&values, expected, 0.0);
        let luminance = 0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2];
        let gray = load(&path, [1, 4, 4]).unwrap();
        assert_eq!(gray.len(), 16);
        assert!(
            gray.iter().all(|value| (value - luminance).abs() < 1e-3),
            "{color:?}: {gray:?}"
        );
    }
    // What a file is shows in its bytes, not in its name.
    let jpeg = path.with_extension("jpg");
    fs::copy(&path, &jpeg).unwrap();
    near(&load(&jpeg, shape).unwrap(), [77.0; 3], 0.0);
    save(&jpeg, RgbImage::from_pixel(40, 40, Rgb([200, 100, 50])));
    near(&load(&jpeg, shape).unwrap(), [200.0, 100.0, 50.0], 3.0);
    save(&jpeg, GrayImage::from_pixel(9, 9, Luma([120])));
    near(&load(&jpeg, shape).unwrap(), [120.0; 3], 2.0);
}

/// A baseline JPEG of 8×8 pixels in Adobe's CMYK (inverted, as it writes them), all of full magenta.
fn magenta() -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0".to_vec();
    bytes.extend(b"\xff\xdb\0\x43\0");
    bytes.extend([8; 64]);
    bytes.extend(b"\xff\xc0\0\x14\x08\0\x08\0\x08\x04\x01\x11\0\x02\x11\0\x03\x11\0\x04\x11\0");
    // Codes for DC differences: 0 for seven bits, 10 for eight. For AC: 0, the end of the block.
    bytes.extend(b"\xff\xc4\0\x15\0\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\x08");
    bytes.extend(b"\xff\xc4\0\x14\x10\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend(b"\xff\xda\0\x0e\x04\x01\0\x02\0\x03\0\x04\0\0\x3f\0");
    // Cyan, yellow and black 255 (none): +127. Magenta 0 (full): -128.
    let bits = ["011111110", "10011111110", "011111110", "011111110", "11"].concat();
    for byte in bits.as_bytes().chunks(8) {
        let byte = byte.iter().fold(0, |value, bit| value << 1 | (bit - b'0'));
        bytes.push(byte);
        assert_ne!(byte, 0xff, "would need a byte after it");
    }
    bytes.extend(b"\xff\xd9");
    bytes
}

#[test]
fn cmyk() {
    let (_guard, path) = temporary("image.jpg");
    fs::write(&path, magenta()).unwrap();
    near(&load(&path, [3, 8, 8]).unwrap(), [255.0, 0.0, 255.0], 3.0);
}

#[test]
fn photos_are_turned_as_the_camera_says() {
    let (_guard, path) = temporary("image.jpg");
    // Left half black, right half white.
    save(
        &path,
        GrayImage::from_fn(16, 16, |x, _| Luma([if x < 8 { 0 } else { 255 }])),
    );
    let straight = load(&path, [1, 16, 16]).unwrap();
    assert!(straight[8 * 16] < 10.0 && straight[8 * 16 + 15] > 245.0);
    // EXIF: one tag, orientation 6: turn by 90 degrees clockwise.
    let exif = b"\xff\xe1\0\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [&bytes[..2], exif, &bytes[2..]].concat()).unwrap();
    let turned = load(&path, [1, 16, 16]).unwrap();
    assert!(
        turned[..16].iter().all(|value| *value < 10.0),
        "the left half is on top now"
    );
    assert!(turned[240..].iter().all(|value| *value > 245.0));
}

#[test]
fn broken_and_hostile_files() {
    let (_guard, path) = temporary("image.jpg");
    let shape = [3, 8, 8];
    let refused = |bytes: &[u8], parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        let error = load(&path, shape).unwrap_err();
        told(&error, &["image.jpg"]);
        told(&error, parts);
    };
    told(&load(&path, shape).unwrap_err(), &["cannot be read"]);
    refused(b"", &["it is empty"]);
    refused(b"hello", &["neither JPEG nor PNG"]);
    refused(b"GIF89a\x01\0\x01\0\0\0\0", &["Gif, expected JPEG or PNG"]);
    save(
        &path,
        RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 3) as u8, (y * 5) as u8])),
    );
    let jpeg = fs::read(&path).unwrap();
    load(&path, shape).unwrap();
    for length in [4, 100, jpeg.len() / 2, jpeg.len() - 1] {
        refused(&jpeg[..length], &["the JPEG ends early"]);
    }
    let png = path.with_extension("png");
    save(
        &png,
        RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 3) as u8, (y * 5) as u8])),
    );
    let png = fs::read(&png).unwrap();
    for length in [10, 40, png.len() / 2, png.len() - 40] {
        refused(&png[..length], &["cannot be used as an image"]);
    }
    // Sizes are the first thing in both headers: 65535 x 65535 and 2^31 - 1 a side.
    let mut huge = jpeg.clone();
    let frame = huge.windows(2).position(|pair| pair == b"\xff\xc0").unwrap();
    huge[frame + 5..frame + 9].fill(0xff);
    refused(&huge, &["it is 65535x65535 pixels, expected 1 to 64000000"]);
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(b"\x7f\xff\xff\xff\x7f\xff\xff\xff");
    refused(&huge, &["cannot be used as an image"]);
    // Bytes changed anywhere: an error or an image, and never a crash.
    for (i, at) in (2..jpeg.len()).step_by(7).enumerate() {
        let mut damaged = jpeg.clone();
        damaged[at] ^= 1 << (i % 8);
        fs::write(&path, damaged).unwrap();
        if let Ok(values) = load(&path, shape) {
            assert!(values.len() == 192 && values.iter().all(|value| (0.0..=255.0).contains(value)));
        }
    }
}

#[test]
fn ten_views_are_corners_and_centre_and_their_mirrors() {
    let (_guard, path) = temporary("image.png");
    // Each pixel holds its place: 10 y + x.
    save(
        &path,
        GrayImage::from_fn(10, 10, |x, y| Luma([(10 * y + x) as u8])),
    );
    let preprocess = recipe("augment = false\nresize = 10");
    let shape = [1, 4, 6];
    let statistics = Statistics::unmeasured(&preprocess, shape).unwrap();
    let views = load_image(&path, &preprocess, &statistics, shape, 10).unwrap();
    let corners: Vec<(f32, f32)> = views.iter().map(|view| (view[0], view[23])).collect();
    let expected = [(0.0, 35.0), (4.0, 39.0), (60.0, 95.0), (64.0, 99.0), (32.0, 67.0)];
    assert_eq!(corners[..5], expected);
    for (view, mirror) in views[..5].iter().zip(&views[5..]) {
        for (row, mirrored) in view.chunks(6).zip(mirror.chunks(6)) {
            assert!(row.iter().eq(mirrored.iter().rev()));
        }
    }
    assert_eq!(
        load_image(&path, &preprocess, &statistics, shape, 1).unwrap(),
        views[4..5]
    );
    let error = load_image(&path, &preprocess, &statistics, shape, 5).unwrap_err();
    told(&error, &["5 views: expected 1 or 10"]);
}

#[test]
fn means_scale_and_range() {
    let (_guard, path) = temporary("image.png");
    save(&path, RgbImage::from_pixel(6, 6, Rgb([100, 150, 200])));
    let shape = [3, 2, 2];
    let base = Statistics::unmeasured(&recipe("resize = 4"), shape).unwrap();
    let load = |text: &str, statistics: &Statistics| {
        load_image(&path, &recipe(text), statistics, shape, 1).map(|mut views| views.remove(0))
    };
    near(
        &load("resize = 4\nmean = [90, 150, 250]\nscale = 0.5", &base).unwrap(),
        [5.0, 0.0, -25.0],
        1e-4,
    );
    near(
        &load("resize = 4\nmean = false", &base).unwrap(),
        [100.0, 150.0, 200.0],
        1e-4,
    );
    let channel = Statistics {
        channel_mean: Some(vec![1.0, 2.0, 3.0]),
        ..base.clone()
    };
    near(
        &load("resize = 4\nmean = \"channel\"", &channel).unwrap(),
        [99.0, 148.0, 197.0],
        1e-4,
    );
    // The mean image is cut out at the same place.
    let mut mean = vec![1000.0; 48];
    for channel in 0..3 {
        for pixel in [5, 6, 9, 10] {
            mean[channel * 16 + pixel] = 100.0;
        }
    }
    let pixel = Statistics {
        pixel_mean: Some(mean),
        ..base.clone()
    };
    near(&load("resize = 4", &pixel).unwrap(), [0.0, 50.0, 100.0], 1e-4);
    // A model that learnt from values up to 1.
    let unit = Statistics {
        range: 1.0,
        ..base.clone()
    };
    near(
        &load("resize = 4\nmean = false", &unit).unwrap(),
        [0.3922, 0.5882, 0.7843],
        1e-3,
    );

    told(
        &load("resize = 4", &base).unwrap_err(),
        &["needs the mean of the training images"],
    );
    told(
        &load("resize = 8\nmean = false", &base).unwrap_err(),
        &["4x4 pixels", "resize = 8"],
    );
    let short = Statistics {
        pixel_mean: Some(vec![0.0; 47]),
        ..base.clone()
    };
    told(
        &load("resize = 4", &short).unwrap_err(),
        &["47 mean values, expected 48"],
    );
    let nan = Statistics {
        channel_mean: Some(vec![f32::NAN; 3]),
        ..base.clone()
    };
    told(
        &load("resize = 4\nmean = \"channel\"", &nan).unwrap_err(),
        &["expected 3 finite"],
    );
    for frame in [[1, 4], [0, 0], [usize::MAX, usize::MAX]] {
        let odd = Statistics {
            frame,
            ..base.clone()
        };
        told(
            &load("mean = false", &odd).unwrap_err(),
            &["measure them for this model"],
        );
    }
    for range in [0.0, f32::NAN, -1.0] {
        let odd = Statistics {
            range,
            ..base.clone()
        };
        told(
            &load("resize = 4\nmean = false", &odd).unwrap_err(),
            &["cannot be prepared"],
        );
    }
    let values = Preprocess {
        mean: Some(Mean::Values([1.0; 3])),
        ..Preprocess::as_is()
    };
    let gray = Statistics::unmeasured(&values, [1, 4, 4]).unwrap();
    told(
        &load_image(&path, &values, &gray, [1, 4, 4], 1).unwrap_err(),
        &["takes 1 channels"],
    );
}

#[test]
fn statistics_come_back_from_their_file() {
    let (_guard, path) = temporary("statistics.json");
    let statistics = Statistics {
        frame: [3, 5],
        range: 255.0,
        samples: 77,
        channel_mean: None,
        pixel_mean: Some((0..45).map(|i| 1.0 / (i as f32 + 3.0)).collect()),
        colors: Some(ColorPca {
            values: [0.2175, 0.0188, 0.0045],
            vectors: [[0.1, 0.2, 1.0 / 3.0]; 3],
        }),
    };
    statistics.write(&path).unwrap();
    assert_eq!(Statistics::read(&path).unwrap(), statistics);
    for text in [
        "",
        "{}",
        "{\"frame\": [1, 1], \"range\": 1, \"samples\": 0, \"other\": 1}",
    ] {
        fs::write(&path, text).unwrap();
        told(
            &Statistics::read(&path).unwrap_err(),
            &["statistics.json", "holds no statistics"],
        );
    }
}
