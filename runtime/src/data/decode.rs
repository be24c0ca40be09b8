//! JPEG and PNG files, which may be anything: damaged, hostile, gray, with 16 bits, transparent, CMYK, turned.

use super::picture::{Picture, Values};
use crate::{Error, files};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The most pixels an image may have, so that a small file cannot claim all memory.
pub const MAX_PIXELS: u64 = 64_000_000;
const MAX_FILE: u64 = 256 << 20;

/// Whether a file's name says that it is an image this module reads.
pub(crate) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|e| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| e.eq_ignore_ascii_case(known))
    })
}

/// Decodes an image file to one channel or three, 0 to 255: transparency is dropped, 16 bits become 8, and a photo
/// is turned as its camera says.
pub(crate) fn decode(path: &Path) -> Result<Picture<'static>, Error> {
    let bytes = files::read_bounded(path, MAX_FILE)?;
    let fail = |what: String| Error::input(format!("{}: {what}", path.display()));
    let image = catch_unwind(AssertUnwindSafe(|| decode_bytes(&bytes)))
        .unwrap_or_else(|_| Err("the decoder does not understand it".to_string()))
        .map_err(|what| {
            fail(format!(
                "cannot be used as an image: {what}; remove it or save it again"
            ))
        })?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, values) = if image.color().has_color() {
        (3, image.into_rgb8().into_raw())
    } else {
        (1, image.into_luma8().into_raw())
    };
    Ok(Picture {
        shape: [channels, height, width],
        values: Values::Interleaved(values.into()),
    })
}

fn decode_bytes(bytes: &[u8]) -> Result<DynamicImage, String> {
    let text = |error: ImageError| error.to_string();
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if !is_whole_jpeg(bytes) => {
            return Err(format!("the JPEG ends early, after {} bytes", bytes.len()));
        }
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        Some(other) => return Err(format!("it is {other:?}, expected JPEG or PNG")),
        None if bytes.is_empty() => return Err("it is empty".to_string()),
        None => return Err("it is neither JPEG nor PNG".to_string()),
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(format!(
            "it is {width}x{height} pixels, expected 1 to {MAX_PIXELS} pixels"
        ));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(text)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether a JPEG's segments run to its end marker (ITU-T T.81, annex B). The decoder would fill what is missing with
/// gray and say nothing.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Between segments there may be fill bytes; after a scan's header come its data, in which 0xff is followed
        // by 0 or by a restart marker.
        let Some(found) = bytes
            .get(at..)
            .and_then(|rest| rest.windows(2).position(is_marker))
        else {
            return false;
        };
        at += found + 2;
        match bytes[at - 1] {
            0xd9 => return true,
            0x01 | 0xd8 => {}
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        }
    }
}

fn is_marker(pair: &[u8]) -> bool {
    pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for (name, is) in [
            ("a.jpg", true),
            ("b.JPEG", true),
            ("c.Png", true),
            ("d.gif", false),
            ("jpg", false),
            ("x.", false),
        ] {
            assert_eq!(is_image_name(Path::new(name)), is, "{name}");
        }
    }

    #[test]
    fn the_end_of_a_jpeg_is_found_past_what_looks_like_one() {
        // A comment that holds an end marker, then scan data with a stuffed byte and a restart.
        let whole =
            b"\xff\xd8\xff\xfe\0\x04\xff\xd9\xff\xff\xda\0\x03\x01\x12\xff\0\x34\xff\xd0\x56\xff\xd9trailing";
        let end = whole.len() - b"trailing".len();
        assert!(is_whole_jpeg(whole));
        assert!(is_whole_jpeg(&whole[..end]));
        for length in 0..end {
            assert!(!is_whole_jpeg(&whole[..length]), "{length}");
        }
    }
}
