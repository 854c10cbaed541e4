//! What the server tells about itself, and the proxy protocol, as the documents describe them.

use serde_json::json;

use super::{Answer, Operation, common};
use crate::server::face::PROXY_PATH;
use crate::server::openapi::{PUBLISHED, schemas};

const TAG: &str = "Server";

/// The pages.
pub(super) fn all() -> Vec<Operation> {
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
    let page = |path: &str, summary: &'static str, answers: Vec<Answer>| Operation {
        path: path.into(),
        needs_key: false,
        ..Operation::reading(TAG, summary, answers)
    };
    let unready = Answer::json(503, "It is starting or stopping.", word.clone());
    let mut published = page(
        PUBLISHED,
        "fal's own description of one endpoint",
        vec![
            Answer::json(200, "An OpenAPI 3.0.4 document.", free.clone()),
            Answer::json(404, "No such endpoint.", json!({ "type": "null" })),
        ],
    );
    published.parameters.push(endpoint_id);
    let mut proxy = page(
        PROXY_PATH,
        "fal's proxy protocol: the target in `x-fal-target-url`",
        vec![Answer::json(
            400,
            "There is no target, or one that is none of fal's. Any other is answered as if it had been called.",
            schemas::reference("PlainError"),
        )],
    );
    proxy.method = "post";
    proxy.description = "Every method is taken; no other host is contacted.";
    let figures = Answer::of(
        200,
        "All series.",
        "application/openmetrics-text",
        text.clone(),
    );
    let mut answers = common(&[401]);
    answers.insert(0, figures);
    let mut metrics = page("/metrics", "Figures for Prometheus", answers);
    metrics.needs_key = true;
    metrics.description = "A key, no token; with `--open-metrics` none is asked for.";
    vec![
        proxy,
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
        metrics,
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
