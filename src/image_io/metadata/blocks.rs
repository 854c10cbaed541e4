//! Where EXIF and XMP stand in JPEG and WebP files.

use std::borrow::Cow;

use super::{Blocks, exif};

/// What precedes XMP in an APP1 segment that holds it.
const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// The start of a WebP file, up to the first chunk.
const WEBP_HEADER_BYTES: usize = 12;

/// The flag of an extended WebP header that announces XMP.
const WEBP_HAS_XMP: u8 = 0x04;

/// The first EXIF segment of a JPEG and the last of XMP, as far as they stand before the first scan.
pub(super) fn of_jpeg(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some((marker, segment, after)) = jpeg_segment(rest) {
        // The scans. Metadata behind the first one is not searched for.
        if marker == 0xda {
            break;
        }
        if marker == 0xe1 && segment.starts_with(exif::PREFIX) {
            blocks.exif.get_or_insert(Cow::Borrowed(segment));
        } else if let (0xe1, Some(xmp)) = (marker, segment.strip_prefix(XMP_PREFIX)) {
            blocks.xmp = Some(Cow::Borrowed(xmp));
        }
        rest = after;
    }
    blocks
}

/// The next marker with what its segment holds, and what follows them.
fn jpeg_segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    // Between segments anything may stand that is no marker, as decoders have it.
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff);
    let begin = bytes.windows(2).position(is_marker)?;
    let marker = *bytes.get(begin + 1)?;
    let rest = bytes.get(begin + 2..)?;
    // Markers without a segment.
    if matches!(marker, 0x01 | 0xd0..=0xd9) {
        return Some((marker, &[], rest));
    }
    let length = u16::from_be_bytes(*rest.first_chunk()?);
    let (segment, after) = rest.split_at_checked(usize::from(length.max(2)))?;
    Some((marker, segment.get(2..)?, after))
}

/// The first EXIF chunk of a WebP and the first of XMP.
pub(super) fn of_webp(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut rest = bytes.get(WEBP_HEADER_BYTES..).unwrap_or_default();
    // Only the extended form has metadata.
    if !rest.starts_with(b"VP8X") {
        return blocks;
    }
    // libwebp looks for XMP only where the header announces it.
    let has_xmp = rest.get(8).is_some_and(|flags| flags & WEBP_HAS_XMP != 0);
    while let Some((kind, chunk, after)) = webp_chunk(rest) {
        if kind == b"EXIF" {
            blocks.exif.get_or_insert(Cow::Borrowed(chunk));
        } else if kind == b"XMP " && has_xmp {
            blocks.xmp.get_or_insert(Cow::Borrowed(chunk));
        }
        rest = after;
    }
    blocks
}

/// The next chunk with its kind, and what follows it.
fn webp_chunk(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (kind, after) = bytes.split_at_checked(4)?;
    let length = u32::from_le_bytes(*after.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    let (chunk, after) = after.get(4..)?.split_at_checked(length)?;
    // Chunks of odd length are filled up; at the end of the file that may be missing.
    Some((kind, chunk, after.get(length % 2..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg_segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker], &length[..], data].concat()
    }

    fn found<'a>(blocks: &'a Blocks<'_>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        (blocks.exif.as_deref(), blocks.xmp.as_deref())
    }

    #[test]
    fn jpeg_has_the_first_exif_and_the_last_xmp_before_its_scans() {
        let mut file = b"\xff\xd8".to_vec();
        for segment in [
            jpeg_segment(0xe1, b"http://ns.adobe.com/xmp/extension/\0"),
            jpeg_segment(0xe1, b"Exif\0\0first"),
            jpeg_segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0one"),
            jpeg_segment(0xe1, b"Exif\0\0second"),
            // Filling, and a byte that has no business here, before the next marker.
            b"\0\xff\0\xff".to_vec(),
            jpeg_segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0two"),
            b"\xff\xda\0\x08scan".to_vec(),
            jpeg_segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0late"),
        ] {
            file.extend(segment);
        }
        let expected = (Some(&b"Exif\0\0first"[..]), Some(&b"two"[..]));
        assert_eq!(found(&of_jpeg(&file)), expected);
        for end in 0..file.len() {
            of_jpeg(&file[..end]);
        }
        assert_eq!(of_jpeg(b"\xff\xd8\xff\xe1\0\0Exif"), Blocks::default());
    }

    #[test]
    fn webp_metadata_is_found_where_its_length_is_true() {
        let file = |flags: u8, kind: &[u8], length: u8| {
            let header = [&b"VP8X\x03\0\0\0"[..], &[flags], b"bc\0"].concat();
            let chunk = [kind, &[length, 0, 0, 0], b"MM*!"].concat();
            [&b"RIFF....WEBP"[..], &header, &chunk].concat()
        };
        let data = Some(&b"MM*!"[..]);
        assert_eq!(found(&of_webp(&file(b'a', b"EXIF", 4))), (data, None));
        assert_eq!(found(&of_webp(&file(b'a', b"EXIF", 5))), (None, None));
        assert_eq!(found(&of_webp(&file(0x04, b"XMP ", 4))), (None, data));
        assert_eq!(found(&of_webp(&file(0x08, b"XMP ", 4))), (None, None));
    }
}
