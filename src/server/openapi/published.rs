//! fal's own document of one endpoint, at the address and in the form in which fal publishes it.
//!
//! The form is OpenAPI 3.0.4 as a Pydantic 1 model writes it: a title on everything, references
//! wrapped in `allOf`, absent values instead of nullable ones, and the declared order of fields in
//! `x-fal-order-properties`. The facts come from our wire types, less our own additions, so the two
//! documents cannot disagree. Programs that generate code or forms from fal's documents read these.

use serde_json::{Map, Value, json};

use super::schemas::{self, COMPONENTS, EXTENSION};
use crate::fal::endpoint::{ALIAS, Endpoint, OWNER, OutputModel};

/// The document; `queue` is the address below which the queue is reached, `origin` our pages'.
pub(super) fn document(endpoint: &Endpoint, queue: &str, origin: &str) -> Value {
    let id = format!("{OWNER}/{ALIAS}/{}", endpoint.name);
    let prefix = component_prefix(endpoint);
    json!({
        "openapi": "3.0.4",
        "info": {
            "title": format!("Queue OpenAPI for {id}"),
            "version": "1.0.0",
            "description": format!("The OpenAPI schema for the {id} queue."),
            "x-fal-metadata": {
                "endpointId": id,
                "category": category(endpoint),
                "thumbnailUrl": format!("{origin}/favicon.ico"),
                "playgroundUrl": format!("{origin}/"),
                "documentationUrl": format!("{origin}/docs"),
            },
        },
        "components": {
            "securitySchemes": {
                "apiKeyAuth": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Fal Key",
                },
            },
            "schemas": components(endpoint, &prefix),
        },
        "paths": paths(&id, &prefix),
        "servers": [{ "url": queue }],
        "security": [{ "apiKeyAuth": [] }],
    })
}

/// As fal files its endpoints: those that answer with a picture are about pictures.
fn category(endpoint: &Endpoint) -> &'static str {
    match endpoint.output {
        OutputModel::Text => "vision",
        OutputModel::Boxes | OutputModel::OcrBoxes | OutputModel::Polygons => "image-to-image",
    }
}

/// `Florence2LargeDenseRegionCaption` and the like.
fn component_prefix(endpoint: &Endpoint) -> String {
    let words = ALIAS.split('-').chain(endpoint.name.split('-'));
    words.map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn components(endpoint: &Endpoint, prefix: &str) -> Map<String, Value> {
    let mut components = Map::new();
    components.insert("QueueStatus".into(), queue_status());
    let sides = [
        ("Input", schemas::input(endpoint.input)),
        ("Output", schemas::output(endpoint.output)),
    ];
    for (side, (title, schemas)) in sides {
        for (name, schema) in &schemas {
            // A corner is published as a map from name to number, where it is used.
            if name == "Point" {
                continue;
            }
            let component = if name == title {
                format!("{prefix}{side}")
            } else {
                name.clone()
            };
            components.insert(component, model(name, schema, &schemas));
        }
    }
    components
}

fn queue_status() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let free = |description: &str| json!({ "type": "object", "description": description, "additionalProperties": true });
    json!({
        "type": "object",
        "properties": {
            "status": { "type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"] },
            "request_id": text("The request id."),
            "response_url": text("The response url."),
            "status_url": text("The status url."),
            "cancel_url": text("The cancel url."),
            "logs": free("The logs."),
            "metrics": free("The metrics."),
            "queue_position": { "type": "integer", "description": "The queue position." },
        },
        "required": ["status", "request_id"],
    })
}

/// One of our schemas in fal's form; `all` are those that it may refer to.
fn model(title: &str, schema: &Value, all: &[(String, Value)]) -> Value {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let published: Map<String, Value> = properties
        .iter()
        .filter(|(_, property)| property.get(EXTENSION).is_none())
        .map(|(name, property)| (name.clone(), field(name, property, all)))
        .collect();
    let order: Vec<_> = published.keys().cloned().collect();
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let is_published = |name: &&Value| name.as_str().is_some_and(|it| published.contains_key(it));
    let required: Vec<_> = required.iter().filter(is_published).collect();
    let mut model = json!({
        "x-fal-order-properties": order,
        "type": "object",
        "properties": published,
        "title": title,
        "required": required,
    });
    if let Some(description) = schema.get("description") {
        model["description"] = description.clone();
    }
    model
}

