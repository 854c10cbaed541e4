//! Synchronous calls, as the documents describe them, with an example of each shape.

use serde_json::{Value, json};

use super::{Answer, Operation, refusals, request_timeout};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, InputModel, OWNER, OutputModel};
use crate::server::openapi::schemas;

const TAG: &str = "Run";

/// The calls.
pub(super) fn all() -> Vec<Operation> {
    ENDPOINTS.iter().map(run).chain([tasks()]).collect()
}

fn run(endpoint: &Endpoint) -> Operation {
    let output = schemas::reference(schemas::output_name(endpoint.output));
    let answer = Answer::json(200, "The answer.", output).with(example_answer(endpoint));
    let answers = [answer].into_iter().chain(refusals()).collect();
    Operation {
        method: "post",
        path: format!("/{OWNER}/{ALIAS}/{}", endpoint.name),
        parameters: vec![request_timeout()],
        body: Some((
            schemas::reference(schemas::input_name(endpoint.input)),
            example_input(endpoint.input),
        )),
        ..Operation::reading(TAG, summary(endpoint), answers)
    }
}

fn tasks() -> Operation {
    let output = schemas::reference("TasksOutput");
    let results = json!({ "results": [
        { "task": "caption", "results": "A green car parked in front of a yellow building." },
        { "task": "open-vocabulary-detection", "results": { "bboxes": [] }, "image": null },
    ]});
    let answer = Answer::json(200, "The answers.", output).with(results);
    let answers = [answer].into_iter().chain(refusals()).collect();
    Operation {
        method: "post",
        path: format!("/{OWNER}/{ALIAS}"),
        description: "Not on fal.",
        parameters: vec![request_timeout()],
        body: Some(tasks_body()),
        ..Operation::reading(
            TAG,
            "Several tasks about one picture, from one look at it",
            answers,
        )
    }
}

/// The body of a call with several tasks, and an example of it.
pub(super) fn tasks_body() -> (Value, Value) {
    let example = json!({
        "image_url": CAR,
        "tasks": ["caption", { "task": "open-vocabulary-detection", "text_input": "a bicycle" }],
    });
    (schemas::reference("TasksInput"), example)
}

/// A picture that fal's own examples show.
const CAR: &str = "https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/transformers/tasks/car.jpg";

/// A request that an endpoint accepts.
pub(super) fn example_input(model: InputModel) -> Value {
    match model {
        InputModel::Image => json!({ "image_url": CAR }),
        InputModel::ImageWithText => json!({ "image_url": CAR, "text_input": "a green car" }),
        InputModel::ImageWithRegion => json!({
            "image_url": CAR,
            "region": { "x1": 100, "y1": 100, "x2": 200, "y2": 200 },
        }),
    }
}

fn example_answer(endpoint: &Endpoint) -> Value {
    let green_car = json!({"x": 34.24, "y": 160.08, "w": 563.2, "h": 211.68, "label": "green car"});
    match endpoint.output {
        OutputModel::Text => json!({
            "results": "A green car parked in front of a yellow building.",
        }),
        OutputModel::Boxes => json!({ "results": { "bboxes": [green_car] }, "image": null }),
        OutputModel::OcrBoxes => json!({
            "results": { "quad_boxes": [{"x": 12.0, "y": 8.5, "w": 120.0, "h": 22.0, "label": "EXIT"}] },
            "image": null,
        }),
        OutputModel::Polygons => json!({
            "results": { "polygons": [{
                "points": [{"x": 10.5, "y": 20.25}, {"x": 40.0, "y": 20.25}, {"x": 40.0, "y": 60.5}],
                "label": "",
            }]},
            "image": null,
        }),
    }
}

/// What an endpoint does, in one line.
fn summary(endpoint: &Endpoint) -> &'static str {
    match endpoint.name {
        "caption" => "One sentence about the picture",
        "detailed-caption" => "A few sentences about the picture",
        "more-detailed-caption" => "A paragraph about the picture",
        "object-detection" => "Boxes around objects, with the names of their classes",
        "dense-region-caption" => "Boxes around regions, with a short caption each",
        "region-proposal" => "Boxes around whatever stands out, without labels",
        "ocr" => "The text in the picture",
        "ocr-with-region" => "The text in the picture, line by line with its place",
        "caption-to-phrase-grounding" => "Boxes around what the phrases of a caption name",
        "referring-expression-segmentation" => "The outline of what an expression names",
        "region-to-segmentation" => "The outline of what a rectangle encloses",
        "open-vocabulary-detection" => "Boxes around what a text names",
        "region-to-category" => "What class of thing a rectangle encloses",
        "region-to-description" => "What a rectangle encloses, in words",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_a_summary() {
        for endpoint in &ENDPOINTS {
            assert_ne!(summary(endpoint), "", "{}", endpoint.name);
        }
    }
}
