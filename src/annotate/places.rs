//! What is to be drawn: the answer's places with coordinates that can be trusted.
//!
//! The one place where the model's numbers come in. They may be reversed, far outside, infinite or
//! no numbers at all; behind this file every point lies in the picture. Never drops a place that has
//! any extent.

use std::collections::HashMap;

use super::labels::{Anchor, Area, Side};
use super::palette::{Colors, Rgb};
use crate::florence2::answer::{Answer, LabelledBox, LabelledPolygons, LabelledQuad};

/// Smallest side of a box in pixels: thinner ones are widened, so that they are seen.
const SMALLEST_SIDE: f32 = 3.0;

/// Upper share of an object's height that counts as its top.
const SUMMIT: f32 = 0.08;

/// A point in pixels, inside the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// An upright rectangle in pixels, `left <= right` and `top <= bottom`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

impl Bounds {
    pub(super) fn area(&self) -> f32 {
        (self.right - self.left) * (self.bottom - self.top)
    }

    fn around(points: &[Point]) -> Option<Self> {
        let first = points.first()?;
        let start = Self {
            left: first.x,
            right: first.x,
            top: first.y,
            bottom: first.y,
        };
        Some(points.iter().fold(start, |bounds, point| Self {
            left: bounds.left.min(point.x),
            right: bounds.right.max(point.x),
            top: bounds.top.min(point.y),
            bottom: bounds.bottom.max(point.y),
        }))
    }
}

/// How a place is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Upright rectangle, outlined.
    Box,
    /// A line of text, outlined.
    Quad,
    /// An object's outline, filled too.
    Region,
}

/// One thing to draw.
pub(super) struct Place<'a> {
    pub(super) kind: Kind,
    pub(super) label: &'a str,
    pub(super) color: Rgb,
    /// Around the largest ring, which carries the label.
    pub(super) bounds: Bounds,
    /// Closed outlines of at least two points.
    pub(super) rings: Vec<Vec<Point>>,
    /// Boxes before this one that have the same corners.
    pub(super) same_before: u16,
}

impl Place<'_> {
    /// Height of the line of text in a quadrilateral: its shorter side, whichever way it is turned.
    pub(super) fn line_height(&self) -> f32 {
        let side = |from: usize, to: usize| {
            let ring = self.rings.first()?;
            let (a, b) = (ring.get(from)?, ring.get(to)?);
            Some((a.x - b.x).hypot(a.y - b.y))
        };
        let along = side(0, 1).unwrap_or_default();
        let across = side(1, 2).unwrap_or_default();
        along.min(across)
    }

    /// Where the tag belongs: at the outer edge of the outline; on an object, above its top.
    pub(super) fn anchor(&self, stroke: u16) -> Anchor {
        let half = f32::from(stroke) / 2.0;
        let Bounds {
            left,
            top,
            right,
            bottom,
        } = self.bounds;
        Anchor {
            area: Area {
                left: (left - half).round() as i32,
                top: (top - half).round() as i32,
                right: (right + half).round() as i32,
                bottom: (bottom + half).round() as i32,
            },
            side: match self.kind {
                Kind::Box => Side::LeftEdge,
                Kind::Quad => Side::Beside,
                Kind::Region => Side::Center(self.summit().round() as i32),
            },
        }
    }

    /// The middle column of what stands out highest in the largest ring: of the points around the
    /// topmost one that are nearly as high.
    fn summit(&self) -> f32 {
        let Bounds {
            top,
            bottom,
            left,
            right,
        } = self.bounds;
        let area = |ring: &Vec<Point>| Bounds::around(ring).map_or(0.0, |it| it.area());
        let largest = self.rings.iter().max_by(|a, b| area(a).total_cmp(&area(b)));
        let ring = largest.map(Vec::as_slice).unwrap_or_default();
        let highest = ring
            .iter()
            .enumerate()
            .min_by(|a, b| a.1.y.total_cmp(&b.1.y));
        let Some((highest, _)) = highest else {
            return (left + right) / 2.0;
        };
        let below = top + (bottom - top) * SUMMIT;
        let (before, from) = ring.split_at(highest);
        let rightward = from.iter().chain(before).take_while(|it| it.y <= below);
        let leftward = before.iter().rev().chain(from.iter().rev());
        let leftward = leftward.take_while(|it| it.y <= below);
        let (low, high) = rightward
            .chain(leftward)
            .fold((f32::MAX, f32::MIN), |(low, high), point| {
                (low.min(point.x), high.max(point.x))
            });
        (low + high) / 2.0
    }
}

