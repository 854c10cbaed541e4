//! Metadata of picture files: the EXIF block is found, and the rest is kept from the decoders.
//!
//! Colour profiles, texts, XMP, thumbnails and comments say nothing that is used here, and decoders
//! pay for them before the first pixel: they inflate profiles, copy texts, and put extended XMP
//! together again after every segment. So they never see any. Nothing is unpacked or copied here;
//! files are walked by the lengths that they state, each of which is compared with the bytes there.
//!
//! A file that is broken is passed on from the break as it is, so that the decoder says what is wrong.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use image::ImageFormat;

const PNG_SIGNATURE_BYTES: usize = 8;

/// Length, kind and checksum of a PNG chunk.
const PNG_CHUNK_FRAME_BYTES: usize = 12;

/// The start of a WebP file, up to the first chunk.
const WEBP_HEADER_BYTES: usize = 12;

/// What precedes the block in an APP1 segment that holds one.
const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// The EXIF block of a file, from its TIFF header on. Where there are several the first counts.
pub(super) fn exif(format: ImageFormat, bytes: &[u8]) -> Option<&[u8]> {
    match format {
        ImageFormat::Png | ImageFormat::Jpeg => {
            let mut parts = Parts::of(format, bytes);
            parts.find_map(|part| match part {
                Part::Exif(block) => Some(block),
                Part::Needed(_) | Part::Other => None,
            })
        }
        ImageFormat::WebP => webp_exif(bytes),
        _ => None,
    }
}

/// A piece of a file.
enum Part<'a> {
    /// The decoder needs it.
    Needed(&'a [u8]),
    /// An EXIF block, from its TIFF header on.
    Exif(&'a [u8]),
    /// Nobody needs it.
    Other,
}

/// The pieces of a file in their order.
#[derive(Clone)]
struct Parts<'a> {
    at: At,
    rest: &'a [u8],
}

#[derive(Clone, Copy)]
enum At {
    PngSignature,
    PngChunk,
    JpegStart,
    JpegSegment,
    /// All that follows is one piece.
    Rest,
}

impl<'a> Parts<'a> {
    fn of(format: ImageFormat, bytes: &'a [u8]) -> Self {
        let at = match format {
            ImageFormat::Png => At::PngSignature,
            ImageFormat::Jpeg => At::JpegStart,
            _ => At::Rest,
        };
        Self { at, rest: bytes }
    }

    /// The next bytes, and what follows them.
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// A piece that begins here, if it is whole. Where it is not, everything that is left is a piece.
    fn step(&mut self) -> Option<Part<'a>> {
        match self.at {
            At::PngSignature => {
                self.at = At::PngChunk;
                self.take(PNG_SIGNATURE_BYTES).map(Part::Needed)
            }
            At::PngChunk => self.png_chunk(),
            At::JpegStart => {
                self.at = At::JpegSegment;
                self.take(2).map(Part::Needed)
            }
            At::JpegSegment => self.jpeg_segment(),
            At::Rest => None,
        }
    }

    fn png_chunk(&mut self) -> Option<Part<'a>> {
        let length = u32::from_be_bytes(*self.rest.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let chunk = self.take(length.checked_add(PNG_CHUNK_FRAME_BYTES)?)?;
        let kind = chunk.get(4..8)?;
        let is_ancillary = kind.first()?.is_ascii_lowercase();
        Some(match kind {
            b"eXIf" => Part::Exif(chunk.get(8..8 + length)?),
            b"tRNS" => Part::Needed(chunk),
            _ if is_ancillary => Part::Other,
            b"IEND" => {
                self.rest = &[];
                Part::Needed(chunk)
            }
            _ => Part::Needed(chunk),
        })
    }

    fn jpeg_segment(&mut self) -> Option<Part<'a>> {
        // Between segments anything may stand that is no marker, as decoders have it.
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff);
        let begin = self.rest.windows(2).position(is_marker)?;
        self.take(begin)?;
        let length = u16::from_be_bytes(*self.rest.get(2..)?.first_chunk()?);
        let marker = *self.rest.get(1)?;
        if marker == 0xda {
            // The scans. Metadata behind the first one is not searched for.
            self.at = At::Rest;
            return None;
        }
        let segment = self.take(2 + usize::from(length.max(2)))?;
        Some(match marker {
            // APP1, in which an EXIF block or XMP lies.
            0xe1 => match segment.get(4..)?.strip_prefix(EXIF_PREFIX) {
                Some(block) => Part::Exif(block),
                None => Part::Other,
            },
            // APP0 says that a file is a frame of a film, APP14 how its colours are coded.
            0xe0 | 0xee => Part::Needed(segment),
            // Further APP segments, and comments.
            0xe2..=0xef | 0xfe => Part::Other,
            _ => Part::Needed(segment),
        })
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(part) = self.step() {
            return Some(part);
        }
        self.at = At::Rest;
        let rest = std::mem::take(&mut self.rest);
        Some(Part::Needed(rest))
    }
}

fn webp_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(WEBP_HEADER_BYTES..)?;
    // Only the extended form has metadata.
    if !rest.starts_with(b"VP8X") {
        return None;
    }
    loop {
        let (kind, after) = rest.split_at_checked(4)?;
        let length = u32::from_le_bytes(*after.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let (block, after) = after.get(4..)?.split_at_checked(length)?;
        if kind == b"EXIF" {
            // Some writers put the prefix of a JPEG segment before it.
            return Some(block.strip_prefix(EXIF_PREFIX).unwrap_or(block));
        }
        rest = after.get(length % 2..)?;
    }
}

