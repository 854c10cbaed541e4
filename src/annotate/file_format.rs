//! Pixels → the bytes of a picture file, in one of the formats that are written.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageResult, RgbImage};

/// Quality of JPEG files, from 1 to 100: thin lines and letters stay clean.
const JPEG_QUALITY: u8 = 90;

/// A format in which pictures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Lossless.
    Png,
    /// Lossy.
    Jpeg,
    /// Lossless WebP.
    WebP,
}

impl FileFormat {
    /// The endings that stand for a format, for messages.
    pub const ENDINGS: &str = ".png, .jpg, .jpeg or .webp";

    /// The format of a file name's ending, given without its dot in any case.
    #[must_use]
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The usual ending, without its dot.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    /// What stands in `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The picture as a file of this format.
    pub(super) fn encode(self, picture: &RgbImage) -> ImageResult<Vec<u8>> {
        let mut bytes = Vec::new();
        let (width, height) = picture.dimensions();
        match self {
            // Measured on photographs: choosing the filter row by row takes 2.5 times as long and saves nothing.
            Self::Png => {
                PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Paeth)
                    .write_image(picture, width, height, ExtendedColorType::Rgb8)
            }
            Self::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(
                picture,
                width,
                height,
                ExtendedColorType::Rgb8,
            ),
            Self::WebP => WebPEncoder::new_lossless(&mut bytes).write_image(
                picture,
                width,
                height,
                ExtendedColorType::Rgb8,
            ),
        }?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use image::{GenericImageView, ImageFormat, Rgb};

    use super::*;

    #[test]
    fn every_format_is_written_as_what_its_ending_says() {
        let picture = RgbImage::from_pixel(40, 30, Rgb([200, 100, 50]));
        for (ending, format, written) in [
            ("png", FileFormat::Png, ImageFormat::Png),
            ("JPG", FileFormat::Jpeg, ImageFormat::Jpeg),
            ("jpeg", FileFormat::Jpeg, ImageFormat::Jpeg),
            ("webp", FileFormat::WebP, ImageFormat::WebP),
        ] {
            assert_eq!(FileFormat::of_ending(ending), Some(format));
            let bytes = format.encode(&picture).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), written);
            let read = image::load_from_memory(&bytes).unwrap();
            assert_eq!(read.dimensions(), (40, 30));
            assert_eq!(FileFormat::of_ending(format.ending()), Some(format));
        }
        for ending in ["", "gif", "tiff", "png ", "txt"] {
            assert_eq!(FileFormat::of_ending(ending), None, "{ending:?}");
        }
    }
}
