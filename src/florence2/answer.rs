//! What a generated text says once it is read: text, boxes, quadrilaterals or outlines.
//!
//! Coordinates are pixels of the upright picture, as the original implementation returns them:
//! the centre of the location bin, in f32. Boxes are corner pairs here; fal's `x, y, w, h` is made
//! at the very end, in `pipeline`.
//!
//! A *score*, where one was asked for, is how likely the model held the finding: e to the power of
//! the mean log-probability of the tokens that wrote its label and its place. It is no calibrated
//! confidence: it says how surely these words and numbers were written, not how often they are right.

/// A rectangle by its corners, in pixels, with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// Left edge.
    pub x1: f32,
    /// Upper edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Lower edge.
    pub y2: f32,
    /// What the model called it; may be empty.
    pub label: String,
    /// How likely the model held it.
    pub score: Option<f32>,
}

/// A quadrilateral, in pixels, with the text that stands in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledQuad {
    /// `x1, y1, … x4, y4`.
    pub points: [f32; 8],
    /// The text.
    pub label: String,
    /// How likely the model held it.
    pub score: Option<f32>,
}

/// One object outlined by one or more polygons.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledPolygons {
    /// Each polygon is `x1, y1, x2, y2, …`, in pixels.
    pub polygons: Vec<Vec<f32>>,
    /// What the model called it; empty for the two segmentation tasks.
    pub label: String,
    /// How likely the model held each polygon under this label; empty when nobody asked.
    pub scores: Vec<f32>,
}

/// A generated text, read as its task prescribes.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Plain text.
    Text(String),
    /// Boxes in the order of the text.
    Boxes(Vec<LabelledBox>),
    /// Quadrilaterals in the order of the text.
    Quads(Vec<LabelledQuad>),
    /// Outlined objects in the order of the text.
    Polygons(Vec<LabelledPolygons>),
    /// Open vocabulary: one of the two lists is empty.
    BoxesAndPolygons(Vec<LabelledBox>, Vec<LabelledPolygons>),
}
