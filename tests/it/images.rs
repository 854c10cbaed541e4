//! Pictures of every kind: formats, conversion to RGB as Pillow does it, orientation, limits, bombs.

use florence2_server::config::DecodeSettings;
use florence2_server::image_io::PictureError;
use florence2_server::image_io::decode::decode;
use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Frame, ImageEncoder, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::json;

use crate::support::data;
use crate::support::fake_model::FakeModel;
use crate::support::pictures::{data_uri, encode, file, png, raw_png, stored};
use crate::support::server::TestServer;

fn settings() -> DecodeSettings {
    DecodeSettings::default()
}

fn rgb(bytes: &[u8]) -> RgbImage {
    decode(bytes, &settings()).unwrap()
}

/// A picture in which every pixel differs from its neighbours.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(40 * x) as u8, (40 * y) as u8, (90 + x + y) as u8])
    })
}

#[test]
fn lossless_formats_come_out_as_they_went_in() {
    let picture = pattern(5, 4);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = encode(&DynamicImage::ImageRgb8(picture.clone()), format);
        assert_eq!(rgb(&bytes), picture, "{format:?}");
    }
    let flat = file(3, 2, [200, 10, 30], ImageFormat::Gif);
    assert_eq!(rgb(&flat), RgbImage::from_pixel(3, 2, Rgb([200, 10, 30])));
}

#[test]
fn jpeg_comes_out_close_to_what_went_in() {
    // Lossy: a flat colour survives to within rounding of the colour transform.
    let colour = [200_u8, 10, 30];
    let decoded = rgb(&file(16, 16, colour, ImageFormat::Jpeg));
    for pixel in decoded.pixels() {
        for (found, expected) in pixel.0.iter().zip(colour) {
            assert!(found.abs_diff(expected) <= 4, "{pixel:?}");
        }
    }
}

#[test]
fn pictures_are_converted_to_rgb_as_pillow_does_it() {
    let file = data::json("resize/expected.json");
    let rows = file["rows"].as_array().unwrap();
    assert!(rows.len() >= 15);
    for row in rows {
        let name = row["file"].as_str().unwrap();
        let bytes = std::fs::read(data::path("resize").join(name)).unwrap();
        let decoded = rgb(&bytes);
        assert_eq!(
            json!(data::sha256(decoded.as_raw())),
            row["rgb_sha256"],
            "{name}"
        );
    }
}

#[test]
fn alpha_is_dropped_and_not_blended() {
    let transparent = RgbaImage::from_pixel(2, 2, Rgba([9, 8, 7, 0]));
    let picture = DynamicImage::ImageRgba8(transparent);
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let decoded = rgb(&encode(&picture, format));
        assert_eq!(decoded.get_pixel(1, 1).0, [9, 8, 7], "{format:?}");
    }
}

