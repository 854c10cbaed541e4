//! Every route as the documents describe it: what it takes, what it answers, and every refusal.
//!
//! A test holds this list to the route table. Statuses and shapes of refusals are those of
//! [`crate::server::error`]; their words here are for readers.

use serde_json::{Map, Value, json};

use super::schemas;
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, InputModel, OWNER, OutputModel};

/// One method of one path.
pub(super) struct Operation {
    /// Lower-case, as the documents spell it.
    pub(super) method: &'static str,
    /// The path, parameters in braces.
    pub(super) path: String,
    /// The chapter.
    pub(super) tag: &'static str,
    /// One line.
    pub(super) summary: String,
    /// What else there is to know; often empty.
    pub(super) description: &'static str,
    /// Parameters in path, query and headers.
    pub(super) parameters: Vec<Value>,
    /// The schema of a JSON body, and an example.
    pub(super) body: Option<(Value, Value)>,
    /// Statuses with their answers.
    pub(super) answers: Vec<Answer>,
    /// Whether a key is asked for, when there are any.
    pub(super) needs_key: bool,
}

/// What a status comes with.
pub(super) struct Answer {
    status: u16,
    description: &'static str,
    media_type: &'static str,
    schema: Value,
    example: Option<Value>,
}

impl Answer {
    pub(super) fn json(status: u16, description: &'static str, schema: Value) -> Self {
        Self::of(status, description, "application/json", schema)
    }

    pub(super) fn of(
        status: u16,
        description: &'static str,
        media_type: &'static str,
        schema: Value,
    ) -> Self {
        Self {
            status,
            description,
            media_type,
            schema,
            example: None,
        }
    }

    fn with(mut self, example: Value) -> Self {
        self.example = Some(example);
        self
    }
}

/// The chapters and what they are about.
pub(super) const TAGS: [(&str, &str); 2] = [
    (
        "Run",
        "fal's synchronous call: the input in, the bare answer back. Each path stands under `/run` as well, and answers with or without a final slash.",
    ),
    (
        "Server",
        "What this server tells about itself. None of these needs a key.",
    ),
];

/// All routes.
pub(super) fn all() -> Vec<Operation> {
    let mut operations: Vec<_> = ENDPOINTS.iter().map(run).collect();
    operations.push(tasks());
    operations.extend(server());
    operations
}

/// What an endpoint does, in one line.
pub(super) fn summary(endpoint: &Endpoint) -> &'static str {
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

/// The refusals that every call of the model may get.
pub(super) fn refusals() -> Vec<Answer> {
    let request = schemas::reference("RequestError");
    let model = schemas::reference("ModelError");
    let plain = schemas::reference("PlainError");
    let overload = json!({
        "detail": "Too many requests at once. Try again later.",
        "error_type": "concurrent_requests_limit",
    });
    let invalid = json!({"detail": [{
        "type": "missing",
        "loc": ["body", "image_url"],
        "msg": "Field required",
        "input": {},
        "url": "https://docs.fal.ai/errors#missing",
    }]});
    vec![
        Answer::json(
            400,
            "A header is malformed, or the body broke off.",
            request.clone(),
        ),
        Answer::json(401, "The key is missing or unknown.", plain),
        Answer::json(408, "The body arrived too slowly.", request.clone()),
        Answer::json(413, "The body has too many bytes.", model.clone()),
        Answer::json(
            422,
            "The input is invalid, one entry for each fault in the order of the fields; or the picture cannot be had or read.",
            model,
        )
        .with(invalid),
        Answer::json(
            429,
            "Too many calls at once; `Retry-After` says when to try again.",
            request.clone(),
        )
        .with(overload),
        Answer::json(500, "The server's own fault.", request.clone()),
        Answer::json(503, "The model is not ready.", request.clone()),
        Answer::json(
            504,
            "The call did not begin within the time of `X-Fal-Request-Timeout`.",
            request,
        ),
    ]
}

/// A header that a call may carry.
pub(super) fn header(name: &str, kind: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "header",
        "required": false,
        "description": description,
        "schema": { "type": kind },
    })
}

/// The deadline that run and submit both know.
pub(super) fn request_timeout() -> Value {
    header(
        "X-Fal-Request-Timeout",
        "number",
        "Seconds within which the model must have begun.",
    )
}

