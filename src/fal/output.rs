//! The answers of the fourteen endpoints, keys in the published order.
//!
//! Coordinates are pixels of the upright picture, kept in f32 and written in the shortest form that
//! reads back as the same f32. That holds only when these types are written straight to text:
//! passing through `serde_json::Value` would widen them and print noise digits.

use serde::Serialize;

/// Body of a successful call.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextOutput {
    /// What the model wrote.
    pub results: String,
}

/// Findings, and the picture with the findings drawn on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WithImage<T> {
    /// The findings.
    pub results: T,
    /// The drawn picture; null when there is none.
    pub image: Option<Image>,
}

/// `BoundingBoxes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bboxes {
    /// All boxes, possibly none.
    pub bboxes: Vec<BoundingBox>,
}

/// `OCRBoundingBox`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuadBoxes {
    /// All text boxes, possibly none.
    pub quad_boxes: Vec<BoundingBox>,
}

/// `PolygonOutput`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Polygons {
    /// All outlines, possibly none.
    pub polygons: Vec<Polygon>,
}

/// An upright rectangle in pixels with its label. Also the shape of `OCRBoundingBoxSingle`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoundingBox {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
    /// What it is, or the text in it.
    pub label: String,
}

/// An outline in pixels with its label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Polygon {
    /// Corners in order.
    pub points: Vec<Point>,
    /// What it is.
    pub label: String,
}

/// A corner of an outline, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// From the left edge.
    pub x: f32,
    /// From the upper edge.
    pub y: f32,
}

/// A hosted picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Where it can be fetched, or a `data:` URI.
    pub url: String,
    /// Media type.
    pub content_type: Option<String>,
    /// File name.
    pub file_name: Option<String>,
    /// Size in bytes.
    pub file_size: Option<u64>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
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
}
