//! Metadata of picture files: which way a picture is held, and nothing else.
//!
//! The orientation is read as Pillow 13 reads it (`Image.getexif`): from the EXIF block, and where that
//! has none, from the first `tiff:Orientation` in XMP. Files are walked by the lengths that they
//! state, each of which is compared with the bytes there; nothing is copied, and at most one packed text of a PNG
//! is unpacked, up to a bound. A picture with broken metadata is still a picture.
//!
//! Colour profiles, texts, thumbnails and comments say nothing that is used here, and decoders pay
//! for them before the first pixel. So the PNG decoder gets its file without them ([`WithoutMetadata`]).

mod blocks;
mod exif;
mod png;

use std::borrow::Cow;

use image::ImageFormat;
use image::metadata::Orientation;

pub(super) use png::WithoutMetadata;

/// What a picture file says about the way it is held.
#[derive(Debug, Default, PartialEq, Eq)]
struct Blocks<'a> {
    /// EXIF, with or without the prefix of a JPEG segment.
    exif: Option<Cow<'a, [u8]>>,
    /// XMP, an XML text.
    xmp: Option<Cow<'a, [u8]>>,
}

/// The change that makes a picture upright.
pub(super) fn orientation(format: ImageFormat, bytes: &[u8]) -> Orientation {
    let blocks = match format {
        ImageFormat::Png => png::blocks(bytes),
        ImageFormat::Jpeg => blocks::of_jpeg(bytes),
        ImageFormat::WebP => blocks::of_webp(bytes),
        _ => Blocks::default(),
    };
    let from_exif = blocks.exif.as_deref().and_then(exif::orientation);
    let from_xmp = || blocks.xmp.as_deref().and_then(xmp_orientation);
    // A value that means nothing in EXIF is still a value: XMP is not asked then.
    from_exif
        .or_else(from_xmp)
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// The digit behind the first `tiff:Orientation`, be it an attribute or an element.
fn xmp_orientation(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let is_name = |(_, window): &(usize, &[u8])| *window == NAME;
    let mut names = xmp.windows(NAME.len()).enumerate().filter(is_name);
    names.find_map(|(at, _)| {
        let rest = xmp.get(at + NAME.len()..)?;
        let value = rest
            .strip_prefix(b"=\"")
            .or_else(|| rest.strip_prefix(b">"))?;
        let digit = value.first().filter(|digit| digit.is_ascii_digit())?;
        Some(u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_tells_the_orientation_as_attribute_or_element() {
        for (xmp, expected) in [
            (&b"<a tiff:Orientation=\"6\" b=\"8\">"[..], Some(6)),
            (b"<tiff:Orientation>8</tiff:Orientation>", Some(8)),
            (b"tiff:Orientation='6' tiff:Orientation=\"3\"", Some(3)),
            (b"tiff:Orientation=\"x\" <tiff:Orientation>2<", Some(2)),
            (b"tiff:Orientation=\"12\"", Some(1)),
            (b"tiff:Orientation", None),
            (b"tiff:Orientation=\"", None),
            (b"exif:Orientation=\"6\"", None),
            (b"", None),
        ] {
            assert_eq!(xmp_orientation(xmp), expected, "{}", xmp.escape_ascii());
        }
    }
}
