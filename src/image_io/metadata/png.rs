//! PNG files in chunks: what the decoder needs, and what tells the orientation.
//!
//! The decoder would inflate profiles and copy texts before the first pixel, so it gets its file
//! without them. Of the texts one at most is inflated here, up to the bound that Pillow sets.
//!
//! A file that is broken is passed on from the break as it is, so that the decoder says what is wrong.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use super::Blocks;

const SIGNATURE_BYTES: usize = 8;

/// Length, kind and checksum of a chunk.
const CHUNK_FRAME_BYTES: usize = 12;

/// Most bytes that a packed text is inflated to, as in Pillow (MAX_TEXT_CHUNK).
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Key of the text that holds XMP.
const XMP_KEY: &[u8] = b"XML:com.adobe.xmp";

/// Key of the text in which ImageMagick keeps EXIF, as hexadecimal digits.
const EXIF_PROFILE_KEY: &[u8] = b"Raw profile type exif";

/// A piece of a file.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// The decoder needs it.
    Needed(&'a [u8]),
    /// An EXIF block.
    Exif(&'a [u8]),
    /// A text chunk.
    Text { kind: &'a [u8], data: &'a [u8] },
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
    Signature,
    Chunk,
    /// All that follows is one piece.
    Rest,
}

impl<'a> Parts<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            at: At::Signature,
            rest: bytes,
        }
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
            At::Signature => {
                self.at = At::Chunk;
                self.take(SIGNATURE_BYTES).map(Part::Needed)
            }
            At::Chunk => self.chunk(),
            At::Rest => None,
        }
    }

    fn chunk(&mut self) -> Option<Part<'a>> {
        let length = u32::from_be_bytes(*self.rest.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let chunk = self.take(length.checked_add(CHUNK_FRAME_BYTES)?)?;
        let kind = chunk.get(4..8)?;
        let data = chunk.get(8..8 + length)?;
        let is_ancillary = kind.first()?.is_ascii_lowercase();
        Some(match kind {
            b"eXIf" => Part::Exif(data),
            b"tEXt" | b"zTXt" | b"iTXt" => Part::Text { kind, data },
            b"tRNS" => Part::Needed(chunk),
            _ if is_ancillary => Part::Other,
            b"IEND" => {
                self.rest = &[];
                Part::Needed(chunk)
            }
            _ => Part::Needed(chunk),
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

/// The first EXIF chunk, or else EXIF from the last text that holds it, and the last XMP.
pub(super) fn blocks(bytes: &[u8]) -> Blocks<'_> {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    for part in Parts::new(bytes) {
        match part {
            Part::Exif(block) => exif = exif.or(Some(Cow::Borrowed(block))),
            Part::Text { kind, data } => {
                if let Some(text) = after_key(data, XMP_KEY) {
                    xmp = Some((kind, text));
                } else if let Some(text) = after_key(data, EXIF_PROFILE_KEY) {
                    profile = Some((kind, text));
                }
            }
            Part::Needed(_) | Part::Other => {}
        }
    }
    let unpacked = |(kind, text)| text_of(kind, text);
    // Packed texts are unpacked now, when it is known which ones count.
    let from_profile = || exif_of_profile(&profile.and_then(unpacked)?).map(Cow::Owned);
    Blocks {
        exif: exif.or_else(from_profile),
        xmp: xmp.and_then(unpacked),
    }
}

/// What follows a key and its zero byte.
fn after_key<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    data.strip_prefix(key)?.strip_prefix(b"\0")
}

/// The text of a chunk, from what follows its key.
fn text_of<'a>(kind: &[u8], data: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match kind {
        b"tEXt" => Some(Cow::Borrowed(data)),
        b"zTXt" => inflated(data.strip_prefix(b"\0")?),
        _ => {
            let ([is_packed, method], rest) = data.split_first_chunk()?;
            // A language, and the key in it.
            let mut parts = rest.splitn(3, |byte| *byte == 0).skip(2);
            match (is_packed, method, parts.next()?) {
                (0, _, text) => Some(Cow::Borrowed(text)),
                (_, 0, text) => inflated(text),
                _ => None,
            }
        }
    }
}

/// A packed text, or nothing where it is longer than the bound or damaged.
fn inflated(packed: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut text = Vec::new();
    let mut unpacker = ZlibDecoder::new(packed).take(MAX_TEXT_BYTES + 1);
    unpacker.read_to_end(&mut text).ok()?;
    (text.len() as u64 <= MAX_TEXT_BYTES).then_some(Cow::Owned(text))
}

/// EXIF from hexadecimal digits, which begin behind three ends of lines: an empty line, a name and
/// a length.
fn exif_of_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |byte| *byte == b'\n').nth(3)?;
    let mut values = digits
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| char::from(*byte).to_digit(16));
    let mut block = Vec::with_capacity(digits.len() / 2);
    while let Some(high) = values.next() {
        block.push(u8::try_from(high? << 4 | values.next()??).ok()?);
    }
    Some(block)
}

/// A file as the decoder gets it: without metadata.
pub(in super::super) struct WithoutMetadata<'a> {
    parts: Parts<'a>,
    current: &'a [u8],
}

