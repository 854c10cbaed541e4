//! From foreign bytes to an upright 8-bit RGB picture.
//!
//! The order is the defence: sniff the format, leave the metadata out ([`super::metadata`]), read the
//! header, compare the size with the limits, and only then allocate and decode. Formats: PNG, JPEG
//! ([`super::jpeg`]), WebP, GIF, BMP; every further decoder is attack surface with a history. Of animations the first frame counts.
//!
//! Pixels are those of Pillow's `convert("RGB")`, because the reference processor sees
//! pictures through it: alpha is dropped and not blended, grey is repeated, 16 bits a channel become
//! their high byte. 16-bit grey without alpha is the exception: Pillow opens it as `I;16` and
//! *clips* at 255, so such a picture comes out almost white, and does so here.
//!
//! Known difference: the part of a GIF's screen that its first frame leaves uncovered is black
//! here and takes the transparent or background colour there.
//!
//! Unlike the reference, which leaves it to the caller, the orientation in the metadata is always applied.

use std::io::{BufRead, Cursor, Seek};

use image::{
    DynamicImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use super::jpeg::JpegError;
use super::metadata::{WithoutMetadata, orientation};
use super::{PictureError, jpeg};
use crate::config::DecodeSettings;

/// File endings of the supported formats, as callers are told.
pub const SUPPORTED_FORMATS: [&str; 6] = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"];

/// Most bytes that a pixel of a buffer beside the output takes: the frame of an animation, RGBA.
const FRAME_BYTES_PER_PIXEL: u64 = 4;

/// Most scans of a JPEG: encoders make about ten, and each may cost as much time as a whole picture.
const MAX_JPEG_SCANS: u32 = 100;

/// Room for a decoder's tables and rows, in bytes.
const DECODER_WORK_BYTES: u64 = 64 << 20;

/// Unpacks a picture file.
///
/// # Errors
/// See [`PictureError`].
pub fn decode(bytes: &[u8], settings: &DecodeSettings) -> Result<RgbImage, PictureError> {
    let format = sniff(bytes)?;
    let pixels = match format {
        ImageFormat::Jpeg => decode_jpeg(bytes, settings)?,
        ImageFormat::Png => to_rgb(unpack(WithoutMetadata::new(bytes), format, settings)?),
        // Their decoders pass metadata over, and jump to and fro in the file.
        _ => to_rgb(unpack(Cursor::new(bytes), format, settings)?),
    };
    let mut upright = DynamicImage::ImageRgb8(pixels);
    upright.apply_orientation(orientation(format, bytes));
    Ok(upright.into_rgb8())
}

fn decode_jpeg(bytes: &[u8], settings: &DecodeSettings) -> Result<RgbImage, PictureError> {
    let limits = jpeg::Limits {
        max_pixels: settings.max_pixels,
        max_side: settings.max_side,
        max_scans: MAX_JPEG_SCANS,
    };
    let picture = jpeg::decode(bytes, &limits).map_err(|error| match error {
        JpegError::TooLarge { width, height } => too_large(width, height, settings),
        other => PictureError::Jpeg(other),
    })?;
    RgbImage::from_raw(picture.width, picture.height, picture.rgb)
        .ok_or_else(|| PictureError::Internal("a JPEG with fewer pixels than it says".into()))
}

fn unpack(
    file: impl BufRead + Seek,
    format: ImageFormat,
    settings: &DecodeSettings,
) -> Result<DynamicImage, PictureError> {
    let mut reader = ImageReader::with_format(file, format);
    // The limits are set before the header is read: some decoders allocate while reading it. The
    // sides are checked below, where the answer can name them.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(
        settings
            .max_pixels
            .saturating_mul(FRAME_BYTES_PER_PIXEL)
            .saturating_add(DECODER_WORK_BYTES),
    );
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, settings)?;
    DynamicImage::from_decoder(decoder).map_err(unreadable)
}

fn sniff(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match image::guess_format(bytes) {
        Ok(format @ (Png | Jpeg | WebP | Gif | Bmp)) => Ok(format),
        Ok(_) => Err(PictureError::UnsupportedFormat),
        Err(_) if is_known_otherwise(bytes) => Err(PictureError::UnsupportedFormat),
        Err(_) => Err(PictureError::Load("no known picture format".into())),
    }
}

/// Files that people send as pictures and that the image library has no name for.
fn is_known_otherwise(bytes: &[u8]) -> bool {
    /// HEIC, video and the like: a box length, then this.
    const ISO_MEDIA: &[u8] = b"ftyp";
    const STARTS: [&[u8]; 6] = [
        b"\xff\x0a",       // JPEG XL
        b"\0\0\0\x0cJXL ", // JPEG XL in a container
        b"\0\0\0\x0cjP  ", // JPEG 2000
        b"8BPS",           // Photoshop
        b"%PDF-",
        b"<svg",
    ];
    bytes.get(4..8) == Some(ISO_MEDIA) || STARTS.iter().any(|start| bytes.starts_with(start))
}

