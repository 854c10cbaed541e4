//! A checkpoint's picture settings: `preprocessor_config.json`, field for field.
//!
//! Nothing is taken from a checkpoint's name. Without the file (weights copied alone) the published
//! checkpoints' values hold, which are the same for all of them. Newer library versions keep the
//! settings inside `processor_config.json`; where both files have them, that one wins, as in
//! transformers 5. A setting that this program does not carry out is refused by name: it would
//! change answers silently.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checkpoint_file::{self, Range, real, whole};
use super::processor::ProcessorError;

/// The file of the published checkpoints.
const FILE: &str = "preprocessor_config.json";

/// The file in which newer library versions keep the same settings.
const COMBINED_FILE: &str = "processor_config.json";

macro_rules! ranges {
    ($prefix:literal) => {
        [
            whole(concat!($prefix, "size"), 1, MAX_SIDE),
            whole(concat!($prefix, "crop_size"), 1, MAX_SIDE),
            real(concat!($prefix, "rescale_factor"), 1e-6, 1e3),
            real(concat!($prefix, "image_mean"), -1e4, 1e4),
            real(concat!($prefix, "image_std"), -1e4, 1e4),
            whole(concat!($prefix, "image_seq_length"), 1, 1 << 20),
        ]
    };
}

/// Side of the square picture, in pixels.
const DEFAULT_SIDE: u32 = 768;

/// Largest side accepted: the position tables of the published checkpoints end at 50 × 32 pixels,
/// and a mistyped number must not reserve gigabytes.
const MAX_SIDE: u32 = 4096;

/// Tokens that stand for the picture: one average and 24 × 24 positions.
const DEFAULT_IMAGE_SEQ_LENGTH: usize = 577;

/// Mean of the ImageNet pictures, per channel.
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];

/// Standard deviation of the ImageNet pictures, per channel.
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// From bytes to the unit interval.
const DEFAULT_RESCALE_FACTOR: f64 = 1.0 / 255.0;

/// Smallest absolute standard deviation; what is divided by less may be infinite.
const MIN_STD: f64 = 1e-6;

/// Pillow's number for its bicubic filter.
const BICUBIC: i64 = 3;

/// What every number of `preprocessor_config.json` may be.
const RANGES: [Range; 6] = ranges!("");

/// What every number of the same settings may be inside `processor_config.json`.
const COMBINED_RANGES: [Range; 6] = ranges!("image_processor.");

/// How a picture becomes pixel values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ImageSettings {
    /// Side of the square picture in pixels.
    pub(super) side: u32,
    /// Factor from bytes to the range that mean and deviation refer to.
    pub(super) rescale_factor: f64,
    /// Subtracted per channel.
    pub(super) mean: [f64; 3],
    /// Divided by, per channel.
    pub(super) std: [f64; 3],
    /// Tokens that stand for the picture.
    pub(super) image_seq_length: usize,
}

impl ImageSettings {
    /// What the published checkpoints say, all alike.
    pub(super) fn published() -> Self {
        Self {
            side: DEFAULT_SIDE,
            rescale_factor: DEFAULT_RESCALE_FACTOR,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            image_seq_length: DEFAULT_IMAGE_SEQ_LENGTH,
        }
    }

    /// Reads the settings of a checkpoint folder.
    pub(super) fn load(folder: &Path) -> Result<Self, ProcessorError> {
        let file = folder.join(COMBINED_FILE);
        if let Some(json) = read_if_there(&file)?
            && let Some(nested) = parse::<Combined>(&json, &COMBINED_RANGES, &file)?.image_processor
        {
            return nested.resolve(&file);
        }
        let file = folder.join(FILE);
        match read_if_there(&file)? {
            Some(json) => parse::<Raw>(&json, &RANGES, &file)?.resolve(&file),
            None => Ok(Self::published()),
        }
    }
}

/// What is read of `processor_config.json`.
#[derive(Debug, Deserialize)]
struct Combined {
    image_processor: Option<Raw>,
}

/// The settings as they are written; an absent field and `null` mean the same.
#[derive(Debug, Default, Deserialize)]
struct Raw {
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    size: Option<Size>,
    crop_size: Option<Size>,
    resample: Option<Resample>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    image_seq_length: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(u32),
    Sides { height: u32, width: u32 },
    // The model takes square pictures only, so the shortest edge is both edges.
    Shortest { shortest_edge: u32 },
}