#[test]
fn palettes_and_small_depths_are_expanded() {
    // Expected values measured with Pillow 13.
    let palette = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    let parts: &[(&[u8; 4], &[u8])] = &[
        (b"PLTE", &palette),
        // The second entry is transparent, which does not matter.
        (b"tRNS", &[255, 0]),
        (b"IDAT", &stored(&[0, 0b0001_1000])),
    ];
    let decoded = rgb(&raw_png(3, 1, 2, 3, parts));
    assert_eq!(decoded.into_raw(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (depth, line, expected) in [
        (1, 0xa0_u8, vec![255, 0, 255]),
        (2, 0x1b, vec![0, 85, 170]),
        (4, 0x1c, vec![17, 204]),
    ] {
        let parts: &[(&[u8; 4], &[u8])] = &[(b"IDAT", &stored(&[0, line]))];
        let width = u32::try_from(expected.len()).unwrap();
        let decoded = rgb(&raw_png(width, 1, depth, 0, parts));
        let grey: Vec<u8> = decoded.pixels().map(|pixel| pixel.0[0]).collect();
        assert_eq!(grey, expected, "depth {depth}");
    }
}

/// A JPEG with an EXIF block that holds nothing but an orientation.
fn jpeg_with_orientation(picture: &RgbImage, orientation: u8) -> Vec<u8> {
    let exif = [
        &b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..],
        &[orientation, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 100)
        .write_image(
            picture,
            picture.width(),
            picture.height(),
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let mut file = bytes[..2].to_vec();
    file.extend([0xff, 0xe1]);
    file.extend(length);
    file.extend(exif);
    file.extend(&bytes[2..]);
    file
}

#[test]
fn exif_orientation_is_applied() {
    // Red, green, blue and white squares large enough to survive JPEG.
    let quarters = RgbImage::from_fn(32, 16, |x, y| match (x < 16, y < 8) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([255, 255, 255]),
    });
    // Corners read from the upper left in rows, by the EXIF standard.
    for (orientation, corners) in [
        (1, "rgbw"),
        (2, "grwb"),
        (3, "wbgr"),
        (4, "bwrg"),
        (5, "rbgw"),
        (6, "brwg"),
        (7, "wgbr"),
        (8, "gwrb"),
        (0, "rgbw"),
        (9, "rgbw"),
    ] {
        let decoded = rgb(&jpeg_with_orientation(&quarters, orientation));
        let turned = (5..=8).contains(&orientation);
        let size = if turned { (16, 32) } else { (32, 16) };
        assert_eq!(decoded.dimensions(), size, "orientation {orientation}");
        let (right, low) = (size.0 - 4, size.1 - 3);
        let found: String = [(3, 3), (right, 3), (3, low), (right, low)]
            .into_iter()
            .map(
                |(x, y)| match decoded.get_pixel(x, y).0.map(|value| value > 127) {
                    [true, false, false] => 'r',
                    [false, true, false] => 'g',
                    [false, false, true] => 'b',
                    [true, true, true] => 'w',
                    _ => '?',
                },
            )
            .collect();
        assert_eq!(found, corners, "orientation {orientation}");
    }
}

#[test]
fn exif_orientation_of_png_and_webp_is_applied() {
    // Little-endian TIFF with one entry, the orientation: a quarter turn.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let picture = pattern(5, 4);
    let upright = image::imageops::rotate90(&picture);
    let (mut png, mut webp) = (Vec::new(), Vec::new());
    let mut png_encoder = image::codecs::png::PngEncoder::new(&mut png);
    png_encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let mut webp_encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    webp_encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let colour = image::ExtendedColorType::Rgb8;
    png_encoder.write_image(&picture, 5, 4, colour).unwrap();
    webp_encoder.write_image(&picture, 5, 4, colour).unwrap();
    assert_eq!(rgb(&png), upright);
    assert_eq!(rgb(&webp), upright);
}

#[tokio::test]
async fn boxes_refer_to_the_upright_picture() {
    let tall = jpeg_with_orientation(&pattern(100, 50), 6);
    let server = TestServer::start(FakeModel::saying("a<loc_0><loc_0><loc_999><loc_999>")).await;
    let body = json!({"image_url": data_uri(&tall)});
    let answer = server.call("object-detection", &body).await;
    let results = r#"{"results":{"bboxes":[{"x":0.025,"y":0.05,"w":49.95,"h":99.9,"label":"a"}]},"#;
    assert!(answer.text.starts_with(results), "{}", answer.text);
    let drawn = &answer.json()["image"];
    assert_eq!(
        (&drawn["width"], &drawn["height"]),
        (&json!(50), &json!(100))
    );
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    let mut bytes = Vec::new();
    {
        let mut encoder = GifEncoder::new(&mut bytes);
        for colour in [[255, 0, 0, 255], [0, 255, 0, 255]] {
            let frame = RgbaImage::from_pixel(4, 4, Rgba(colour));
            encoder.encode_frame(Frame::new(frame)).unwrap();
        }
    }
    assert_eq!(rgb(&bytes).get_pixel(2, 2).0, [255, 0, 0]);
}

#[tokio::test]
async fn size_limits_hold_at_the_limit_and_one_past_it() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.decode.max_pixels = 200;
        settings.decode.max_side = 40;
        settings.fetch.max_picture_bytes = 400;
    })
    .await;
    let status = async |bytes: &[u8]| {
        let answer = server
            .call("caption", &json!({"image_url": data_uri(bytes)}))
            .await;
        match answer.status {
            200 => "fine".to_owned(),
            _ => {
                assert_eq!(answer.status, 422);
                answer.fault_type()
            }
        }
    };
    assert_eq!(status(&png(20, 10)).await, "fine");
    assert_eq!(status(&png(40, 5)).await, "fine");
    assert_eq!(status(&png(20, 11)).await, "image_too_large");
    assert_eq!(status(&png(41, 1)).await, "image_too_large");
    assert_eq!(status(&png(1, 41)).await, "image_too_large");
    let mut padded = png(2, 2);
    padded.resize(400, 0);
    assert_eq!(status(&padded).await, "fine");
    padded.push(0);
    assert_eq!(status(&padded).await, "file_too_large");
    let answer = server
        .call("caption", &json!({"image_url": data_uri(&png(41, 1))}))
        .await;
    let ctx = &answer.json()["detail"][0]["ctx"];
    assert_eq!(
        ctx,
        &json!({"max_height": 40, "max_width": 40, "max_resolution": 200})
    );
}

