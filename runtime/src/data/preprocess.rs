//! The preprocessing of images: the `[data]` table of a recipe. A part that is not given follows from `augment`, and
//! sizes follow from the model's input.

use crate::Error;
use serde::de::{Error as _, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The `[data]` table of a recipe: Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1, as defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// Whether training images come in a new random order every epoch.
    pub shuffle: bool,
    /// What the parts below are when they are not given; true when this is not given either. With false, images are
    /// taken as they are: their centre, not mirrored, nothing subtracted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<bool>,
    /// The shorter side in pixels after resizing (bilinear, antialiased); the centre square is kept. By default images
    /// in files get 8/7 of the crop (256 for 224) when augmented and the crop otherwise; images of a fixed size stay as
    /// they are unless they are smaller than the crop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// The side in pixels of what is cut out, which is the model's input: at random in training, the centre otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// Whether half of the training images are mirrored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
    /// The mean that is subtracted; by default the mean of every pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Mean>,
    /// The factor of the difference; 1 by default, so that bytes keep their range of 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Whether the colours of training images vary along their principal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_pca: Option<bool>,
}

impl Default for Preprocess {
    fn default() -> Preprocess {
        Preprocess {
            shuffle: true,
            augment: None,
            resize: None,
            crop: None,
            flip: None,
            mean: None,
            scale: None,
            color_pca: None,
        }
    }
}

impl Preprocess {
    /// Images as they are, in their order.
    pub fn as_is() -> Preprocess {
        Preprocess {
            shuffle: false,
            augment: Some(false),
            ..Preprocess::default()
        }
    }

    fn augments(&self) -> bool {
        self.augment.unwrap_or(true)
    }

    /// Whether training images are cut out at a random place.
    pub(crate) fn crops_at_random(&self) -> bool {
        self.crop.is_some() || self.augments()
    }

    /// Whether half of the training images are mirrored.
    pub(crate) fn flips(&self) -> bool {
        self.flip.unwrap_or(self.augments())
    }

    /// Whether colours vary.
    pub(crate) fn varies_colors(&self) -> bool {
        self.color_pca.unwrap_or(self.augments())
    }

    /// The mean that is subtracted.
    pub(crate) fn subtracts(&self) -> Mean {
        self.mean
            .unwrap_or(if self.augments() { Mean::Pixel } else { Mean::None })
    }

    /// The first invalid value, if there is one.
    pub fn problem(&self) -> Option<String> {
        for (key, value) in [("resize", self.resize), ("crop", self.crop)] {
            if let Some(value) = value.filter(|value| !(1..=MAX_SIDE).contains(value)) {
                return Some(format!("{key} = {value}: expected 1 to {MAX_SIDE} pixels"));
            }
        }
        if let (Some(resize), Some(crop)) = (self.resize, self.crop)
            && crop > resize
        {
            return Some(format!(
                "crop = {crop} is larger than resize = {resize}; resize to at least {crop}"
            ));
        }
        if let Some(scale) = self.scale.filter(|scale| !(scale.is_finite() && *scale != 0.0)) {
            return Some(format!(
                "scale = {scale}: expected a number other than 0, such as 1 or 0.0039"
            ));
        }
        match self.mean {
            Some(Mean::Values(values)) if values.iter().any(|value| !value.is_finite()) => {
                Some(format!("mean = {values:?}: expected three finite numbers"))
            }
            _ => None,
        }
    }

    /// The size in pixels (height, width) to which images are brought before the model's input (channels, height,
    /// width) is cut out of them. `fixed` is the size of the data set's images when they all have one.
    pub(crate) fn frame(
        &self,
        [_, h, w]: [usize; 3],
        fixed: Option<[usize; 3]>,
    ) -> Result<[usize; 2], Error> {
        if let Some(problem) = self.problem() {
            return Err(Error::input(format!("[data] {problem}")));
        }
        if h == 0 || w == 0 || h > MAX_SIDE || w > MAX_SIDE {
            return Err(Error::input(format!(
                "the model's images are {h}x{w} pixels; expected sides of 1 to {MAX_SIDE}"
            )));
        }
        if let Some(crop) = self.crop.filter(|&crop| crop != h || crop != w) {
            return Err(Error::input(format!(
                "[data] crop = {crop} and the model takes images of {h}x{w} pixels; remove crop or change the model's \
                 input"
            )));
        }
        let longer = h.max(w);
        match (self.resize, fixed) {
            (Some(resize), _) if resize < longer => Err(Error::input(format!(
                "[data] resize = {resize} and the model takes images of {h}x{w} pixels; resize to at least {longer}"
            ))),
            (Some(resize), _) => Ok([resize, resize]),
            (None, Some([_, fixed_h, fixed_w])) if fixed_h >= h && fixed_w >= w => Ok([fixed_h, fixed_w]),
            (None, None) if self.augments() => Ok([h, w].map(|side| (side * 8 + 3) / 7)),
            (None, _) => Ok([h, w]),
        }
    }
}

