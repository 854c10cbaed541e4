//! The fourteen endpoints of `fal-ai/florence-2-large`: name, input model, output model.
//!
//! This is fal's published catalogue, kept apart from the model's own task table; `pipeline` joins
//! the two by name and checks that they agree.

/// The account in whose name the endpoints are published.
pub const OWNER: &str = "fal-ai";

/// The application's name.
pub const ALIAS: &str = "florence-2-large";

/// Which fields an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputModel {
    /// `ImageInput`: `image_url`.
    Image,
    /// `ImageWithTextInput`: `image_url`, `text_input`.
    ImageWithText,
    /// `ImageWithUserCoordinatesInput`: `image_url`, `region`.
    ImageWithRegion,
}

/// Which shape an endpoint answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputModel {
    /// `TextOutput`.
    Text,
    /// `BoundingBoxOutputWithLabels`.
    Boxes,
    /// `OCRBoundingBoxOutputWithLabels`.
    OcrBoxes,
    /// `PolygonOutputWithLabels`.
    Polygons,
}

/// One row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Last part of the endpoint id, such as `dense-region-caption`.
    pub name: &'static str,
    /// What it takes.
    pub input: InputModel,
    /// What it answers.
    pub output: OutputModel,
}

const fn row(name: &'static str, input: InputModel, output: OutputModel) -> Endpoint {
    Endpoint {
        name,
        input,
        output,
    }
}

/// All endpoints.
pub static ENDPOINTS: [Endpoint; 14] = {
    use InputModel::{Image, ImageWithRegion, ImageWithText};
    use OutputModel::{Boxes, OcrBoxes, Polygons, Text};
    [
        row("caption", Image, Text),
        row("detailed-caption", Image, Text),
        row("more-detailed-caption", Image, Text),
        row("object-detection", Image, Boxes),
        row("dense-region-caption", Image, Boxes),
        row("region-proposal", Image, Boxes),
        row("ocr", Image, Text),
        row("ocr-with-region", Image, OcrBoxes),
        row("caption-to-phrase-grounding", ImageWithText, Boxes),
        row("referring-expression-segmentation", ImageWithText, Polygons),
        row("region-to-segmentation", ImageWithRegion, Polygons),
        row("open-vocabulary-detection", ImageWithText, Boxes),
        row("region-to-category", ImageWithRegion, Text),
        row("region-to-description", ImageWithRegion, Text),
    ]
};

impl Endpoint {
    /// The endpoint of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|endpoint| endpoint.name == name)
    }
}