fn field(name: &str, property: &Value, all: &[(String, Value)]) -> Value {
    let mut field = json!({ "title": field_title(name) });
    if let Some(target) = referred(property) {
        field["allOf"] = json!([{ "$ref": target }]);
        // Examples stand on the field, and with us on what it refers to.
        let target = target.trim_start_matches(COMPONENTS);
        let schema = all.iter().find(|(name, _)| name == target);
        if let Some(examples) = schema.and_then(|(_, schema)| schema.get("examples")) {
            field["examples"] = examples.clone();
        }
    } else {
        field["type"] = json_type(property);
    }
    for key in ["description", "examples", "maximum"] {
        if let Some(value) = property.get(key) {
            field[key] = value.clone();
        }
    }
    // Without an upper bound, the lower one only says that the Rust type has no sign.
    if property.get("maximum").is_some() {
        field["minimum"] = property["minimum"].clone();
    }
    if let Some(items) = property.get("items") {
        field["items"] = item(items);
    }
    field
}

fn item(items: &Value) -> Value {
    match referred(items) {
        Some(target) if target == format!("{COMPONENTS}Point") => {
            json!({ "type": "object", "additionalProperties": { "type": "number" } })
        }
        Some(target) => json!({ "$ref": target }),
        None => json!({ "type": json_type(items) }),
    }
}

/// What a property refers to, be it optional or not.
fn referred(property: &Value) -> Option<&str> {
    let direct = property.get("$ref");
    let among = || {
        let choices = property.get("oneOf")?.as_array()?;
        choices.iter().find_map(|choice| choice.get("$ref"))
    };
    direct.or_else(among)?.as_str()
}

/// The type, which for an optional value is the first of two.
fn json_type(property: &Value) -> Value {
    match property["type"].as_array() {
        Some(types) => types.first().cloned().unwrap_or_default(),
        None => property["type"].clone(),
    }
}

fn field_title(name: &str) -> String {
    let words: Vec<_> = name.split('_').map(capitalised).collect();
    words.join(" ")
}

fn paths(id: &str, prefix: &str) -> Value {
    let answer = |description: &str, schema: Value| {
        json!({ "200": {
            "description": description,
            "content": { "application/json": { "schema": schema } },
        }})
    };
    let request_id = json!({
        "name": "request_id",
        "in": "path",
        "required": true,
        "schema": { "type": "string", "description": "Request ID" },
    });
    let logs = json!({
        "name": "logs",
        "in": "query",
        "required": false,
        "schema": {
            "type": "number",
            "description": "Whether to include logs (`1`) in the response or not (`0`).",
        },
    });
    let cancelled = json!({
        "type": "object",
        "properties": {
            "success": {
                "type": "boolean",
                "description": "Whether the request was cancelled successfully.",
            },
        },
    });
    let status = schemas::reference("QueueStatus");
    let input = schemas::reference(&format!("{prefix}Input"));
    let output = schemas::reference(&format!("{prefix}Output"));
    json!({
        format!("/{id}/requests/{{request_id}}/status"): { "get": {
            "parameters": [request_id, logs],
            "responses": answer("The request status.", status.clone()),
        }},
        format!("/{id}/requests/{{request_id}}/cancel"): { "put": {
            "parameters": [request_id],
            "responses": answer("The request was cancelled.", cancelled),
        }},
        format!("/{id}"): { "post": {
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": input } },
            },
            "responses": answer("The request status.", status),
        }},
        format!("/{id}/requests/{{request_id}}"): { "get": {
            "parameters": [request_id],
            "responses": answer("Result of the request.", output),
        }},
    })
}