/// The longest side, in pixels, that images can be brought to.
pub(crate) const MAX_SIDE: usize = 8192;

/// The mean that is subtracted from images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mean {
    /// Nothing.
    None,
    /// The mean of each channel over the training set.
    Channel,
    /// The mean of each pixel over the training set.
    Pixel,
    /// These values of red, green and blue, in the images' own range: 0 to 255 for bytes.
    Values([f64; 3]),
}

impl Serialize for Mean {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Mean::None => serializer.serialize_str("none"),
            Mean::Channel => serializer.serialize_str("channel"),
            Mean::Pixel => serializer.serialize_str("pixel"),
            Mean::Values(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Mean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mean, D::Error> {
        deserializer.deserialize_any(MeanVisitor)
    }
}

struct MeanVisitor;

impl<'de> Visitor<'de> for MeanVisitor {
    type Value = Mean;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("\"none\", \"channel\", \"pixel\", true, false or [red, green, blue]")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Mean, E> {
        Ok(if value { Mean::Pixel } else { Mean::None })
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Mean, E> {
        match value {
            "none" => Ok(Mean::None),
            "channel" => Ok(Mean::Channel),
            "pixel" => Ok(Mean::Pixel),
            _ => Err(E::unknown_variant(value, &["none", "channel", "pixel"])),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<Mean, A::Error> {
        let values: Vec<f64> = Vec::deserialize(SeqAccessDeserializer::new(values))?;
        let found = values.len();
        let values = values
            .try_into()
            .map_err(|_| A::Error::custom(format!("found {found} numbers, expected [red, green, blue]")))?;
        Ok(Mean::Values(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Preprocess, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_optional_read_and_written() {
        assert_eq!(parse("").unwrap(), Preprocess::default());
        let text = "shuffle = false\naugment = true\nresize = 256\ncrop = 224\nflip = false\nscale = 0.5\n\
                    color_pca = false\nmean = ";
        for (value, mean) in [
            ("true", Mean::Pixel),
            ("false", Mean::None),
            ("\"none\"", Mean::None),
            ("\"channel\"", Mean::Channel),
            ("\"pixel\"", Mean::Pixel),
            ("[123.0, 117, 104.5]", Mean::Values([123.0, 117.0, 104.5])),
        ] {
            let read = parse(&format!("{text}{value}")).unwrap();
            assert_eq!(read.mean, Some(mean));
            assert_eq!(
                (read.resize, read.scale, read.flip),
                (Some(256), Some(0.5), Some(false))
            );
            assert_eq!(parse(&toml::to_string(&read).unwrap()).unwrap(), read);
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (text, part) in [
            ("flop = true", "unknown field `flop`"),
            ("mean = \"pixl\"", "unknown variant `pixl`"),
            ("mean = 3", "[red, green, blue]"),
            ("mean = [1.0, 2.0]", "found 2 numbers"),
            ("resize = -1", "resize"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for (text, part) in [
            ("resize = 0", "resize = 0"),
            ("crop = 100000", "1 to 8192"),
            ("resize = 32\ncrop = 64", "resize to at least 64"),
            ("scale = 0", "scale = 0"),
            ("scale = inf", "scale = inf"),
            ("mean = [1, nan, 3]", "finite"),
        ] {
            let problem = parse(text).unwrap().problem().expect(text);
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn sizes_follow_from_the_model_and_the_data() {
        let frame = |text: &str, shape, fixed| {
            parse(text)
                .unwrap()
                .frame(shape, fixed)
                .map_err(|e| e.to_string())
        };
        let (model, small) = ([3, 224, 224], [3, 32, 32]);
        assert_eq!(frame("", model, None), Ok([256, 256]));
        assert_eq!(frame("augment = false", model, None), Ok([224, 224]));
        assert_eq!(
            frame("augment = false\nresize = 300", model, None),
            Ok([300, 300])
        );
        assert_eq!(frame("", small, Some([3, 40, 36])), Ok([40, 36]));
        assert_eq!(frame("", small, Some([1, 28, 28])), Ok([32, 32]));
        assert_eq!(frame("resize = 48", small, Some([3, 40, 36])), Ok([48, 48]));
        for (text, shape, part) in [
            ("resize = 200", model, "at least 224"),
            (
                "crop = 227",
                model,
                "crop = 227 and the model takes images of 224x224",
            ),
            ("", [3, 0, 4], "0x4 pixels"),
        ] {
            let error = frame(text, shape, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