/// The places of an answer, in its order. `None` for a text.
pub(super) fn of(answer: &Answer, width: u32, height: u32) -> Option<Vec<Place<'_>>> {
    let mut cleaner = Cleaner {
        width: width as f32,
        height: height as f32,
        colors: Colors::default(),
        boxes: HashMap::new(),
    };
    Some(match answer {
        Answer::Text(_) => return None,
        Answer::Boxes(boxes) => boxes.iter().map(|it| cleaner.rectangle(it)).collect(),
        Answer::Quads(quads) => quads.iter().filter_map(|it| cleaner.quad(it)).collect(),
        Answer::Polygons(objects) => objects.iter().filter_map(|it| cleaner.region(it)).collect(),
        Answer::BoxesAndPolygons(boxes, objects) => {
            let mut places: Vec<Place<'_>> = boxes.iter().map(|it| cleaner.rectangle(it)).collect();
            places.extend(objects.iter().filter_map(|it| cleaner.region(it)));
            places
        }
    })
}

struct Cleaner<'a> {
    width: f32,
    height: f32,
    colors: Colors<'a>,
    /// How many boxes there are with these corners, on whole pixels.
    boxes: HashMap<[i32; 4], u16>,
}

impl<'a> Cleaner<'a> {
    /// `max` before `min`: what is no number becomes zero.
    fn point(&self, x: f32, y: f32) -> Point {
        Point {
            x: x.max(0.0).min(self.width),
            y: y.max(0.0).min(self.height),
        }
    }