impl<'a> WithoutMetadata<'a> {
    /// The file from its beginning.
    pub(in super::super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            parts: Parts::new(bytes),
            current: &[],
        }
    }
}

fn needed(part: Part<'_>) -> Option<&[u8]> {
    match part {
        Part::Needed(bytes) => Some(bytes),
        Part::Exif(_) | Part::Text { .. } | Part::Other => None,
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
}

/// The decoder asks for it and never uses it.
impl Seek for WithoutMetadata<'_> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], kind, data, b"crc."].concat()
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn passed_on(file: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        WithoutMetadata::new(file).read_to_end(&mut whole).unwrap();
        let mut bytewise = Vec::new();
        for byte in WithoutMetadata::new(file).bytes() {
            bytewise.push(byte.unwrap());
        }
        assert_eq!(whole, bytewise);
        whole
    }

    #[test]
    fn png_keeps_what_makes_the_picture() {
        let kept = ["IHDR", "PLTE", "tRNS", "IDAT", "IDAT", "CgBI", "IEND"];
        let dropped = [
            "iCCP", "zTXt", "iTXt", "tEXt", "eXIf", "acTL", "fdAT", "gAMA",
        ];
        let (mut file, mut expected) = (SIGNATURE.to_vec(), SIGNATURE.to_vec());
        for (index, kind) in kept.iter().enumerate() {
            let made = chunk(kind.as_bytes().try_into().unwrap(), b"kept");
            if *kind == "IEND" {
                file.extend(chunk(b"eXIf", b"MM*"));
            }
            file.extend(&made);
            expected.extend(&made);
            if let Some(kind) = dropped.get(index).filter(|_| *kind != "IEND") {
                file.extend(chunk(kind.as_bytes().try_into().unwrap(), b"II*"));
            }
        }
        file.extend(b"after the end");
        assert_eq!(passed_on(&file), expected);
        assert_eq!(blocks(&file).exif.as_deref(), Some(&b"II*"[..]));
    }

    #[test]
    fn xmp_is_read_from_every_kind_of_text() {
        let xmp = |chunks: &[Vec<u8>]| {
            let file = [SIGNATURE, &chunks.concat(), &chunk(b"IEND", b"")].concat();
            blocks(&file).xmp.map(Cow::into_owned)
        };
        let with_key = |rest: &[u8]| [XMP_KEY, b"\0", rest].concat();
        let plain = chunk(b"iTXt", &with_key(b"\0\0en\0key\0one\0two"));
        let small = chunk(
            b"iTXt",
            &with_key(&[b"\x01\0\0\0", &packed(b"three")[..]].concat()),
        );
        let compressed = chunk(b"zTXt", &with_key(&[b"\0", &packed(b"four")[..]].concat()));
        let alone = std::slice::from_ref(&plain);
        assert_eq!(xmp(alone), Some(b"one\0two".to_vec()));
        assert_eq!(xmp(&[plain.clone(), small]), Some(b"three".to_vec()));
        assert_eq!(xmp(&[plain, compressed]), Some(b"four".to_vec()));
        let text = chunk(b"tEXt", &with_key(b"five"));
        assert_eq!(xmp(&[text]), Some(b"five".to_vec()));
        for broken in [
            &b"\0"[..],
            b"\0\0en",
            b"\x01\0\0\0no zlib",
            b"\x01\x01\0\0x",
        ] {
            assert_eq!(xmp(&[chunk(b"iTXt", &with_key(broken))]), None);
        }
        let bomb = packed(&vec![b' '; 2 << 20]);
        let bomb = chunk(b"zTXt", &with_key(&[b"\0", &bomb[..]].concat()));
        assert_eq!(xmp(&[bomb]), None, "longer than the bound");
    }

    #[test]
    fn exif_is_read_from_hexadecimal_digits_where_no_chunk_has_it() {
        let exif = |text: &[u8], more: &[u8]| {
            let data = [EXIF_PROFILE_KEY, b"\0\0", &packed(text)].concat();
            let file = [SIGNATURE, &chunk(b"zTXt", &data), more].concat();
            blocks(&file).exif.map(Cow::into_owned)
        };
        let digits = b"\nexif\n      10\n4578\n69660000\n49492a00\n";
        assert_eq!(exif(digits, b""), Some(b"Exif\0\0II*\0".to_vec()));
        assert_eq!(exif(digits, &chunk(b"eXIf", b"MM")), Some(b"MM".to_vec()));
        for broken in [&b"\nexif\n"[..], b"\nexif\n1\n4", b"\nexif\n1\n4g"] {
            assert_eq!(exif(broken, b""), None);
        }
    }

    #[test]
    fn a_broken_file_is_passed_on_from_the_break() {
        let png = [SIGNATURE, &chunk(b"IHDR", b"x")].concat();
        for broken in [&b"\0\0\0\x05iCCPab"[..], b"\xff\xff\xff\xffIDAT", b"\0\0"] {
            let file = [&png, broken].concat();
            assert_eq!(passed_on(&file), file);
        }
        assert_eq!(passed_on(b""), b"");
    }
}
