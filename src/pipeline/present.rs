//! Shapes an answer as fal's output: corner pairs become `x, y, w, h`, quadrilaterals their upright
//! enclosing rectangle, polygons lists of points.
//!
//! The last step of a prediction and the only place where the two notations meet. It treats what it
//! is given as the model's word: any order of corners, any number of points.

use crate::fal::output::{
    Bboxes, BoundingBox, Output, Point, Polygon, Polygons, QuadBox, QuadBoxes, TextOutput,
    WithImage,
};
use crate::florence2::answer::{Answer, LabelledBox, LabelledPolygons, LabelledQuad};

/// Shapes an answer as fal's output, without a drawn picture.
///
/// Open vocabulary answered with outlines becomes their enclosing boxes, because the published
/// output of that endpoint has boxes only.
#[must_use]
pub fn present(answer: Answer) -> Output {
    match answer {
        Answer::Text(results) => Output::Text(TextOutput { results }),
        Answer::Boxes(boxes) => boxes_output(boxes.into_iter().map(bounding_box).collect()),
        Answer::Quads(quads) => {
            let quad_boxes = quads.into_iter().map(quad_box).collect();
            Output::OcrBoxes(WithImage {
                results: QuadBoxes { quad_boxes },
                image: None,
            })
        }
        Answer::Polygons(objects) => {
            let polygons = objects.into_iter().flat_map(polygons_of).collect();
            Output::Polygons(WithImage {
                results: Polygons { polygons },
                image: None,
            })
        }
        Answer::BoxesAndPolygons(boxes, objects) => {
            let outlined = objects.into_iter().flat_map(|object| {
                let label = object.label;
                with_scores(object.polygons, object.scores)
                    .filter(|(polygon, _)| !polygon.is_empty())
                    .map(move |(polygon, score)| enclosing_box(&polygon, label.clone(), score))
            });
            boxes_output(
                boxes
                    .into_iter()
                    .map(bounding_box)
                    .chain(outlined)
                    .collect(),
            )
        }
    }
}

fn boxes_output(bboxes: Vec<BoundingBox>) -> Output {
    Output::Boxes(WithImage {
        results: Bboxes { bboxes },
        image: None,
    })
}

/// The model may name the corners in any order; `w` and `h` are never negative.
fn bounding_box(corners: LabelledBox) -> BoundingBox {
    let LabelledBox {
        x1,
        y1,
        x2,
        y2,
        label,
        score,
    } = corners;
    enclosing_box(&[x1, y1, x2, y2], label, score)
}

fn quad_box(quad: LabelledQuad) -> QuadBox {
    let LabelledQuad {
        points,
        label,
        score,
    } = quad;
    let BoundingBox {
        x,
        y,
        w,
        h,
        label,
        score,
    } = enclosing_box(&points, label, score);
    QuadBox {
        x,
        y,
        w,
        h,
        label,
        points,
        score,
    }
}

/// The upright rectangle around points given as `x1, y1, x2, y2, …`.
fn enclosing_box(points: &[f32], label: String, score: Option<f32>) -> BoundingBox {
    let (x, w) = extent(points.iter().step_by(2));
    let (y, h) = extent(points.iter().skip(1).step_by(2));
    BoundingBox {
        x,
        y,
        w,
        h,
        label,
        score,
    }
}

fn extent<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let least = values.clone().copied().reduce(f32::min).unwrap_or(0.0);
    let greatest = values.copied().reduce(f32::max).unwrap_or(0.0);
    (least, greatest - least)
}

fn polygons_of(object: LabelledPolygons) -> impl Iterator<Item = Polygon> {
    let label = object.label;
    with_scores(object.polygons, object.scores).map(move |(polygon, score)| Polygon {
        points: polygon
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[x, y]| Point { x: *x, y: *y })
            .collect(),
        label: label.clone(),
        score,
    })
}

/// Each polygon with its score, if there are any.
fn with_scores(
    polygons: Vec<Vec<f32>>,
    scores: Vec<f32>,
) -> impl Iterator<Item = (Vec<f32>, Option<f32>)> {
    let scores = scores.into_iter().map(Some);
    polygons
        .into_iter()
        .zip(scores.chain(std::iter::repeat(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(answer: Answer) -> String {
        serde_json::to_string(&present(answer)).unwrap()
    }

    #[test]
    fn reversed_corners_become_a_box_of_positive_size() {
        let corners = LabelledBox {
            x1: 30.5,
            y1: 4.0,
            x2: 10.0,
            y2: 1.5,
            label: "a".into(),
            score: None,
        };
        assert_eq!(
            json_of(Answer::Boxes(vec![corners])),
            r#"{"results":{"bboxes":[{"x":10.0,"y":1.5,"w":20.5,"h":2.5,"label":"a"}]},"image":null}"#
        );
    }

    #[test]
    fn quads_become_their_upright_enclosing_rectangle() {
        let quad = LabelledQuad {
            points: [10.0, 5.0, 40.0, 1.0, 42.0, 20.0, 12.0, 24.0],
            label: "text".into(),
            score: None,
        };
        assert_eq!(
            json_of(Answer::Quads(vec![quad])),
            r#"{"results":{"quad_boxes":[{"x":10.0,"y":1.0,"w":32.0,"h":23.0,"label":"text","points":[10.0,5.0,40.0,1.0,42.0,20.0,12.0,24.0]}]},"image":null}"#
        );
    }

    #[test]
    fn every_polygon_is_an_entry_and_the_label_is_repeated() {
        let object = LabelledPolygons {
            polygons: vec![vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0, 7.0]],
            label: "a".into(),
            scores: vec![],
        };
        assert_eq!(
            json_of(Answer::Polygons(vec![object])),
            r#"{"results":{"polygons":[{"points":[{"x":1.0,"y":2.0},{"x":3.0,"y":4.0}],"label":"a"},{"points":[{"x":5.0,"y":6.0}],"label":"a"}]},"image":null}"#
        );
    }

    #[test]
    fn outlines_in_open_vocabulary_become_boxes() {
        let object = LabelledPolygons {
            polygons: vec![vec![], vec![5.0, 9.0, 1.0, 2.0, 3.0, 4.0]],
            label: "a".into(),
            scores: vec![],
        };
        assert_eq!(
            json_of(Answer::BoxesAndPolygons(vec![], vec![object])),
            r#"{"results":{"bboxes":[{"x":1.0,"y":2.0,"w":4.0,"h":7.0,"label":"a"}]},"image":null}"#
        );
    }

    #[test]
    fn scores_stay_with_their_findings() {
        let scored = |scores: Vec<f32>| LabelledPolygons {
            polygons: vec![vec![], vec![1.0, 2.0, 3.0, 4.0]],
            label: "a".into(),
            scores,
        };
        let objects = vec![scored(vec![0.25, 0.5])];
        assert_eq!(
            json_of(Answer::Polygons(objects.clone())),
            r#"{"results":{"polygons":[{"points":[],"label":"a","score":0.25},{"points":[{"x":1.0,"y":2.0},{"x":3.0,"y":4.0}],"label":"a","score":0.5}]},"image":null}"#
        );
        // The outline without points becomes no box, and takes its score with it.
        assert_eq!(
            json_of(Answer::BoxesAndPolygons(vec![], objects)),
            r#"{"results":{"bboxes":[{"x":1.0,"y":2.0,"w":2.0,"h":2.0,"label":"a","score":0.5}]},"image":null}"#
        );
    }
}
