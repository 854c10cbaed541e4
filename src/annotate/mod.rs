//! Draws an answer's places on the picture that it is about: results + picture → annotated picture
//! → the bytes of a file.
//!
//! Outlines first, then the tags with the labels, so that no outline crosses a text. Sizes follow
//! the picture's size, colours follow the labels, and the same picture and answer always give the
//! same pixels. The answer is the model's word: coordinates may lie anywhere and labels may hold
//! anything. Never looks at files, addresses or clocks, and never fails because of an answer.

mod draw;
mod file_format;
mod labels;
mod palette;
mod places;
mod scale;
mod text;

use image::RgbImage;

use crate::florence2::answer::Answer;
use draw::Shape;
pub use file_format::FileFormat;
use labels::{Anchor, Placer};
use places::{Kind, Place};
use scale::{Scale, widest_label};
use text::Font;

/// Fills drawn, counted in pictures that their bounds would cover. Under that many translucent
/// layers nothing shows any more.
const FILL_LAYERS: f32 = 12.0;
/// Outlines drawn, counted in the same way: the smallest ones up to this sum. A real answer stays
/// far below it, and a hostile one cannot buy minutes of painting.
const OUTLINE_LAYERS: f32 = 64.0;

/// Part of the picture that tags may cover. On a very small one the first label would be all there is
/// to see. The labels of text are what the picture shows there, so they may cover more.
const TAG_SHARE: f32 = 0.4;

/// Why there is no drawn picture.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    /// The answer is a text.
    #[error("the answer is a text and names no places to draw")]
    NothingToDraw,
    /// The encoder refused.
    #[error("the drawn picture cannot be written as a file: {0}")]
    Encode(#[from] image::ImageError),
}

/// Draws the answer's places on the picture.
///
/// # Errors
/// [`AnnotateError::NothingToDraw`] for a text, which has no places.
pub fn draw(picture: &mut RgbImage, answer: &Answer) -> Result<(), AnnotateError> {
    let (width, height) = picture.dimensions();
    let places = places::of(answer, width, height).ok_or(AnnotateError::NothingToDraw)?;
    let scale = Scale::of(width, height);
    let mut shapes = Vec::new();
    // Large places first, so that they do not cross out small ones.
    for place in largest_first(&places, FILL_LAYERS, (width, height)) {
        if place.kind == Kind::Region {
            draw::fill(place, &mut shapes);
        }
    }
    for place in largest_first(&places, OUTLINE_LAYERS, (width, height)) {
        draw::outline(place, scale.stroke, scale.rim, (width, height), &mut shapes);
    }
    if let Some(font) = Font::embedded() {
        tags(&places, &font, scale, (width, height), &mut shapes);
    }
    draw::paint(picture, &shapes);
    Ok(())
}

/// Draws the answer's places on the picture; gives it as the bytes of a file.
///
/// # Errors
/// See [`AnnotateError`].
pub fn file(
    picture: &mut RgbImage,
    answer: &Answer,
    format: FileFormat,
) -> Result<Vec<u8>, AnnotateError> {
    draw(picture, answer)?;
    Ok(format.encode(picture)?)
}

/// The places by falling size, without the largest ones if all together would cover the picture more
/// than `layers` times.
fn largest_first<'p, 'a>(
    places: &'p [Place<'a>],
    layers: f32,
    (width, height): (u32, u32),
) -> impl Iterator<Item = &'p Place<'a>> {
    let mut by_size: Vec<&Place<'a>> = places.iter().collect();
    by_size.sort_by(|a, b| a.bounds.area().total_cmp(&b.bounds.area()));
    let mut left = layers * width as f32 * height as f32;
    let affordable = by_size.iter().take_while(|place| {
        left -= place.bounds.area();
        left >= 0.0
    });
    let count = affordable.count();
    by_size.truncate(count);
    by_size.into_iter().rev()
}