    fn ring(&self, coordinates: &[f32]) -> Vec<Point> {
        let mut ring: Vec<Point> = coordinates
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[x, y]| self.point(*x, *y))
            .collect();
        ring.dedup();
        ring
    }

    fn rectangle(&mut self, found: &'a LabelledBox) -> Place<'a> {
        let (a, b) = (
            self.point(found.x1, found.y1),
            self.point(found.x2, found.y2),
        );
        let (left, right) = widened(a.x.min(b.x), a.x.max(b.x), self.width);
        let (top, bottom) = widened(a.y.min(b.y), a.y.max(b.y), self.height);
        let label = found.label.trim();
        let corners = [left, top, right, bottom].map(|it| it.round() as i32);
        let same = self.boxes.entry(corners).or_default();
        let same_before = *same;
        *same = same.saturating_add(1);
        Place {
            kind: Kind::Box,
            label,
            color: self.colors.of(label),
            bounds: Bounds {
                left,
                top,
                right,
                bottom,
            },
            rings: Vec::new(),
            same_before,
        }
    }

    fn quad(&mut self, found: &'a LabelledQuad) -> Option<Place<'a>> {
        let ring = self.ring(&found.points);
        self.outlined(Kind::Quad, &found.label, vec![ring])
    }

    fn region(&mut self, found: &'a LabelledPolygons) -> Option<Place<'a>> {
        let rings = found.polygons.iter().map(|it| self.ring(it)).collect();
        self.outlined(Kind::Region, &found.label, rings)
    }

    fn outlined(
        &mut self,
        kind: Kind,
        label: &'a str,
        mut rings: Vec<Vec<Point>>,
    ) -> Option<Place<'a>> {
        rings.retain(|ring| ring.len() > 1);
        let bounds = rings
            .iter()
            .filter_map(|ring| Bounds::around(ring))
            .max_by(|a, b| a.area().total_cmp(&b.area()))?;
        let label = label.trim();
        Some(Place {
            kind,
            label,
            color: self.colors.of(label),
            bounds,
            rings,
            same_before: 0,
        })
    }
}

/// A span of at least [`SMALLEST_SIDE`] around the given one, inside `0..=end` where that has room.
fn widened(low: f32, high: f32, end: f32) -> (f32, f32) {
    if high - low >= SMALLEST_SIDE {
        return (low, high);
    }
    let start = ((low + high - SMALLEST_SIDE) / 2.0)
        .min(end - SMALLEST_SIDE)
        .max(0.0);
    (start, (start + SMALLEST_SIDE).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(x1: f32, y1: f32, x2: f32, y2: f32, label: &str) -> LabelledBox {
        LabelledBox {
            x1,
            y1,
            x2,
            y2,
            label: label.to_owned(),
            score: None,
        }
    }

    fn outlined(polygons: Vec<Vec<f32>>) -> LabelledPolygons {
        LabelledPolygons {
            polygons,
            label: String::new(),
            scores: Vec::new(),
        }
    }

    #[test]
    fn hostile_corners_end_up_inside_the_picture_in_order() {
        let answer = Answer::Boxes(vec![
            boxed(90.0, 40.0, 10.0, 5.0, ""),
            boxed(-1e30, f32::NEG_INFINITY, f32::MAX, f32::INFINITY, ""),
            boxed(f32::NAN, f32::NAN, 5.0, 6.0, ""),
            boxed(500.0, 500.0, 500.0, 500.0, ""),
        ]);
        let places = of(&answer, 100, 50).unwrap();
        let bounds: Vec<[f32; 4]> = places
            .iter()
            .map(|place| place.bounds)
            .map(|it| [it.left, it.top, it.right, it.bottom])
            .collect();
        assert_eq!(
            bounds,
            [
                [10.0, 5.0, 90.0, 40.0],
                [0.0, 0.0, 100.0, 50.0],
                [0.0, 0.0, 5.0, 6.0],
                [97.0, 47.0, 100.0, 50.0],
            ]
        );
    }

    #[test]
    fn equal_labels_share_a_colour_across_boxes_and_outlines() {
        let object = LabelledPolygons {
            polygons: vec![vec![1.0, 2.0, 3.0, 4.0, 9.0, 2.0]],
            label: " cat".into(),
            scores: Vec::new(),
        };
        let boxes = vec![
            boxed(0.0, 0.0, 9.0, 9.0, "cat"),
            boxed(0.0, 0.0, 9.0, 9.0, "dog"),
        ];
        let answer = Answer::BoxesAndPolygons(boxes, vec![object]);
        let colors: Vec<Rgb> = of(&answer, 10, 10)
            .unwrap()
            .iter()
            .map(|place| place.color)
            .collect();
        assert_eq!(colors[0], colors[2]);
        assert_ne!(colors[0], colors[1]);
    }

    #[test]
    fn outlines_without_extent_are_not_places() {
        let polygons = vec![vec![], vec![5.0], vec![5.0, 5.0], vec![5.0, 5.0, 5.0, 5.0]];
        let answer = Answer::Polygons(vec![outlined(polygons)]);
        assert!(of(&answer, 10, 10).unwrap().is_empty());
    }

    #[test]
    fn the_tag_of_an_object_is_centred_over_its_top() {
        let polygons = vec![vec![60.0, 10.0, 80.0, 10.0, 90.0, 90.0, 10.0, 90.0]];
        let answer = Answer::Polygons(vec![outlined(polygons)]);
        let anchor = of(&answer, 100, 100).unwrap()[0].anchor(1);
        assert!(matches!(anchor.side, Side::Center(70)));
    }
    #[test]
    fn the_tag_of_an_object_with_two_tops_stands_on_the_higher_one() {
        let ears = vec![
            10.0, 10.0, 20.0, 40.0, 70.0, 40.0, 80.0, 8.0, 90.0, 90.0, 10.0, 90.0,
        ];
        let small = vec![0.0, 0.0, 5.0, 0.0, 5.0, 5.0];
        let label = String::new();
        let polygons = vec![small, ears];
        let answer = Answer::Polygons(vec![LabelledPolygons {
            polygons,
            label,
            scores: Vec::new(),
        }]);
        let anchor = of(&answer, 100, 100).unwrap()[0].anchor(1);
        assert!(matches!(anchor.side, Side::Center(80)), "{anchor:?}");
    }

    #[test]
    fn boxes_with_the_same_corners_are_counted() {
        let same = |label| boxed(5.0, 5.0, 50.2, 50.0, label);
        let other = boxed(5.0, 5.0, 60.0, 50.0, "a");
        let answer = Answer::Boxes(vec![same("a"), other, same("b"), same("c")]);
        let places = of(&answer, 100, 100).unwrap();
        let counts: Vec<u16> = places.iter().map(|place| place.same_before).collect();
        assert_eq!(counts, [0, 0, 1, 2]);
    }
}
