//! The wire types as JSON Schema, under the names by which fal publishes them.
//!
//! Field names, order, optionality and descriptions come from the types themselves. Additions of
//! our own are marked on their fields with [`EXTENSION`], so that fal's documents can leave them out.

use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::fal::endpoint::{InputModel, OutputModel};
use crate::fal::error::{ModelError, PlainError, RequestError};
use crate::fal::output::{Bboxes, Polygons, QuadBoxes, TasksOutput, TextOutput, WithImage};
use crate::fal::published::{
    ImageInput, ImageWithTextInput, ImageWithUserCoordinatesInput, TasksInput,
};
use crate::fal::queue::{QueueStatus, QueueWord};
use crate::fal::storage::{
    CompleteInput, InitiateInput, InitiateOutput, MultipartOutput, TokenOutput, UploadOutput,
    UploadedPart,
};

/// Marks a field that fal does not have.
pub(super) const EXTENSION: &str = "x-florence2-extension";

/// Fields of lists that fal does not have: the derived schema of a list carries no mark of its own.
const EXTENDING_LISTS: [(&str, &str); 1] = [("OCRBoundingBoxSingle", "points")];

/// Where documents keep schemas.
pub(super) const COMPONENTS: &str = "#/components/schemas/";

/// The input models.
pub(super) const INPUTS: [InputModel; 3] = [
    InputModel::Image,
    InputModel::ImageWithText,
    InputModel::ImageWithRegion,
];

/// The output models.
pub(super) const OUTPUTS: [OutputModel; 4] = [
    OutputModel::Text,
    OutputModel::Boxes,
    OutputModel::OcrBoxes,
    OutputModel::Polygons,
];

/// A reference to a schema.
pub(super) fn reference(name: &str) -> Value {
    serde_json::json!({ "$ref": format!("{COMPONENTS}{name}") })
}

/// A named schema, then those that it refers to.
pub(super) fn collect<T: ToSchema>(name: &str) -> Vec<(String, Value)> {
    let mut nested = Vec::new();
    T::schemas(&mut nested);
    nested.insert(0, (name.to_owned(), T::schema()));
    let marked = nested.iter().map(|(name, schema)| {
        let mut schema = value(schema);
        for (owner, field) in EXTENDING_LISTS {
            if name == owner {
                schema["properties"][field][EXTENSION] = Value::Bool(true);
            }
        }
        (name.clone(), schema)
    });
    marked.collect()
}

/// The same for an answer with a picture. A type parameter is referred to and not collected by
/// itself, so it is added here.
fn collect_with_image<T: ToSchema>(name: &str) -> Vec<(String, Value)>
where
    WithImage<T>: ToSchema,
{
    let mut all = collect::<WithImage<T>>(name);
    all.extend(collect::<T>(&T::name()));
    all
}

/// These schemas have string keys and finite numbers, so turning them into a value cannot fail.
fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// The published name of an input model, and its schemas.
pub(super) fn input(model: InputModel) -> (&'static str, Vec<(String, Value)>) {
    let name = input_name(model);
    let schemas = match model {
        InputModel::Image => collect::<ImageInput>(name),
        InputModel::ImageWithText => collect::<ImageWithTextInput>(name),
        InputModel::ImageWithRegion => collect::<ImageWithUserCoordinatesInput>(name),
    };
    (name, schemas)
}

/// The published name of an output model, and its schemas.
pub(super) fn output(model: OutputModel) -> (&'static str, Vec<(String, Value)>) {
    let name = output_name(model);
    let schemas = match model {
        OutputModel::Text => collect::<TextOutput>(name),
        OutputModel::Boxes => collect_with_image::<Bboxes>(name),
        OutputModel::OcrBoxes => collect_with_image::<QuadBoxes>(name),
        OutputModel::Polygons => collect_with_image::<Polygons>(name),
    };
    (name, schemas)
}

/// The published name of an input model.
pub(super) fn input_name(model: InputModel) -> &'static str {
    match model {
        InputModel::Image => "ImageInput",
        InputModel::ImageWithText => "ImageWithTextInput",
        InputModel::ImageWithRegion => "ImageWithUserCoordinatesInput",
    }
}

/// The published name of an output model.
pub(super) fn output_name(model: OutputModel) -> &'static str {
    match model {
        OutputModel::Text => "TextOutput",
        OutputModel::Boxes => "BoundingBoxOutputWithLabels",
        OutputModel::OcrBoxes => "OCRBoundingBoxOutputWithLabels",
        OutputModel::Polygons => "PolygonOutputWithLabels",
    }
}

/// Every schema of our own document, by name.
pub(super) fn all() -> Map<String, Value> {
    let models = INPUTS
        .into_iter()
        .flat_map(|model| input(model).1)
        .chain(OUTPUTS.into_iter().flat_map(|model| output(model).1));
    let others = [
        collect::<TasksInput>("TasksInput"),
        collect::<TasksOutput>("TasksOutput"),
        collect::<QueueStatus>("QueueStatus"),
        collect::<QueueWord>("QueueWord"),
        collect::<InitiateInput>("InitiateInput"),
        collect::<InitiateOutput>("InitiateOutput"),
        collect::<TokenOutput>("TokenOutput"),
        collect::<UploadOutput>("UploadOutput"),
        collect::<MultipartOutput>("MultipartOutput"),
        collect::<UploadedPart>("UploadedPart"),
        collect::<CompleteInput>("CompleteInput"),
        collect::<ModelError>("ModelError"),
        collect::<RequestError>("RequestError"),
        collect::<PlainError>("PlainError"),
    ];
    let schemas = models.chain(others.into_iter().flatten());
    let mut renamed = Map::new();
    for (name, mut schema) in schemas {
        rename(&mut schema);
        renamed.entry(published_name(&name)).or_insert(schema);
    }
    renamed
}

/// The name of an answer with a picture: derived from its type parameter, and published otherwise.
fn published_name(name: &str) -> String {
    let parameter = name.strip_prefix("WithImage_");
    let models = [
        (Bboxes::name(), OutputModel::Boxes),
        (QuadBoxes::name(), OutputModel::OcrBoxes),
        (Polygons::name(), OutputModel::Polygons),
    ];
    let known = models
        .iter()
        .find(|(known, _)| parameter == Some(known.as_ref()));
    known.map_or(name, |(_, model)| output_name(*model)).into()
}

/// Lets references follow [`published_name`].
fn rename(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str().and_then(|it| it.strip_prefix(COMPONENTS)) {
                    Some(name) if key == "$ref" => {
                        *member = format!("{COMPONENTS}{}", published_name(name)).into();
                    }
                    _ => rename(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        _ => {}
    }
}