/// Adds the tags, as far as there is room for them.
fn tags(
    places: &[Place<'_>],
    font: &Font,
    scale: Scale,
    (width, height): (u32, u32),
    shapes: &mut Vec<Shape>,
) {
    let mut placer = Placer::new(width, height, scale.text);
    let anchors: Vec<Anchor> = places.iter().map(|it| it.anchor(scale.stroke)).collect();
    for (place, anchor) in places.iter().zip(&anchors) {
        if place.kind == Kind::Quad {
            placer.spare(anchor.area);
        }
    }
    let mut room = TAG_SHARE * width as f32 * height as f32;
    for (place, anchor) in places.iter().zip(&anchors) {
        let px = scale.text_for(place);
        let widest = labels::text_width(width, px).min(widest_label(place, px));
        let Some(line) = font.line(place.label, px, widest) else {
            continue;
        };
        let size = labels::tag_size(line.width, px);
        if place.kind != Kind::Quad {
            let covered = (size.0 * size.1) as f32;
            if covered > room {
                continue;
            }
            room -= covered;
        }
        if let Some(area) = placer.place(anchor, size) {
            draw::tag(&area, place.color, px, shapes);
            let origin = labels::text_origin(&area, px);
            font.draw(&line, px, origin, place.color.ink(), shapes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::florence2::answer::{LabelledBox, LabelledPolygons, LabelledQuad};

    /// Numbers that only a hostile or broken answer has, and ordinary ones.
    const NUMBERS: [f32; 12] = [
        0.0,
        -0.0,
        10.5,
        31.0,
        200.25,
        -7.0,
        1e9,
        -1e30,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    const LABELS: [&str; 6] = ["", "cat", "  a\nb\t", "日本語 🙂 \u{202e}", "\0", "-"];

    /// A small generator, so that every run draws the same.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize
        }

        fn number(&mut self) -> f32 {
            NUMBERS[self.next() % NUMBERS.len()]
        }

        fn label(&mut self) -> String {
            LABELS[self.next() % LABELS.len()].repeat(1 + self.next() % 40)
        }

        fn rectangle(&mut self) -> LabelledBox {
            LabelledBox {
                x1: self.number(),
                y1: self.number(),
                x2: self.number(),
                y2: self.number(),
                label: self.label(),
                score: None,
            }
        }

        fn region(&mut self) -> LabelledPolygons {
            let polygons = (0..self.next() % 3)
                .map(|_| (0..self.next() % 12).map(|_| self.number()).collect())
                .collect::<Vec<Vec<f32>>>();
            LabelledPolygons {
                polygons,
                label: self.label(),
                scores: Vec::new(),
            }
        }

        fn answer(&mut self) -> Answer {
            let count = self.next() % 12;
            match self.next() % 4 {
                0 => Answer::Boxes((0..count).map(|_| self.rectangle()).collect()),
                1 => Answer::Quads(
                    (0..count)
                        .map(|_| LabelledQuad {
                            points: std::array::from_fn(|_| self.number()),
                            label: self.label(),
                            score: None,
                        })
                        .collect(),
                ),
                2 => Answer::Polygons((0..count).map(|_| self.region()).collect()),
                _ => Answer::BoxesAndPolygons(
                    (0..count).map(|_| self.rectangle()).collect(),
                    (0..count).map(|_| self.region()).collect(),
                ),
            }
        }
    }

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, image::Rgb([128; 3]))
    }

    fn drawn(picture: &RgbImage, answer: &Answer) -> RgbImage {
        let mut copy = picture.clone();
        draw(&mut copy, answer).unwrap();
        copy
    }

    fn labelled(corners: [f32; 4], label: &str) -> LabelledBox {
        let [x1, y1, x2, y2] = corners;
        LabelledBox {
            x1,
            y1,
            x2,
            y2,
            label: label.to_owned(),
            score: None,
        }
    }

    #[test]
    fn any_answer_on_any_picture_is_drawn_and_always_the_same() {
        let mut numbers = Numbers(1);
        for (width, height) in [(1, 1), (1, 300), (300, 1), (9, 13), (64, 64), (333, 200)] {
            let picture = grey(width, height);
            for _ in 0..60 {
                let answer = numbers.answer();
                let first = drawn(&picture, &answer);
                assert_eq!(first.dimensions(), (width, height));
                assert_eq!(drawn(&picture, &answer), first, "{answer:?}");
            }
        }
    }

    #[test]
    fn a_box_is_drawn_on_its_edge_and_nowhere_else() {
        let picture = grey(300, 200);
        let answer = Answer::Boxes(vec![labelled([100.0, 150.0, 250.0, 50.0], "")]);
        let drawn = drawn(&picture, &answer);
        for (x, y) in [(100, 100), (250, 100), (175, 50), (175, 150)] {
            assert_ne!(drawn.get_pixel(x, y), picture.get_pixel(x, y), "{x}, {y}");
        }
        for (x, y) in [(175, 100), (90, 100), (260, 100), (175, 40), (175, 160)] {
            assert_eq!(drawn.get_pixel(x, y), picture.get_pixel(x, y), "{x}, {y}");
        }
    }

    #[test]
    fn an_object_is_filled_so_that_the_picture_shows_through() {
        let picture = RgbImage::from_fn(100, 100, |x, _| image::Rgb([(x % 2) as u8 * 255; 3]));
        let polygons = vec![vec![10.0, 10.0, 90.0, 10.0, 90.0, 90.0, 10.0, 90.0]];
        let answer = Answer::Polygons(vec![LabelledPolygons {
            polygons,
            label: String::new(),
            scores: Vec::new(),
        }]);
        let drawn = drawn(&picture, &answer);
        let (dark, light) = (drawn.get_pixel(50, 50), drawn.get_pixel(51, 50));
        assert_ne!(dark, picture.get_pixel(50, 50));
        assert!(i16::from(light.0[1]) - i16::from(dark.0[1]) > 100);
    }

    #[test]
    fn a_picture_in_several_bands_has_no_seams() {
        let (width, height) = (4096, 1024);
        let answer = Answer::Boxes(vec![labelled([1000.0, 10.0, 3000.0, 1000.0], "")]);
        let drawn = drawn(&grey(width, height), &answer);
        let column: Vec<_> = (100..900).map(|y| drawn.get_pixel(1000, y)).collect();
        assert!(column.iter().all(|pixel| *pixel == column[0]));
        assert_ne!(column[0], drawn.get_pixel(500, 500));
    }

    #[test]
    fn two_boxes_at_one_place_are_both_seen() {
        let corners = [20.0, 20.0, 280.0, 180.0];
        let answer = Answer::Boxes(vec![labelled(corners, "cat"), labelled(corners, "pet")]);
        let drawn = drawn(&grey(300, 200), &answer);
        // Below the tags, from the outside in.
        let mut colors: Vec<_> = (10..60).map(|x| drawn.get_pixel(x, 120).0).collect();
        colors.dedup();
        let [grey, first_rim, first, _, second, second_rim, after] = colors[..] else {
            panic!("{colors:?}");
        };
        assert_eq!((grey, after), ([128; 3], [128; 3]));
        assert!(first != second && first_rim != first && second_rim != second);
    }

    #[test]
    fn a_very_small_picture_is_not_buried_under_its_labels() {
        let boxes = (0..20).map(|_| labelled([5.0, 5.0, 60.0, 40.0], "coffee cup"));
        let drawn = drawn(&grey(64, 43), &Answer::Boxes(boxes.collect()));
        let untouched = drawn.pixels().filter(|pixel| pixel.0 == [128; 3]).count();
        assert!(untouched > 64 * 43 / 10, "{untouched} pixels are left");
    }

    #[test]
    fn a_text_has_nothing_to_draw() {
        let text = Answer::Text("a cat".into());
        let error = file(&mut grey(8, 8), &text, FileFormat::Png).unwrap_err();
        assert!(matches!(error, AnnotateError::NothingToDraw));
    }

    #[test]
    fn a_png_decodes_to_the_drawn_picture() {
        let picture = grey(120, 80);
        let answer = Answer::Boxes(vec![labelled([10.0, 30.0, 100.0, 70.0], "cat")]);
        let bytes = file(&mut picture.clone(), &answer, FileFormat::Png).unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(decoded, drawn(&picture, &answer));
    }

    #[test]
    fn paint_is_bounded_and_the_small_places_stay() {
        let all = [0.0, 0.0, 100.0, 100.0];
        let answer = Answer::Boxes(
            (0..200)
                .map(|_| labelled(all, ""))
                .chain([labelled([40.0, 40.0, 60.0, 60.0], "")])
                .collect(),
        );
        let places = places::of(&answer, 100, 100).unwrap();
        let kept: Vec<_> = largest_first(&places, OUTLINE_LAYERS, (100, 100)).collect();
        assert_eq!(kept.len(), OUTLINE_LAYERS as usize);
        assert_eq!(kept.last().unwrap().bounds.left, 40.0);
    }
}