impl Size {
    /// The side of the square, if it is one.
    fn side(self) -> Option<u32> {
        match self {
            Self::Side(side)
            | Self::Shortest {
                shortest_edge: side,
            } => Some(side),
            Self::Sides { height, width } => (height == width).then_some(height),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Resample {
    Number(i64),
    Name(String),
}

impl Raw {
    fn resolve(self, file: &Path) -> Result<ImageSettings, ProcessorError> {
        let refuse = |setting: &'static str, expected: &'static str| {
            Err(ProcessorError::UnsupportedSetting {
                file: PathBuf::from(file),
                setting,
                expected,
            })
        };
        let side = self.size.map_or(Some(DEFAULT_SIDE), Size::side);
        let Some(side) = side.filter(|side| (1..=MAX_SIDE).contains(side)) else {
            return refuse("size", "a square with a side from 1 to 4096");
        };
        if self.do_resize == Some(false) {
            return refuse("do_resize", "true");
        }
        let crop_side = self.crop_size.and_then(Size::side);
        if self.do_center_crop == Some(true) && crop_side != Some(side) {
            return refuse("do_center_crop", "false, or crop_size equal to size");
        }
        let is_bicubic = match &self.resample {
            None => true,
            Some(Resample::Number(number)) => *number == BICUBIC,
            Some(Resample::Name(name)) => name.eq_ignore_ascii_case("bicubic"),
        };
        if !is_bicubic {
            return refuse("resample", "3 (bicubic)");
        }
        let std = self.image_std.unwrap_or(IMAGENET_STD);
        if std.iter().any(|std| std.abs() < MIN_STD) {
            return refuse("image_std", "three numbers, each at least 0.000001 from 0");
        }
        let is_off = |switch: Option<bool>| switch == Some(false);
        let is_raw = is_off(self.do_normalize);
        Ok(ImageSettings {
            side,
            rescale_factor: match is_off(self.do_rescale) {
                true => 1.0,
                false => self.rescale_factor.unwrap_or(DEFAULT_RESCALE_FACTOR),
            },
            mean: match is_raw {
                true => [0.0; 3],
                false => self.image_mean.unwrap_or(IMAGENET_MEAN),
            },
            std: if is_raw { [1.0; 3] } else { std },
            image_seq_length: self.image_seq_length.unwrap_or(DEFAULT_IMAGE_SEQ_LENGTH),
        })
    }
}

fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, ProcessorError> {
    match checkpoint_file::read(file) {
        Ok(json) => Ok(Some(json)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ProcessorError::Unreadable {
            file: file.to_owned(),
            source,
        }),
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    json: &[u8],
    ranges: &[Range],
    file: &Path,
) -> Result<T, ProcessorError> {
    checkpoint_file::parse(json, ranges).map_err(|reason| ProcessorError::Malformed {
        file: file.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Result<ImageSettings, ProcessorError> {
        let file = Path::new(FILE);
        parse::<Raw>(json.as_bytes(), &RANGES, file)?.resolve(file)
    }

    #[test]
    fn an_empty_file_means_the_published_values() {
        let settings = settings("{}").unwrap();
        assert_eq!(settings, ImageSettings::published());
        assert_eq!(settings.side, 768);
        assert_eq!(settings.rescale_factor, 0.003_921_568_627_450_98);
        assert_eq!(settings.mean, IMAGENET_MEAN);
        assert_eq!(settings.std, IMAGENET_STD);
        assert_eq!(settings.image_seq_length, 577);
    }

    #[test]
    fn every_spelling_of_a_size_is_read() {
        for size in [
            "96",
            r#"{"height": 96, "width": 96}"#,
            r#"{"shortest_edge": 96}"#,
        ] {
            assert_eq!(
                settings(&format!(r#"{{"size": {size}}}"#)).unwrap().side,
                96
            );
        }
    }

    #[test]
    fn switches_that_are_off_leave_the_bytes_alone() {
        let settings = settings(r#"{"do_rescale": false, "do_normalize": false}"#).unwrap();
        assert_eq!(settings.rescale_factor, 1.0);
        assert_eq!((settings.mean, settings.std), ([0.0; 3], [1.0; 3]));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        for (json, name) in [
            (r#"{"size": {"height": 768, "width": 512}}"#, "size"),
            (r#"{"size": 0}"#, "size"),
            (r#"{"size": 4097}"#, "size"),
            (r#"{"do_resize": false}"#, "do_resize"),
            (
                r#"{"do_center_crop": true, "crop_size": 224}"#,
                "do_center_crop",
            ),
            (r#"{"resample": 2}"#, "resample"),
            (r#"{"resample": "lanczos"}"#, "resample"),
            (r#"{"image_std": [0.2, 0, 0.2]}"#, "image_std"),
        ] {
            let error = settings(json).unwrap_err().to_string();
            assert!(
                error.contains(FILE) && error.contains(name),
                "{json}: {error}"
            );
        }
        for json in ["", "[]", r#"{"size": "big"}"#, r#"{"image_mean": [0.5]}"#] {
            let error = settings(json).unwrap_err();
            assert!(
                matches!(error, ProcessorError::Malformed { .. }),
                "{json}: {error}"
            );
        }
    }

    #[test]
    fn nested_settings_win_over_the_file_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let side = || ImageSettings::load(folder.path()).unwrap().side;
        let write = |name: &str, json: &str| std::fs::write(folder.path().join(name), json);
        assert_eq!(side(), 768);
        write(
            COMBINED_FILE,
            r#"{"processor_class": "Florence2Processor"}"#,
        )
        .unwrap();
        assert_eq!(side(), 768);
        write(FILE, r#"{"size": 96}"#).unwrap();
        assert_eq!(side(), 96);
        write(COMBINED_FILE, r#"{"image_processor": {"size": 64}}"#).unwrap();
        assert_eq!(side(), 64);
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(side(), 64);
    }
}