#[test]
fn sixty_four_million_pixels_pass_by_default() {
    let black = |width: u32, height: u32| {
        let rows = vec![0; (width as usize).div_ceil(8) * height as usize + height as usize];
        raw_png(width, height, 1, 0, &[(b"IDAT", &stored(&rows))])
    };
    // A camera of 50 megapixels, and the most that is taken.
    assert_eq!(rgb(&black(8192, 6144)).dimensions(), (8192, 6144));
    for (width, height) in [(8001, 8000), (8000, 8001)] {
        let refused = decode(&black(width, height), &settings());
        assert!(matches!(refused, Err(PictureError::TooLarge { .. })));
    }
    assert_eq!(settings().max_pixels, 64_000_000);
}

#[test]
fn bombs_are_refused_from_their_headers() {
    let huge = |width, height| raw_png(width, height, 8, 2, &[(b"IDAT", &stored(&[0; 10]))]);
    let mut gif = file(1, 1, [0; 3], ImageFormat::Gif);
    gif[6..10].fill(0xff);
    let mut bmp = file(1, 1, [0; 3], ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]);
    for bomb in [
        huge(100_000, 100_000),
        huge(u32::MAX >> 1, 1),
        huge(16_000, 16_000),
        gif,
        bmp,
    ] {
        match decode(&bomb, &settings()).unwrap_err() {
            PictureError::TooLarge { .. } | PictureError::Load(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_gif_frame_larger_than_its_screen_is_refused_before_it_is_allocated() {
    let mut bytes = file(2, 2, [9; 3], ImageFormat::Gif);
    let frame = bytes.iter().rposition(|byte| *byte == 0x2c).unwrap();
    // Left, top, then 65535 x 65535: seventeen gigabytes if it were believed.
    bytes[frame + 5..frame + 9].fill(0xff);
    assert!(matches!(
        decode(&bytes, &settings()),
        Err(PictureError::Load(_))
    ));
}

#[test]
fn files_cut_anywhere_and_files_with_any_byte_changed_never_panic() {
    let picture = DynamicImage::ImageRgb8(pattern(9, 7));
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
    ] {
        let bytes = encode(&picture, format);
        let limits = DecodeSettings {
            max_pixels: 10_000,
            max_side: 1000,
            decode_slots: 1,
        };
        for end in 0..bytes.len() {
            let _ = decode(&bytes[..end], &limits);
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let _ = decode(&changed, &limits);
            }
        }
        // Half a file is no picture.
        assert!(
            decode(&bytes[..bytes.len() / 2], &limits).is_err(),
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn unpacked_pictures_never_outnumber_the_slots() {
    use florence2_server::config::FetchSettings;
    use florence2_server::image_io::PictureLoader;
    let decode = DecodeSettings {
        decode_slots: 2,
        ..settings()
    };
    let loader = PictureLoader::new(&FetchSettings::default(), decode).unwrap();
    let uri = data_uri(&png(4, 4));
    let first = loader.load(&uri).await.unwrap();
    let _second = loader.load(&uri).await.unwrap();
    let waiting = loader.load(&uri);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "a third picture was unpacked beside two");
    drop(first);
    assert_eq!(waiting.await.unwrap().pixels().dimensions(), (4, 4));
}
