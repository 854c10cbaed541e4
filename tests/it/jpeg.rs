//! JPEG files against the pixels that Pillow gives for them: identical or refused, never wrong.
//!
//! `tests/data/jpeg` holds a few tiny files of every kind; `expected.txt` beside them says what
//! Pillow 12.3 and 13 alike make of each. The large set is made on the spot (`tests/reference/README.md`).

use std::collections::BTreeMap;
use std::path::Path;

use florence2_server::config::DecodeSettings;
use florence2_server::image_io::decode::decode;
use florence2_server::image_io::{JpegError, PictureError};
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::data;
use crate::support::fake_model::FakeModel;
use crate::support::pictures::data_uri;
use crate::support::server::TestServer;

/// A file of a set, and what is expected of it.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Width, height and the sum of the pixels; nothing where it is refused.
    expected: Option<(u32, u32, String)>,
}

fn cases(folder: &Path) -> Vec<Case> {
    let list = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let case = |line: &str| {
        let (name, expected) = line.split_once(' ').unwrap();
        let fields: Vec<&str> = expected.split(' ').collect();
        Case {
            name: name.to_owned(),
            bytes: std::fs::read(folder.join(name)).unwrap(),
            expected: match fields[..] {
                ["refused", ..] => None,
                [width, height, sum] => Some((
                    width.parse().unwrap(),
                    height.parse().unwrap(),
                    sum.to_owned(),
                )),
                _ => panic!("{line}"),
            },
        }
    };
    list.lines().map(case).collect()
}

fn pixels(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    decode(bytes, &DecodeSettings::default())
}

fn measured(picture: &RgbImage) -> (u32, u32, String) {
    let (width, height) = picture.dimensions();
    (width, height, data::sha256(picture.as_raw()))
}

fn stored(name: &str) -> Vec<u8> {
    std::fs::read(data::path("jpeg").join(name)).unwrap()
}

#[test]
fn stored_files_have_pillows_pixels_or_are_refused() {
    let cases = cases(&data::path("jpeg"));
    let pictures = cases.iter().filter(|case| case.expected.is_some()).count();
    assert!(
        pictures > 90 && cases.len() > pictures + 20,
        "{pictures} of {}",
        cases.len()
    );
    for case in cases {
        let found = pixels(&case.bytes);
        assert_eq!(
            found.as_ref().ok().map(measured),
            case.expected,
            "{}: {:?}",
            case.name,
            found.err()
        );
    }
}

#[test]
fn every_cut_of_a_file_is_refused_or_the_whole_picture() {
    for case in cases(&data::path("jpeg")).into_iter().step_by(3) {
        let Some(expected) = case.expected else {
            continue;
        };
        // What follows the picture or stands for its end marker may be missing.
        let may_be_cut = case.name.starts_with("file-");
        for length in 0..case.bytes.len() {
            match pixels(&case.bytes[..length]) {
                Ok(picture) => {
                    assert_eq!(measured(&picture), expected, "{} at {length}", case.name);
                    assert!(may_be_cut, "{} cut at {length}", case.name);
                }
                Err(PictureError::Jpeg(_)) => {}
                // The first bytes alone say that it is a JPEG.
                Err(error) => assert!(length < 3, "{} at {length}: {error:?}", case.name),
            }
        }
    }
}

#[test]
fn a_hundred_scans_are_read_and_one_more_is_refused() {
    let of_scans = |count: usize| {
        let named = |case: &Case| case.name.starts_with("hand-many-scans");
        let mut files = cases(&data::path("jpeg")).into_iter().filter(named);
        files.find(|case| {
            let marker = |pair: &[u8]| pair == [0xff, 0xda];
            case.bytes.windows(2).filter(|pair| marker(pair)).count() == count
        })
    };
    assert!(pixels(&of_scans(100).unwrap().bytes).is_ok());
    let refused = pixels(&of_scans(101).unwrap().bytes);
    assert!(
        matches!(
            refused,
            Err(PictureError::Jpeg(JpegError::TooManyScans { limit: 100 }))
        ),
        "{refused:?}"
    );
}

