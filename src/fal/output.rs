//! The answers of the fourteen endpoints, keys in the published order.
//!
//! Coordinates are pixels of the upright picture, kept in f32 and written in the shortest form that
//! reads back as the same f32. That holds only when these types are written straight to text:
//! passing through `serde_json::Value` would widen them and print noise digits.
//!
//! `score` is our addition. It is there only for callers who asked, always as the last key, and is
//! how likely the model held the finding: e to the power of the mean log-probability of the tokens
//! that wrote its label and its place, from 0 to 1. It is no calibrated confidence.

use serde::Serialize;
use utoipa::ToSchema;

/// Body of a successful call.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Output {
    /// `TextOutput`.
    Text(TextOutput),
    /// `BoundingBoxOutputWithLabels`.
    Boxes(WithImage<Bboxes>),
    /// `OCRBoundingBoxOutputWithLabels`.
    OcrBoxes(WithImage<QuadBoxes>),
    /// `PolygonOutputWithLabels`.
    Polygons(WithImage<Polygons>),
}

/// Body of a successful call with several tasks: one entry for each, in the order asked.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TasksOutput {
    /// The answers.
    pub results: Vec<TaskOutput>,
}

/// The name of a task, then the very keys that the task's own endpoint answers with.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TaskOutput {
    /// The task's endpoint name.
    pub task: &'static str,
    /// What that endpoint would answer.
    #[serde(flatten)]
    pub output: Output,
}

impl Output {
    /// Puts the drawn picture in. A text has no place for one.
    pub fn set_image(&mut self, image: Option<Image>) {
        match self {
            Self::Text(_) => {}
            Self::Boxes(with) => with.image = image,
            Self::OcrBoxes(with) => with.image = image,
            Self::Polygons(with) => with.image = image,
        }
    }

    /// About how many bytes it takes as JSON, without writing it.
    #[must_use]
    pub fn weight(&self) -> usize {
        let (findings, image) = match self {
            Self::Text(text) => return text.results.len(),
            Self::Boxes(with) => {
                let boxes = with.results.bboxes.iter();
                (
                    boxes.map(|it| it.label.len() + 64).sum::<usize>(),
                    &with.image,
                )
            }
            Self::OcrBoxes(with) => {
                let boxes = with.results.quad_boxes.iter();
                (
                    boxes.map(|it| it.label.len() + 160).sum::<usize>(),
                    &with.image,
                )
            }
            Self::Polygons(with) => {
                let polygons = with.results.polygons.iter();
                let sizes = polygons.map(|it| it.label.len() + 32 * it.points.len());
                (sizes.sum::<usize>(), &with.image)
            }
        };
        findings + image.as_ref().map_or(0, |image| image.url.len())
    }
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TextOutput {
    /// What the model wrote.
    pub results: String,
}

/// Findings, and the picture with the findings drawn on it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WithImage<T> {
    /// The findings.
    pub results: T,
    /// The drawn picture; null when there is none.
    pub image: Option<Image>,
}

/// `BoundingBoxes`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = BoundingBoxes)]
pub struct Bboxes {
    /// All boxes, possibly none.
    pub bboxes: Vec<BoundingBox>,
}

/// `OCRBoundingBox`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OCRBoundingBox)]
pub struct QuadBoxes {
    /// All text boxes, possibly none.
    pub quad_boxes: Vec<QuadBox>,
}

/// `PolygonOutput`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = PolygonOutput)]
pub struct Polygons {
    /// All outlines, possibly none.
    pub polygons: Vec<Polygon>,
}

/// An upright rectangle in pixels with its label.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct BoundingBox {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
    /// What it is.
    pub label: String,
    /// How likely the model held it, for callers who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub score: Option<f32>,
}

/// `OCRBoundingBoxSingle`: the upright rectangle around a text, in pixels, and, as our addition, the
/// four corners that it encloses.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = OCRBoundingBoxSingle)]
pub struct QuadBox {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
    /// The text in it.
    pub label: String,
    /// `x1, y1, … x4, y4`, as the model wrote them.
    pub points: [f32; 8],
    /// How likely the model held it, for callers who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub score: Option<f32>,
}

/// An outline in pixels with its label.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Polygon {
    /// Corners in order.
    pub points: Vec<Point>,
    /// What it is.
    pub label: String,
    /// How likely the model held it, for callers who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub score: Option<f32>,
}

/// A corner of an outline, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// From the left edge.
    pub x: f32,
    /// From the upper edge.
    pub y: f32,
}

