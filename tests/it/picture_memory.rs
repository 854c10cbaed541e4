//! Memory and time that hostile picture files cost, measured in a process of their own: by how much
//! the peak of its resident memory grew while one file was unpacked.
//!
//! The files are small pictures with much around them: what decoders inflate, copy or sort although
//! nobody asked. Linux tells the peak; elsewhere these tests say so and measure nothing.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use florence2_server::config::DecodeSettings;
use florence2_server::image_io::decode::decode;
use image::ImageFormat;

use crate::support::pictures::{file, png, raw_png, stored};

const MIB: usize = 1 << 20;

/// Names the file to a child.
const FILE: &str = "FLORENCE2_TEST_PICTURE";

/// What unpacking a file cost.
#[derive(Debug)]
struct Cost {
    /// Growth of the peak, in bytes.
    memory: usize,
    time: Duration,
    /// Sides of the picture, or nothing where it was refused.
    size: Option<(u32, u32)>,
}

/// Highest resident memory of this process so far, in bytes.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Not a test of its own: what the process does.
#[test]
#[ignore = "started as a child process by other tests"]
fn decode_in_a_child_process() {
    let path = std::env::var_os(FILE).expect("the parent names a picture");
    let bytes = fs::read(path).unwrap();
    let (before, begun) = (peak().unwrap(), Instant::now());
    let picture = decode(&bytes, &DecodeSettings::default());
    let took = begun.elapsed().as_millis();
    let grown = peak().unwrap() - before;
    let (width, height) = picture.map_or((0, 0), |picture| picture.dimensions());
    println!("cost {grown} {took} {width} {height}");
}

/// Unpacks a file in a process of its own; nothing where the system does not tell the peak.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn cost(bytes: &[u8]) -> Option<Cost> {
    if peak().is_none() {
        eprintln!("skipped: this system does not tell a process's peak memory");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    fs::write(&path, bytes).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "picture_memory::decode_in_a_child_process"])
        .args(["--ignored", "--nocapture"])
        .env(FILE, path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("cost "));
    let (_, numbers) = line.unwrap_or_else(|| panic!("no cost: {text}"));
    let numbers: Vec<u64> = numbers
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let side = |index: usize| u32::try_from(numbers[index]).unwrap();
    let size = (side(2), side(3));
    let cost = Cost {
        memory: usize::try_from(numbers[0]).unwrap(),
        time: Duration::from_millis(numbers[1]),
        size: (size != (0, 0)).then_some(size),
    };
    println!("{} KiB: {cost:?}", bytes.len() >> 10);
    Some(cost)
}

/// This many zeros, packed.
fn packed_zeros(length: usize) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; MIB];
    for _ in 0..length / MIB {
        packer.write_all(&zeros).unwrap();
    }
    packer.finish().unwrap()
}

/// A grey PNG of 2 x 1 pixels with these chunks before its data.
fn png_with(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let data = stored(&[0, 1, 2]);
    let parts = [chunks, &[(b"IDAT", &data[..])]].concat();
    raw_png(2, 1, 8, 0, &parts)
}

/// A file with something after its first bytes.
fn with_inserted(mut file: Vec<u8>, at: usize, insert: &[u8]) -> Vec<u8> {
    file.splice(at..at, insert.iter().copied());
    file
}

#[test]
fn packed_png_chunks_are_never_inflated() {
    let zeros = packed_zeros(200 * MIB);
    let profile = [&b"name\0\0"[..], &zeros].concat();
    let text = [&b"Raw profile type iptc\0\0"[..], &zeros].concat();
    let international = [&b"XML:com.adobe.xmp\0\x01\0\0\0"[..], &zeros].concat();
    for chunks in [
        &[(b"iCCP", &profile[..])],
        &[(b"zTXt", &text[..])],
        &[(b"iTXt", &international[..])],
    ] {
        let Some(cost) = cost(&png_with(chunks)) else {
            return;
        };
        assert_eq!(cost.size, Some((2, 1)));
        assert!(cost.memory < 8 * MIB, "{cost:?}");
    }
}

