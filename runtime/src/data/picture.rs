//! A picture as its file gives it: bytes or floats, any size, with the channels interleaved or apart; and how it
//! becomes a frame, which is planar f32 of one size for the whole data set.

use crate::Error;
use std::borrow::Cow;

/// The values of a picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values<'a> {
    /// `[h, w, c]`, 0 to 255.
    Interleaved(Cow<'a, [u8]>),
    /// `[c, h, w]`, 0 to 255.
    Planar(Cow<'a, [u8]>),
    /// `[c, h, w]`, in whatever range the data set has.
    Floats(Cow<'a, [f32]>),
}

/// A picture before any preprocessing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture<'a> {
    /// Channels, height, width; none is 0.
    pub shape: [usize; 3],
    pub values: Values<'a>,
}

/// Room that one thread reuses from picture to picture.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Columns resized, rows not yet: `[c, rows, w]`.
    columns: Vec<f32>,
    /// `[c, h, w]` of the frame.
    pub frame: Vec<f32>,
}

/// The luminance of red, green and blue (ITU-R BT.601).
const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];

impl Picture<'_> {
    /// Brings the picture to `[channels, h, w]` in `scratch.frame`: resized bilinearly with antialiasing until both
    /// sides cover the frame and one fits, then the centre. Bytes are multiplied by `range` / 255; floats stay in
    /// their range. One channel becomes three equal ones, three become their luminance.
    pub fn to_frame(
        &self,
        channels: usize,
        frame: [usize; 2],
        range: f32,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let [found, ..] = self.shape;
        if found != channels && (found, channels) != (1, 3) && (found, channels) != (3, 1) {
            return Err(Error::input(format!(
                "the image has {found} channels and the model takes {channels}; use data with {channels}"
            )));
        }
        let [_, h, w] = self.shape;
        match &self.values {
            Values::Interleaved(bytes) => {
                let strides = [1, w * found, found];
                self.resize(&bytes[..], strides, range / 255.0, frame, scratch);
            }
            Values::Planar(bytes) => self.resize(&bytes[..], [h * w, w, 1], range / 255.0, frame, scratch),
            Values::Floats(floats) => self.resize(&floats[..], [h * w, w, 1], 1.0, frame, scratch),
        }
        let area = frame[0] * frame[1];
        if found < channels {
            (1..channels).for_each(|_| scratch.frame.extend_from_within(..area));
        } else if found > channels {
            let (red, rest) = scratch.frame.split_at_mut(area);
            let (green, blue) = rest.split_at(area);
            for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
                *red = LUMINANCE[0] * *red + LUMINANCE[1] * green + LUMINANCE[2] * blue;
            }
            scratch.frame.truncate(area);
        }
        Ok(())
    }

    /// Resizes columns, then rows, only where the frame needs them.
    fn resize<T: Copy + Into<f32>>(
        &self,
        values: &[T],
        strides: [usize; 3],
        factor: f32,
        [frame_h, frame_w]: [usize; 2],
        scratch: &mut Scratch,
    ) {
        let [channels, h, w] = self.shape;
        let (whole_h, whole_w) = covering(h, w, frame_h, frame_w);
        let rows = Taps::of(h, whole_h, (whole_h - frame_h) / 2, frame_h);
        let columns = Taps::of(w, whole_w, (whole_w - frame_w) / 2, frame_w);
        let (first, end) = rows.extent();
        scratch.columns.clear();
        scratch.columns.reserve(channels * (end - first) * frame_w);
        for channel in 0..channels {
            for row in first..end {
                let start = channel * strides[0] + row * strides[1];
                for (from, weights) in columns.iter() {
                    let taps = values[start + from * strides[2]..]
                        .iter()
                        .step_by(strides[2])
                        .zip(weights);
                    let sum: f32 = taps.map(|(&value, weight)| value.into() * weight).sum();
                    scratch.columns.push(sum * factor);
                }
            }
        }
        scratch.frame.clear();
        scratch.frame.reserve(channels.max(3) * frame_h * frame_w);
        for plane in scratch.columns.chunks_exact((end - first) * frame_w) {
            for (from, weights) in rows.iter() {
                let start = scratch.frame.len();
                scratch.frame.resize(start + frame_w, 0.0);
                let out = &mut scratch.frame[start..];
                let taken = plane[(from - first) * frame_w..].chunks_exact(frame_w);
                for (row, &weight) in taken.zip(weights) {
                    out.iter_mut()
                        .zip(row)
                        .for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
    }
}

/// The size nearest to `h` x `w` in its proportions that covers the frame, one side of it exactly.
fn covering(h: usize, w: usize, frame_h: usize, frame_w: usize) -> (usize, usize) {
    let along = |side: usize, other: usize, fitted: usize| {
        ((side as f64 * fitted as f64 / other as f64).round() as usize).max(1)
    };
    // Compares frame_h / h with frame_w / w without rounding.
    if frame_h as u128 * w as u128 >= frame_w as u128 * h as u128 {
        (frame_h, along(w, h, frame_h).max(frame_w))
    } else {
        (along(h, w, frame_w).max(frame_h), frame_w)
    }
}

/// For each pixel of a resized line, which pixels of the line it is a sum of, and their weights.
struct Taps {
    /// The first pixel and where its weights end in `weights`.
    places: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Taps {
    /// Pixels `skip..skip + count` of a line of `from` pixels resized to `to`: a triangle as wide as a pixel of the
    /// result, or of the source where that is wider.
    fn of(from: usize, to: usize, skip: usize, count: usize) -> Taps {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let mut taps = Taps {
            places: Vec::with_capacity(count),
            weights: Vec::new(),
        };
        for pixel in skip..skip + count {
            let centre = (pixel as f64 + 0.5) * scale;
            let weight = |source: usize| (1.0 - (source as f64 + 0.5 - centre).abs() / support).max(0.0);
            let nearest = (centre as usize).min(from - 1);
            let mut first = nearest;
            while first > 0 && weight(first - 1) > 0.0 {
                first -= 1;
            }
            let mut end = nearest + 1;
            while end < from && weight(end) > 0.0 {
                end += 1;
            }
            let total: f64 = (first..end).map(weight).sum();
            taps.weights
                .extend((first..end).map(|source| (weight(source) / total) as f32));
            taps.places.push((first, taps.weights.len()));
        }
        taps
    }

    /// The first pixel of each sum with its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let mut start = 0;
        self.places.iter().map(move |&(first, end)| {
            let weights = &self.weights[start..end];
            start = end;
            (first, weights)
        })
    }

    /// The pixels that are needed at all: the first, and one past the last.
    fn extent(&self) -> (usize, usize) {
        let first = self.places.first().map_or(0, |place| place.0);
        let end = self
            .iter()
            .map(|(first, weights)| first + weights.len())
            .max()
            .unwrap_or(0);
        (first, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> f32) -> Picture<'static> {
        let [c, h, w] = shape;
        let places = (0..c).flat_map(|c| (0..h).flat_map(move |y| (0..w).map(move |x| (c, y, x))));
        let floats = places.map(|(c, y, x)| value(c, y, x)).collect::<Vec<_>>();
        Picture {
            shape,
            values: Values::Floats(floats.into()),
        }
    }

    fn frame(picture: &Picture, channels: usize, size: [usize; 2]) -> Vec<f32> {
        let mut scratch = Scratch::default();
        picture.to_frame(channels, size, 255.0, &mut scratch).unwrap();
        assert_eq!(scratch.frame.len(), channels * size[0] * size[1]);
        scratch.frame
    }

    #[test]
    fn a_picture_of_the_right_size_stays_as_it_is() {
        let values: Vec<u8> = (0..60).map(|i| i * 4).collect();
        let planar = Picture {
            shape: [3, 4, 5],
            values: Values::Planar(values.clone().into()),
        };
        let expected: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
        assert_eq!(frame(&planar, 3, [4, 5]), expected);
        let interleaved: Vec<u8> = (0..20)
            .flat_map(|i| [0, 1, 2].map(|c| values[c * 20 + i]))
            .collect();
        let interleaved = Picture {
            shape: [3, 4, 5],
            values: Values::Interleaved(interleaved.into()),
        };
        assert_eq!(frame(&interleaved, 3, [4, 5]), expected);
        let mut scratch = Scratch::default();
        planar.to_frame(3, [4, 5], 1.0, &mut scratch).unwrap();
        assert!((scratch.frame[59] - 236.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn a_larger_picture_gives_its_centre() {
        let tall = picture([1, 7, 4], |_, y, x| (10 * y + x) as f32);
        assert_eq!(frame(&tall, 1, [3, 4])[..5], [20.0, 21.0, 22.0, 23.0, 30.0]);
        let line = picture([1, 1, 8], |_, _, x| x as f32);
        assert_eq!(frame(&line, 1, [1, 4]), [2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn halving_weighs_as_the_triangle_does() {
        // At half the size each pixel is a sum with weights 1, 3, 3, 1 of 8 (Pillow's BILINEAR gives the same).
        let square = picture([1, 8, 8], |_, _, x| [8.0, 16.0, 0.0, 0.0, 80.0, 0.0, 0.0, 0.0][x]);
        let halved = frame(&square, 1, [4, 4]);
        let expected = [(3.0 * 8.0 + 3.0 * 16.0) / 7.0, 16.0 / 8.0 + 80.0 / 8.0, 30.0, 0.0];
        for row in halved.chunks(4) {
            row.iter()
                .zip(expected)
                .for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{row:?}"));
        }
    }

    #[test]
    fn linear_pictures_stay_linear_and_constant_ones_constant() {
        let slope = picture([2, 90, 120], |c, y, x| c as f32 + 2.0 * y as f32 + 3.0 * x as f32);
        let shown = frame(&slope, 2, [30, 30]);
        // Pixel (i, j) of the frame is centred at 3i + 1 and 15 + 3j + 1; at the border the triangle is cut.
        for (i, j) in [(3, 5), (10, 20), (28, 28)] {
            let expected = 2.0 * (3 * i + 1) as f32 + 3.0 * (15 + 3 * j + 1) as f32;
            assert!((shown[i * 30 + j] - expected).abs() < 1e-2, "{i} {j}");
            assert!((shown[900 + i * 30 + j] - expected - 1.0).abs() < 1e-2, "{i} {j}");
        }
        for (h, w) in [(1, 1), (3, 500), (500, 3), (37, 41)] {
            let gray = frame(&picture([1, h, w], |_, _, _| 7.0), 1, [24, 20]);
            assert!(gray.iter().all(|v| (v - 7.0).abs() < 1e-4), "{h}x{w}");
        }
    }

    #[test]
    fn channels_are_converted_or_refused() {
        let color = picture([3, 2, 2], |c, _, _| [100.0, 50.0, 200.0][c]);
        assert!(frame(&color, 1, [2, 2]).iter().all(|v| (v - 82.05).abs() < 1e-3));
        let gray = picture([1, 2, 2], |_, y, x| (2 * y + x) as f32);
        assert_eq!(
            frame(&gray, 3, [2, 2]),
            [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]
        );
        let error = color
            .to_frame(4, [2, 2], 255.0, &mut Scratch::default())
            .unwrap_err();
        assert!(
            error.to_string().contains("3 channels and the model takes 4"),
            "{error}"
        );
    }
}