/// A file as the decoders get it: without metadata.
pub(super) struct WithoutMetadata<'a> {
    parts: Parts<'a>,
    current: &'a [u8],
}

impl<'a> WithoutMetadata<'a> {
    /// The file from its beginning.
    pub(super) fn new(format: ImageFormat, bytes: &'a [u8]) -> Self {
        Self {
            parts: Parts::of(format, bytes),
            current: &[],
        }
    }
}

fn needed(part: Part<'_>) -> Option<&[u8]> {
    match part {
        Part::Needed(bytes) => Some(bytes),
        Part::Exif(_) | Part::Other => None,
    }
}

impl BufRead for WithoutMetadata<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.parts.by_ref().find_map(needed) {
                Some(bytes) => self.current = bytes,
                None => break,
            }
        }
        Ok(self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current = self.current.get(amount..).unwrap_or_default();
    }
}

impl Read for WithoutMetadata<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        // Exactly as much memory as there is to read: growing step by step would take twice of it.
        let sizes = self.parts.clone().filter_map(needed).map(<[u8]>::len);
        let total = self.current.len() + sizes.sum::<usize>();
        buffer.try_reserve_exact(total)?;
        buffer.extend_from_slice(std::mem::take(&mut self.current));
        for bytes in self.parts.by_ref().filter_map(needed) {
            buffer.extend_from_slice(bytes);
        }
        Ok(total)
    }
}

/// The decoders of PNG and JPEG ask for it and never use it.
impl Seek for WithoutMetadata<'_> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, b"crc."].concat()
    }

    fn jpeg_segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker], &length[..], data].concat()
    }

    fn passed_on(format: ImageFormat, file: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        WithoutMetadata::new(format, file)
            .read_to_end(&mut whole)
            .unwrap();
        let mut bytewise = Vec::new();
        for byte in WithoutMetadata::new(format, file).bytes() {
            bytewise.push(byte.unwrap());
        }
        assert_eq!(whole, bytewise);
        whole
    }

    #[test]
    fn png_keeps_what_makes_the_picture() {
        let signature = b"\x89PNG\r\n\x1a\n".to_vec();
        let kept = ["IHDR", "PLTE", "tRNS", "IDAT", "IDAT", "CgBI", "IEND"];
        let dropped = [
            "iCCP", "zTXt", "iTXt", "tEXt", "eXIf", "acTL", "fdAT", "gAMA",
        ];
        let (mut file, mut expected) = (signature.clone(), signature);
        for (index, kind) in kept.iter().enumerate() {
            let chunk = png_chunk(kind.as_bytes().try_into().unwrap(), b"kept");
            if *kind == "IEND" {
                file.extend(png_chunk(b"eXIf", b"MM*"));
            }
            file.extend(&chunk);
            expected.extend(&chunk);
            if let Some(kind) = dropped.get(index).filter(|_| *kind != "IEND") {
                file.extend(png_chunk(kind.as_bytes().try_into().unwrap(), b"II*"));
            }
        }
        file.extend(b"after the end");
        assert_eq!(passed_on(ImageFormat::Png, &file), expected);
        assert_eq!(exif(ImageFormat::Png, &file), Some(&b"II*"[..]));
    }

    #[test]
    fn jpeg_keeps_what_makes_the_picture() {
        let tables = jpeg_segment(0xdb, b"table");
        let adobe = jpeg_segment(0xee, b"Adobe");
        let scans = b"\xff\xda\0\x08scan\xff\xe2\0\x04no\xff\xd9".to_vec();
        let mut file = b"\xff\xd8".to_vec();
        for metadata in [
            jpeg_segment(0xe1, b"http://ns.adobe.com/xmp/extension/\0"),
            jpeg_segment(0xe1, b"Exif\0\0first"),
            jpeg_segment(0xe1, b"Exif\0\0second"),
            jpeg_segment(0xe2, b"ICC_PROFILE\0"),
            jpeg_segment(0xfe, b"comment"),
            // Filling, and a byte that has no business here, before the next marker.
            b"\0\xff\0\xff".to_vec(),
        ] {
            file.extend(metadata);
        }
        file.extend([&tables[..], &adobe, &scans].concat());
        let expected = [&b"\xff\xd8"[..], &tables, &adobe, &scans].concat();
        assert_eq!(passed_on(ImageFormat::Jpeg, &file), expected);
        assert_eq!(exif(ImageFormat::Jpeg, &file), Some(&b"first"[..]));
    }

    #[test]
    fn webp_exif_is_found_where_its_length_is_true() {
        let file = |length: u8| {
            let chunks = [&b"VP8X\x03\0\0\0abc\0EXIF"[..], &[length, 0, 0, 0], b"MM*!"].concat();
            [&b"RIFF....WEBP"[..], &chunks].concat()
        };
        assert_eq!(exif(ImageFormat::WebP, &file(4)), Some(&b"MM*!"[..]));
        assert_eq!(exif(ImageFormat::WebP, &file(5)), None);
    }

    #[test]
    fn a_broken_file_is_passed_on_from_the_break() {
        let png = [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", b"x")].concat();
        for broken in [&b"\0\0\0\x05iCCPab"[..], b"\xff\xff\xff\xffIDAT", b"\0\0"] {
            let file = [&png, broken].concat();
            assert_eq!(passed_on(ImageFormat::Png, &file), file);
        }
        for broken in [&b"\xff\xe2\xff\xffab"[..], b"\xff\xe2\0", b"ab"] {
            let file = [&b"\xff\xd8"[..], broken].concat();
            assert_eq!(passed_on(ImageFormat::Jpeg, &file), file);
        }
        assert_eq!(passed_on(ImageFormat::Png, b""), b"");
    }
}