fn check_size(width: u32, height: u32, settings: &DecodeSettings) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > settings.max_side || pixels > settings.max_pixels {
        return Err(too_large(width, height, settings));
    }
    if pixels == 0 {
        return Err(PictureError::Load("a side of zero pixels".into()));
    }
    Ok(())
}

fn too_large(width: u32, height: u32, settings: &DecodeSettings) -> PictureError {
    PictureError::TooLarge {
        width,
        height,
        max_side: settings.max_side,
        max_pixels: settings.max_pixels,
    }
}

fn unreadable(error: ImageError) -> PictureError {
    match error {
        ImageError::Unsupported(_) => PictureError::UnsupportedFormat,
        other => PictureError::Load(other.to_string()),
    }
}

/// Pillow's `convert("RGB")`.
fn to_rgb(picture: DynamicImage) -> RgbImage {
    match picture {
        DynamicImage::ImageLuma16(grey) => {
            let clipped = grey
                .iter()
                .map(|value| u8::try_from(*value).unwrap_or(u8::MAX))
                .collect();
            GrayImage::from_raw(grey.width(), grey.height(), clipped)
                .map(|grey| DynamicImage::ImageLuma8(grey).into_rgb8())
                .unwrap_or_default()
        }
        DynamicImage::ImageLumaA16(picture) => rgb_of(&picture, |pixel| [high_byte(pixel.0[0]); 3]),
        DynamicImage::ImageRgb16(picture) => rgb_of(&picture, |pixel| pixel.0.map(high_byte)),
        DynamicImage::ImageRgba16(picture) => rgb_of(&picture, |pixel| {
            let [red, green, blue, _] = pixel.0;
            [red, green, blue].map(high_byte)
        }),
        // For 8-bit pictures the library drops alpha and repeats grey as Pillow does.
        eight_bit => eight_bit.into_rgb8(),
    }
}

fn rgb_of<P: image::Pixel<Subpixel = u16>>(
    picture: &image::ImageBuffer<P, Vec<u16>>,
    convert: impl Fn(&P) -> [u8; 3],
) -> RgbImage {
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    for (to, from) in rgb.pixels_mut().zip(picture.pixels()) {
        to.0 = convert(from);
    }
    rgb
}

fn high_byte(value: u16) -> u8 {
    value.to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_become_eight_as_in_pillow() {
        // Values and results measured with Pillow 13.
        let values = [0_u16, 1, 127, 255, 256, 257, 1000, 32_768, 65_535];
        let clipped = [0_u8, 1, 127, 255, 255, 255, 255, 255, 255];
        let high = [0_u8, 0, 0, 0, 1, 1, 3, 128, 255];
        for (index, value) in values.into_iter().enumerate() {
            let grey = image::ImageBuffer::from_pixel(1, 1, image::Luma([value]));
            let grey_alpha = image::ImageBuffer::from_pixel(1, 1, image::LumaA([value, 9]));
            let rgb = image::ImageBuffer::from_pixel(1, 1, image::Rgb([value; 3]));
            let rgba = image::ImageBuffer::from_pixel(1, 1, image::Rgba([value, value, value, 9]));
            let of = |picture| to_rgb(picture).get_pixel(0, 0).0;
            assert_eq!(of(DynamicImage::ImageLuma16(grey)), [clipped[index]; 3]);
            assert_eq!(of(DynamicImage::ImageLumaA16(grey_alpha)), [high[index]; 3]);
            assert_eq!(of(DynamicImage::ImageRgb16(rgb)), [high[index]; 3]);
            assert_eq!(of(DynamicImage::ImageRgba16(rgba)), [high[index]; 3]);
        }
    }

    #[test]
    fn sizes_are_checked_at_the_limit_and_one_past_it() {
        let settings = DecodeSettings {
            max_pixels: 100,
            max_side: 20,
            decode_slots: 1,
        };
        assert!(check_size(10, 10, &settings).is_ok());
        assert!(check_size(20, 5, &settings).is_ok());
        for (width, height) in [(10, 11), (21, 1), (1, 21), (u32::MAX, u32::MAX)] {
            assert!(matches!(
                check_size(width, height, &settings),
                Err(PictureError::TooLarge { .. })
            ));
        }
        assert!(matches!(
            check_size(0, 5, &settings),
            Err(PictureError::Load(_))
        ));
    }
}