#[test]
fn a_million_tiny_png_chunks_cost_nothing() {
    let tiny: &[(&[u8; 4], &[u8])] = &[(b"tEXt", b"a\0")];
    let Some(cost) = cost(&png_with(&tiny.repeat(1_000_000))) else {
        return;
    };
    assert_eq!(cost.size, Some((2, 1)));
    assert!(cost.memory < 8 * MIB, "{cost:?}");
    assert!(cost.time < Duration::from_secs(5), "{cost:?}");
}

#[test]
fn a_large_exif_block_is_not_copied() {
    // Big-endian TIFF with one entry, the orientation: a quarter turn.
    let entry = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut block = entry.to_vec();
    block.resize(30 * MIB, 0);
    let png = png_with(&[(b"eXIf", &block)]);
    let Some(cost) = cost(&png) else { return };
    assert_eq!(cost.size, Some((1, 2)), "the picture is turned");
    assert!(cost.memory < 8 * MIB, "{cost:?}");
}

#[test]
fn extended_xmp_of_a_jpeg_is_not_put_together() {
    // Each says that more is to come, and after each the decoder would look through all of them.
    let (namespace, total_and_offset) = (
        b"http://ns.adobe.com/xmp/extension/\0",
        [0, 0, 0, 1, 0, 0, 0, 0],
    );
    let data = [&namespace[..], &[b'0'; 32], &total_and_offset].concat();
    let length = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
    let segment = [&[0xff, 0xe1], &length[..], &data].concat();
    let jpeg = file(8, 8, [9; 3], ImageFormat::Jpeg);
    let jpeg = with_inserted(jpeg, 2, &segment.repeat(40_000));
    let Some(cost) = cost(&jpeg) else { return };
    assert_eq!(cost.size, Some((8, 8)));
    assert!(cost.memory < 8 * MIB, "{cost:?}");
    assert!(cost.time < Duration::from_secs(5), "{cost:?}");
}

#[test]
fn colour_profiles_and_comments_of_a_jpeg_are_not_copied() {
    let jpeg = file(8, 8, [9; 3], ImageFormat::Jpeg);
    for (marker, begin) in [
        (0xe2, &b"ICC_PROFILE\0\x01\x01"[..]),
        (0xed, b"Photoshop 3.0\0"),
        (0xfe, b""),
    ] {
        let mut data = begin.to_vec();
        data.resize(65_533, b' ');
        let segment = [&[0xff, marker, 0xff, 0xff], &data[..]].concat();
        let file = with_inserted(jpeg.clone(), 2, &segment.repeat(480));
        let Some(cost) = cost(&file) else { return };
        assert_eq!(cost.size, Some((8, 8)));
        assert!(cost.memory < 8 * MIB, "{cost:?}");
    }
}

#[test]
fn comments_of_a_gif_and_bytes_after_a_picture_are_not_kept() {
    let gif = file(8, 8, [9; 3], ImageFormat::Gif);
    // Header and screen, then the palette whose size the screen's flags tell.
    let palette = match gif[10] {
        flags if flags & 0x80 != 0 => 3 << ((flags & 7) + 1),
        _ => 0,
    };
    let block = [&[255][..], &[b' '; 255]].concat();
    let comment = [&[0x21, 0xfe][..], &block.repeat(120_000), &[0]].concat();
    let with_comment = with_inserted(gif, 13 + palette, &comment);
    let mut with_tail = png(8, 8);
    with_tail.resize(30 * MIB, 7);
    for file in [with_comment, with_tail] {
        let Some(cost) = cost(&file) else { return };
        assert_eq!(cost.size, Some((8, 8)));
        assert!(cost.memory < 8 * MIB, "{cost:?}");
    }
}