#[test]
fn a_size_beyond_the_limits_is_refused_from_the_header() {
    for case in cases(&data::path("jpeg")) {
        let Some((width, height, _)) = case.expected else {
            continue;
        };
        let side = width.max(height);
        let pixels = u64::from(width) * u64::from(height);
        for (max_pixels, max_side) in [(pixels, side - 1), (pixels - 1, side)] {
            let settings = DecodeSettings {
                max_pixels,
                max_side,
                decode_slots: 1,
            };
            let refused = decode(&case.bytes, &settings);
            let is_too_large = matches!(refused, Err(PictureError::TooLarge { .. }));
            assert!(is_too_large, "{}: {refused:?}", case.name);
        }
    }
}

#[tokio::test]
async fn cut_and_unsupported_jpegs_are_refused_in_the_envelope() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let whole = stored("pillow-420-121.jpg");
    let mut twelve_bits = whole.clone();
    let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]);
    twelve_bits[frame.unwrap() + 4] = 12;
    let load = "Failed to load the image. Please ensure the image file is not corrupted and is in a supported format.";
    let formats =
        "Unsupported image format. Supported formats are .jpg, .jpeg, .png, .webp, .gif, .bmp.";
    for (file, kind, msg) in [
        (
            &whole[..whole.len() * 2 / 5],
            "image_load_error",
            load.to_owned(),
        ),
        (
            &stored("libjpeg-arithmetic-096.jpg"),
            "unsupported_image_format",
            format!("{formats} JPEG files with arithmetic coding are not supported."),
        ),
        (
            &twelve_bits,
            "unsupported_image_format",
            format!("{formats} JPEG files with 12 bits a sample are not supported, only 8 bits."),
        ),
    ] {
        let body = json!({ "image_url": data_uri(file) });
        let answer = server.call("caption", &body).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        let fault = &answer.json()["detail"][0];
        assert_eq!(
            (&fault["type"], &fault["msg"]),
            (&Value::from(kind), &Value::from(msg))
        );
    }
}

/// What became of a file of the large set.
fn outcome(case: &Case) -> &'static str {
    match (
        pixels(&case.bytes).as_ref().map(measured).ok(),
        &case.expected,
    ) {
        (Some(found), Some(expected)) if found == *expected => "identical",
        (Some(_), Some(_)) => "different",
        (Some(_), None) => "refused by Pillow",
        (None, Some(_)) => "refused here",
        (None, None) => "refused by both",
    }
}

#[test]
#[ignore = "needs thousands of made files; tests/reference/README.md says how"]
fn slow_jpeg_corpus_has_pillows_pixels() {
    const OUTCOMES: [&str; 5] = [
        "identical",
        "refused by both",
        "refused here",
        "refused by Pillow",
        "different",
    ];
    let root = std::env::var_os("FLORENCE2_JPEG_CORPUS")
        .expect("set FLORENCE2_JPEG_CORPUS to the folder that make_jpeg_cases.py wrote into");
    let cases = cases(Path::new(&root));
    assert!(cases.len() >= 2000, "{} files", cases.len());
    let mut table: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut list = String::new();
    for case in &cases {
        let kind = case.name.split('/').next().unwrap();
        let outcome = outcome(case);
        list += &format!("{} {outcome}\n", case.name);
        for kind in [kind, "all"] {
            *table.entry(kind).or_default().entry(outcome).or_default() += 1;
        }
    }
    std::fs::write(Path::new(&root).join("outcomes.txt"), list).unwrap();
    println!("| kind | files | {} |", OUTCOMES.join(" | "));
    for (kind, counts) in &table {
        let cells = OUTCOMES.map(|name| counts.get(name).copied().unwrap_or(0).to_string());
        let files: usize = counts.values().sum();
        println!("| {kind} | {files} | {} |", cells.join(" | "));
    }
    assert_eq!(table["all"].get("different"), None);
    assert_eq!(table["all"].get("refused by Pillow"), None);
}
