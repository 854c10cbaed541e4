//! Small pictures, as files in memory and as `data:` URIs.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

/// A picture file of one colour.
pub(crate) fn file(width: u32, height: u32, colour: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_pixel(width, height, Rgb(colour));
    encode(&DynamicImage::ImageRgb8(picture), format)
}

/// Any picture as a file.
pub(crate) fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A grey PNG.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    file(width, height, [128; 3], ImageFormat::Png)
}

/// A file as a `data:` URI.
pub(crate) fn data_uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

/// A grey PNG as a `data:` URI.
pub(crate) fn grey(width: u32, height: u32) -> String {
    data_uri(&png(width, height))
}

/// Input that every endpoint accepts: all fields, of which each takes what it knows.
pub(crate) fn input() -> Value {
    json!({
        "image_url": grey(100, 50),
        "text_input": "a green car",
        "region": {"x1": 1, "y1": 2, "x2": 300, "y2": 400},
    })
}

/// Minimal PNG writer for what the image library does not write: any bit depth and colour type.
pub(crate) fn raw_png(
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
    parts: &[(&[u8; 4], &[u8])],
) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[depth, colour, 0, 0, 0],
    ]
    .concat();
    png_chunk(&mut file, b"IHDR", &header);
    for (name, data) in parts {
        png_chunk(&mut file, name, data);
    }
    png_chunk(&mut file, b"IEND", &[]);
    file
}

fn png_chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    let begin = file.len();
    file.extend(name);
    file.extend(data);
    let sum = crc32(&file[begin..]);
    file.extend(sum.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
        }
    }
    !sum
}

/// A zlib stream that stores its bytes uncompressed.
pub(crate) fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut chunks = data.chunks(0xffff).peekable();
    while let Some(chunk) = chunks.next() {
        stream.push(u8::from(chunks.peek().is_none()));
        let length = u16::try_from(chunk.len()).unwrap();
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(chunk);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in data {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    stream.extend((high << 16 | low).to_be_bytes());
    stream
}
