//! What this server speaks, described: `/openapi.json` for programs, `/docs` for people, and fal's
//! own documents at fal's address for them.
//!
//! Shapes come from the wire types ([`schemas`]), routes from one list ([`operations`]); nothing is
//! written twice. The addresses in each answer are those by which the caller reached the server.

mod operations;
mod page;
mod published;
mod schemas;
mod template;

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Extension;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use self::template::Template;
use super::error::JSON;
use super::extract;
use super::face::Reached;
use crate::fal::endpoint::{ALIAS, ENDPOINTS, Endpoint, OWNER};

/// Media type of the page.
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The page is text and style; whatever else it might be made to load stays out.
const NOTHING_ELSE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
);

/// fal's address for its own documents.
pub(crate) const PUBLISHED: &str = "/api/openapi/queue/openapi.json";

static DOCUMENT: LazyLock<Template> =
    LazyLock::new(|| Template::of(|origin| document(origin).to_string()));

static PAGE: LazyLock<Template> =
    LazyLock::new(|| Template::of(|origin| page::render(&document(origin))));

/// fal's documents by the names of the endpoints.
static PUBLISHED_DOCUMENTS: LazyLock<HashMap<&str, Template>> = LazyLock::new(|| {
    let document = |endpoint: &Endpoint, origin: &str| {
        published::document(endpoint, &format!("{origin}/queue"), origin).to_string()
    };
    let template = |endpoint| Template::of(|origin| document(endpoint, origin));
    let endpoints = ENDPOINTS.iter();
    endpoints
        .map(|endpoint| (endpoint.name, template(endpoint)))
        .collect()
});

/// `GET /openapi.json`
pub(crate) async fn serve(Extension(reached): Extension<Reached>) -> Response {
    answer(StatusCode::OK, DOCUMENT.json(&reached.origin))
}

/// `GET /docs`
pub(crate) async fn docs(Extension(reached): Extension<Reached>) -> Response {
    let page = PAGE.with(&page::escaped(&reached.origin));
    let head = [
        (CONTENT_TYPE, HTML),
        (CONTENT_SECURITY_POLICY, NOTHING_ELSE),
    ];
    (head, page).into_response()
}

/// `GET /api/openapi/queue/openapi.json?endpoint_id=…`; an unknown id is answered as fal does.
pub(crate) async fn serve_published(Extension(reached): Extension<Reached>, uri: Uri) -> Response {
    let id = extract::parameter(uri.query(), "endpoint_id").unwrap_or_default();
    let name = id.strip_prefix(&format!("{OWNER}/{ALIAS}/"));
    match name.and_then(|name| PUBLISHED_DOCUMENTS.get(name)) {
        Some(document) => answer(StatusCode::OK, document.json(&reached.origin)),
        None => answer(StatusCode::NOT_FOUND, Value::Null.to_string()),
    }
}

fn answer(status: StatusCode, document: String) -> Response {
    (status, [(CONTENT_TYPE, JSON)], document).into_response()
}

/// The whole document.
fn document(origin: &str) -> Value {
    let mut paths = Map::new();
    for operation in operations::all() {
        let methods = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({}));
        methods[operation.method] = operation.to_json();
    }
    let tags = operations::TAGS.map(|(name, about)| json!({ "name": name, "description": about }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "florence2-server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Microsoft's Florence-2 vision model, served as fal serves `fal-ai/florence-2-large`.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": origin }],
        "security": [{ "key": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`Key ` and one of the server's keys. A server without keys takes any, or none.",
                },
            },
            "schemas": schemas::all(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::server::routes;

    /// A canonical path of the route table as the document spells it.
    fn documented(path: &str) -> String {
        let path = path.strip_prefix("/run").unwrap_or(path);
        let requests = "/queue/requests/{id}";
        if let Some(rest) = path.strip_prefix(requests) {
            return format!("/queue/{OWNER}/{ALIAS}/requests/{{request_id}}{rest}");
        }
        let parts = path.split('/').map(|part| {
            let is_one_of_many = path.starts_with("/queue/") || path.ends_with("/stream");
            match Endpoint::named(part) {
                Some(_) if is_one_of_many => "{endpoint}",
                _ => part,
            }
        });
        parts.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn every_route_is_documented_with_its_method_and_its_key_and_nothing_else_is() {
        let mut routes = BTreeMap::new();
        for (path, allow, is_open) in routes::listed() {
            let method = match allow {
                "GET, HEAD" => "get",
                // The proxy takes every method.
                "POST" | "" => "post",
                "PUT" => "put",
                other => panic!("{path} allows {other}, for which the document has no word"),
            };
            // A key may come in a body's place: the path carries it, or the handler looks.
            routes.insert((documented(&path), method.to_owned()), is_open);
        }
        let document = document("http://x");
        let mut found = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let is_open = operation["security"] == json!([]);
                found.insert((path.clone(), method.clone()), is_open);
            }
        }
        assert_eq!(found, routes);
    }
}