fn run(endpoint: &Endpoint) -> Operation {
    let output = schemas::reference(schemas::output_name(endpoint.output));
    let answer = Answer::json(200, "The answer.", output).with(example_answer(endpoint));
    Operation {
        method: "post",
        path: format!("/{OWNER}/{ALIAS}/{}", endpoint.name),
        tag: "Run",
        summary: summary(endpoint).into(),
        description: "",
        parameters: vec![request_timeout()],
        body: Some((
            schemas::reference(schemas::input_name(endpoint.input)),
            example_input(endpoint.input),
        )),
        answers: [answer].into_iter().chain(refusals()).collect(),
        needs_key: true,
    }
}

fn tasks() -> Operation {
    let output = schemas::reference("TasksOutput");
    let results = json!({ "results": [
        { "task": "caption", "results": "A green car parked in front of a yellow building." },
        { "task": "open-vocabulary-detection", "results": { "bboxes": [] }, "image": null },
    ]});
    let answer = Answer::json(200, "The answers.", output).with(results);
    let example = json!({
        "image_url": CAR,
        "tasks": ["caption", { "task": "open-vocabulary-detection", "text_input": "a bicycle" }],
    });
    Operation {
        method: "post",
        path: format!("/{OWNER}/{ALIAS}"),
        tag: "Run",
        summary: "Several tasks about one picture, from one look at it".into(),
        description: "Not on fal.",
        parameters: vec![request_timeout()],
        body: Some((schemas::reference("TasksInput"), example)),
        answers: [answer].into_iter().chain(refusals()).collect(),
        needs_key: true,
    }
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

fn server() -> Vec<Operation> {
    let word = json!({
        "type": "object",
        "properties": { "status": { "type": "string" } },
        "required": ["status"],
    });
    let free = json!({ "type": "object" });
    let text = json!({ "type": "string" });
    let endpoint_id = json!({
        "name": "endpoint_id",
        "in": "query",
        "required": true,
        "description": "The endpoint, such as `fal-ai/florence-2-large/caption`.",
        "schema": { "type": "string" },
    });
    let page = |path: &str, summary: &str, answers: Vec<Answer>| Operation {
        method: "get",
        path: path.into(),
        tag: "Server",
        summary: summary.into(),
        description: "",
        parameters: Vec::new(),
        body: None,
        answers,
        needs_key: false,
    };
    let unready = Answer::json(503, "It is starting or stopping.", word.clone());
    let mut published = page(
        super::PUBLISHED,
        "fal's own description of one endpoint",
        vec![
            Answer::json(200, "An OpenAPI 3.0.4 document.", free.clone()),
            Answer::json(404, "No such endpoint.", json!({ "type": "null" })),
        ],
    );
    published.parameters.push(endpoint_id);
    vec![
        page(
            "/health/live",
            "Whether the process answers",
            vec![Answer::json(200, "It does.", word.clone())],
        ),
        page(
            "/health/ready",
            "Whether calls are answered",
            vec![Answer::json(200, "They are.", word), unready],
        ),
        page(
            "/metrics",
            "Figures for Prometheus",
            vec![Answer::of(
                200,
                "All series.",
                "application/openmetrics-text",
                text.clone(),
            )],
        ),
        page(
            "/openapi.json",
            "This document",
            vec![Answer::json(200, "An OpenAPI 3.1 document.", free)],
        ),
        page(
            "/docs",
            "This document as a page",
            vec![Answer::of(200, "A page.", "text/html", text)],
        ),
        published,
    ]
}

impl Operation {
    /// The operation as the document writes it.
    pub(super) fn to_json(&self) -> Value {
        let mut operation = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "operationId": self.id(),
            "responses": self.responses(),
        });
        if !self.description.is_empty() {
            operation["description"] = json!(self.description);
        }
        if !self.parameters.is_empty() {
            operation["parameters"] = json!(self.parameters);
        }
        if let Some((schema, example)) = &self.body {
            operation["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": schema, "example": example } },
            });
        }
        if !self.needs_key {
            operation["security"] = json!([]);
        }
        operation
    }

    /// A name that is unique among all operations.
    fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        [self.method]
            .into_iter()
            .chain(words)
            .collect::<Vec<_>>()
            .join("_")
    }

    fn responses(&self) -> Map<String, Value> {
        let entry = |answer: &Answer| {
            let mut content = json!({ "schema": answer.schema });
            if let Some(example) = &answer.example {
                content["example"] = example.clone();
            }
            let body = json!({
                "description": answer.description,
                "content": { answer.media_type: content },
            });
            (answer.status.to_string(), body)
        };
        self.answers.iter().map(entry).collect()
    }
}
