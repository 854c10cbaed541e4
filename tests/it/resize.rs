//! Pictures are resized and normalised as Pillow and the reference's image processor do it.

use florence2_server::florence2::processor::Processor;
use florence2_server::florence2::resize::resize_bicubic;
use image::{DynamicImage, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::support::data;

/// The picture that `golden/resize.json` describes.
fn formula_picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2].map(|c| ((31 * x + 17 * y + 101 * c) ^ (x * y + 7 * c)) as u8))
    })
}

/// A processor for a side other than the published one.
fn processor(side: u32) -> Processor {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = data::path("tokenizer/original/tokenizer.json");
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let settings = json!({
        "size": {"height": side, "width": side}, "resample": 3, "image_seq_length": 577,
        "rescale_factor": 0.003_921_568_627_450_98,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    });
    let file = folder.path().join("preprocessor_config.json");
    std::fs::write(file, settings.to_string()).unwrap();
    Processor::load(folder.path()).unwrap()
}

fn number(row: &Value, key: &str) -> u32 {
    u32::try_from(row[key].as_u64().unwrap()).unwrap()
}

#[test]
fn every_golden_size_gives_pillows_bytes_and_the_librarys_pixel_values() {
    let golden = data::json("golden/resize.json");
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 19);
    for side in [768, 224] {
        let processor = processor(side);
        for row in rows.iter().filter(|row| number(row, "side") == side) {
            let picture = formula_picture(number(row, "width"), number(row, "height"));
            let resized = resize_bicubic(&picture, side, side);
            assert_eq!(json!(data::sha256(&resized)), row["rgb_sha256"], "{row}");

            let pixel_values = processor.pixel_values(&picture);
            assert_eq!(pixel_values.side, side as usize);
            let bytes: Vec<u8> = pixel_values
                .data
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect();
            assert_eq!(
                json!(data::sha256(&bytes)),
                row["pixel_values_sha256"],
                "{row}"
            );
        }
    }
}

/// Pillow's `convert("RGB")`: alpha dropped, grey repeated, the upper byte of 16-bit samples.
fn to_rgb(picture: &DynamicImage) -> RgbImage {
    let grey = |v: u8| Rgb([v; 3]);
    let upper = |v: u16| (v >> 8) as u8;
    match picture {
        DynamicImage::ImageLuma16(p) => RgbImage::from_fn(p.width(), p.height(), |x, y| {
            grey(upper(p.get_pixel(x, y).0[0]))
        }),
        DynamicImage::ImageLumaA16(p) => RgbImage::from_fn(p.width(), p.height(), |x, y| {
            grey(upper(p.get_pixel(x, y).0[0]))
        }),
        DynamicImage::ImageRgb16(p) => RgbImage::from_fn(p.width(), p.height(), |x, y| {
            Rgb(p.get_pixel(x, y).0.map(upper))
        }),
        DynamicImage::ImageRgba16(p) => RgbImage::from_fn(p.width(), p.height(), |x, y| {
            let [r, g, b, _alpha] = p.get_pixel(x, y).0.map(upper);
            Rgb([r, g, b])
        }),
        eight_bits => eight_bits.to_rgb8(),
    }
}

#[test]
fn real_pictures_of_every_mode_are_resized_as_pillow_does() {
    let expected = data::json("resize/expected.json");
    let side = number(&expected, "side");
    let rows = expected["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        let name = row["file"].as_str().unwrap();
        let bytes = std::fs::read(data::path("resize").join(name)).unwrap();
        let picture = to_rgb(&image::load_from_memory(&bytes).unwrap());
        // Only 16-bit grey has two answers; the one that keeps the picture is taken.
        let sums = match &row["upper_byte"] {
            Value::Null => row,
            upper_byte => upper_byte,
        };
        assert_eq!(
            json!(data::sha256(&picture)),
            sums["rgb_sha256"],
            "{name} decoded"
        );
        let resized = resize_bicubic(&picture, side, side);
        assert_eq!(
            json!(data::sha256(&resized)),
            sums["resized_sha256"],
            "{name} resized"
        );
    }
}
