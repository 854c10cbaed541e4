//! Every route as the documents describe it: what it takes, what it answers, and every refusal.
//!
//! A test holds this list to the route table. Statuses and shapes of refusals are those of
//! [`crate::server::error`]; their words here are for readers.

mod files;
mod queue;
mod run;
mod server;

use serde_json::{Map, Value, json};

use super::schemas;

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
    /// Whether the body is any bytes.
    pub(super) takes_bytes: bool,
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
pub(super) const TAGS: [(&str, &str); 4] = [
    (
        "Run",
        "fal's synchronous call: the input in, the bare answer back. Each path stands under `/run` as well, and answers with or without a final slash.",
    ),
    (
        "Queue",
        "fal's queue: hand a call in, ask for it later. A request survives a restart of the server, and its result is kept.",
    ),
    (
        "Files",
        "Uploads of both fal clients, and what they become. A file's address can be used as `image_url`, and is known to nobody who was not told.",
    ),
    (
        "Server",
        "What this server tells about itself. Only `/metrics` needs a key.",
    ),
];

/// All routes.
pub(super) fn all() -> Vec<Operation> {
    let chapters = [run::all(), queue::all(), files::all(), server::all()];
    chapters.into_iter().flatten().collect()
}

/// The refusals that every call of the model may get.
fn refusals() -> Vec<Answer> {
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

/// Those of the refusals that have these statuses.
fn common(statuses: &[u16]) -> Vec<Answer> {
    let mut answers = refusals();
    answers.retain(|answer| statuses.contains(&answer.status));
    answers
}

/// Events of a stream.
fn stream_answer(description: &'static str) -> Answer {
    let text = json!({ "type": "string" });
    Answer::of(200, description, "text/event-stream", text)
}

/// A word that may stand in the query.
fn parameter(name: &str, kind: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "query",
        "required": false,
        "description": description,
        "schema": { "type": kind },
    })
}

/// A header that a call may carry.
fn header(name: &str, kind: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "header",
        "required": false,
        "description": description,
        "schema": { "type": kind },
    })
}

/// The deadline that run and submit both know.
fn request_timeout() -> Value {
    header(
        "X-Fal-Request-Timeout",
        "number",
        "Seconds within which the model must have begun.",
    )
}

impl Operation {
    /// An operation of `GET` that takes nothing and asks for a key.
    fn reading(tag: &'static str, summary: &'static str, answers: Vec<Answer>) -> Self {
        Self {
            method: "get",
            path: String::new(),
            tag,
            summary: summary.into(),
            description: "",
            parameters: Vec::new(),
            body: None,
            takes_bytes: false,
            answers,
            needs_key: true,
        }
    }

    /// The same with a body of any bytes.
    fn taking_bytes(mut self) -> Self {
        self.takes_bytes = true;
        self
    }

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
        if self.takes_bytes {
            let bytes = json!({ "schema": { "type": "string", "format": "binary" } });
            operation["requestBody"] = json!({ "required": true, "content": { "*/*": bytes } });
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
