//! Pictures whose orientation stands in XMP, or in EXIF where few programs look for it.
//!
//! What Pillow 13 turns is turned, and nothing else (`ImageOps.exif_transpose`).

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use florence2_server::config::DecodeSettings;
use florence2_server::image_io::decode::decode;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use crate::support::pictures::{encode, raw_png, stored};

const XMP: &[u8] = b"<x:xmpmeta><rdf:Description tiff:Orientation=\"6\"/></x:xmpmeta>";

/// Little-endian EXIF with this orientation, or with another tag where it is nothing.
fn exif(orientation: Option<u8>) -> Vec<u8> {
    let tag = if orientation.is_some() { 0x12 } else { 0x13 };
    let entry = [tag, 1, 3, 0, 1, 0, 0, 0, orientation.unwrap_or(6), 0, 0, 0];
    [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
}

fn jpeg(segments: &[Vec<u8>]) -> Vec<u8> {
    let picture = RgbImage::from_pixel(8, 4, Rgb([9; 3]));
    let file = encode(&DynamicImage::ImageRgb8(picture), ImageFormat::Jpeg);
    let mut made = file[..2].to_vec();
    for segment in segments {
        let length = u16::try_from(segment.len() + 2).unwrap().to_be_bytes();
        made.extend([&[0xff, 0xe1], &length[..], segment].concat());
    }
    made.extend(&file[2..]);
    made
}

fn png(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let rows = stored(&[0; 9 * 4]);
    let mut parts: Vec<(&[u8; 4], &[u8])> = vec![(b"IDAT", &rows)];
    // Behind the picture too.
    parts.extend(chunks.iter().map(|(kind, data)| (*kind, &data[..])));
    raw_png(8, 4, 8, 0, &parts)
}

fn webp(flags: u8, chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let picture = RgbImage::from_pixel(8, 4, Rgb([9; 3]));
    let file = encode(&DynamicImage::ImageRgb8(picture), ImageFormat::WebP);
    let header = [&[flags, 0, 0, 0][..], &[7, 0, 0], &[3, 0, 0]].concat();
    let mut body = b"WEBP".to_vec();
    let mut add = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        body.extend([kind, &length, data, &vec![0; data.len() % 2]].concat());
    };
    add(b"VP8X", &header);
    // The picture's own chunk, without its frame.
    let length = u32::from_le_bytes(file[16..20].try_into().unwrap());
    add(&file[12..16], &file[20..20 + length as usize]);
    for (kind, data) in chunks {
        add(*kind, data);
    }
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&b"RIFF"[..], &length, &body].concat()
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    packer.write_all(text).unwrap();
    packer.finish().unwrap()
}

#[track_caller]
fn assert_turned(file: &[u8], is_turned: bool) {
    let picture = decode(file, &DecodeSettings::default()).unwrap();
    let size = if is_turned { (4, 8) } else { (8, 4) };
    assert_eq!(picture.dimensions(), size);
}

#[test]
fn xmp_of_a_jpeg_turns_it_where_exif_says_nothing() {
    let xmp = |text: &[u8]| [&b"http://ns.adobe.com/xap/1.0/\0"[..], text].concat();
    let exif = |value| [&b"Exif\0\0"[..], &exif(value)].concat();
    assert_turned(&jpeg(&[xmp(XMP)]), true);
    assert_turned(&jpeg(&[xmp(XMP), exif(None)]), true);
    assert_turned(&jpeg(&[xmp(XMP), exif(Some(1))]), false);
    // A value that means nothing is still a value.
    assert_turned(&jpeg(&[xmp(XMP), exif(Some(9))]), false);
    assert_turned(
        &jpeg(&[xmp(b"<tiff:Orientation>8</tiff:Orientation>")]),
        true,
    );
    assert_turned(
        &jpeg(&[xmp(b"<tiff:Orientation>3</tiff:Orientation>")]),
        false,
    );
    assert_turned(&jpeg(&[xmp(XMP), xmp(b"none")]), false);
    assert_turned(&jpeg(&[XMP.to_vec()]), false);
}

#[test]
fn xmp_of_a_png_turns_it_where_exif_says_nothing() {
    let key = b"XML:com.adobe.xmp\0";
    let plain = [&key[..], b"\0\0\0\0", XMP].concat();
    let small = [&key[..], b"\x01\0\0\0", &packed(XMP)].concat();
    assert_turned(&png(&[(b"iTXt", plain.clone())]), true);
    assert_turned(&png(&[(b"iTXt", small)]), true);
    assert_turned(
        &png(&[(b"iTXt", plain.clone()), (b"eXIf", exif(None))]),
        true,
    );
    assert_turned(&png(&[(b"iTXt", plain), (b"eXIf", exif(Some(1)))]), false);
    assert_turned(
        &png(&[(b"iTXt", [b"Comment\0\0\0\0\0", XMP].concat())]),
        false,
    );
}

#[test]
fn exif_in_a_text_of_a_png_turns_it() {
    let block = [&b"Exif\0\0"[..], &exif(Some(6))].concat();
    let digits: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("\nexif\n{:8}\n{digits}\n", block.len());
    let chunk = [&b"Raw profile type exif\0\0"[..], &packed(text.as_bytes())].concat();
    assert_turned(&png(&[(b"zTXt", chunk.clone())]), true);
    assert_turned(&png(&[(b"zTXt", chunk), (b"eXIf", exif(Some(1)))]), false);
}

#[test]
fn xmp_of_a_webp_turns_it_where_its_header_announces_it() {
    assert_turned(&webp(0x04, &[(b"XMP ", XMP.to_vec())]), true);
    assert_turned(&webp(0, &[(b"XMP ", XMP.to_vec())]), false);
    let both = [(b"EXIF", exif(Some(1))), (b"XMP ", XMP.to_vec())];
    assert_turned(&webp(0x0c, &both), false);
}