/// A hosted picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Image {
    /// Where it can be fetched, or a `data:` URI.
    pub url: String,
    /// Media type.
    #[schema(examples("image/png"))]
    pub content_type: Option<String>,
    /// File name.
    #[schema(examples("z9RV14K95DvU.png"))]
    pub file_name: Option<String>,
    /// Size in bytes.
    #[schema(examples(4404019))]
    pub file_size: Option<u64>,
    /// Width in pixels.
    #[schema(examples(1024))]
    pub width: Option<u32>,
    /// Height in pixels.
    #[schema(examples(1024))]
    pub height: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(output: &Output) -> String {
        serde_json::to_string(output).unwrap()
    }

    #[test]
    fn numbers_are_the_shortest_that_read_back_as_the_same_f32() {
        let bboxes = vec![BoundingBox {
            x: 33.6,
            y: 0.0,
            w: 563.2,
            h: 1e-7,
            label: "\"é\"".into(),
            score: None,
        }];
        let output = Output::Boxes(WithImage {
            results: Bboxes { bboxes },
            image: None,
        });
        assert_eq!(
            text_of(&output),
            r#"{"results":{"bboxes":[{"x":33.6,"y":0.0,"w":563.2,"h":1e-7,"label":"\"é\""}]},"image":null}"#
        );
    }

    #[test]
    fn keys_come_in_the_published_order() {
        let image = Image {
            url: "u".into(),
            content_type: Some("image/png".into()),
            file_name: None,
            file_size: Some(1),
            width: Some(2),
            height: Some(3),
        };
        let polygon = Polygon {
            points: vec![Point { x: 10.5, y: 20.25 }],
            label: String::new(),
            score: None,
        };
        let polygons = Output::Polygons(WithImage {
            results: Polygons {
                polygons: vec![polygon],
            },
            image: Some(image),
        });
        assert_eq!(
            text_of(&polygons),
            r#"{"results":{"polygons":[{"points":[{"x":10.5,"y":20.25}],"label":""}]},"image":{"url":"u","content_type":"image/png","file_name":null,"file_size":1,"width":2,"height":3}}"#
        );
        let quads = Output::OcrBoxes(WithImage {
            results: QuadBoxes { quad_boxes: vec![] },
            image: None,
        });
        assert_eq!(
            text_of(&quads),
            r#"{"results":{"quad_boxes":[]},"image":null}"#
        );
        let text = Output::Text(TextOutput {
            results: "t".into(),
        });
        assert_eq!(text_of(&text), r#"{"results":"t"}"#);
    }

    #[test]
    fn a_score_is_the_last_key_and_points_are_eight_numbers() {
        let quad = QuadBox {
            x: 1.0,
            y: 2.0,
            w: 3.0,
            h: 4.0,
            label: "t".into(),
            points: [1.0, 2.0, 4.0, 2.0, 4.0, 6.0, 1.1, 6.0],
            score: Some(0.1),
        };
        assert_eq!(
            serde_json::to_string(&quad).unwrap(),
            r#"{"x":1.0,"y":2.0,"w":3.0,"h":4.0,"label":"t","points":[1.0,2.0,4.0,2.0,4.0,6.0,1.1,6.0],"score":0.1}"#
        );
        let polygon = Polygon {
            points: vec![],
            label: "t".into(),
            score: Some(1.0),
        };
        assert_eq!(
            serde_json::to_string(&polygon).unwrap(),
            r#"{"points":[],"label":"t","score":1.0}"#
        );
    }

    #[test]
    fn an_entry_of_several_tasks_is_the_endpoints_answer_after_its_name() {
        let bboxes = vec![BoundingBox {
            x: 33.6,
            y: 0.1,
            w: 563.2,
            h: 1.0,
            label: "a".into(),
            score: None,
        }];
        let boxes = Output::Boxes(WithImage {
            results: Bboxes { bboxes },
            image: None,
        });
        let text = Output::Text(TextOutput {
            results: "t".into(),
        });
        let results = [("object-detection", boxes), ("caption", text)];
        let results = results.map(|(task, output)| TaskOutput { task, output });
        let whole = TasksOutput {
            results: results.to_vec(),
        };
        assert_eq!(
            serde_json::to_string(&whole).unwrap(),
            r#"{"results":[{"task":"object-detection","results":{"bboxes":[{"x":33.6,"y":0.1,"w":563.2,"h":1.0,"label":"a"}]},"image":null},{"task":"caption","results":"t"}]}"#
        );
    }
}
