//! The documents: fal's own against the published facts, ours against themselves, and the page.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::data;
use crate::support::fake_model::FakeModel;
use crate::support::raw::Raw;
use crate::support::server::{Answer, TestServer};

async fn server() -> TestServer {
    TestServer::start(FakeModel::saying("t")).await
}

async fn published(server: &TestServer, id: &str) -> Answer {
    let path = format!("/api/openapi/queue/openapi.json?endpoint_id={id}");
    server.get(&path).await
}

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    let list = list.as_array().unwrap();
    list.iter().map(|entry| &entry[key]).collect()
}

#[tokio::test]
async fn fals_document_of_every_endpoint_has_the_published_facts() {
    let server = server().await;
    let facts = data::json("fal-schema.json");
    for endpoint in facts["endpoints"].as_array().unwrap() {
        let id = endpoint["endpoint_id"].as_str().unwrap();
        let document = published(&server, id).await.json();
        assert_eq!(document["openapi"], "3.0.4");
        let info = &document["info"];
        assert_eq!(info["title"], format!("Queue OpenAPI for {id}"));
        assert_eq!(info["version"], "1.0.0");
        assert_eq!(info["x-fal-metadata"]["endpointId"], id);
        assert_eq!(info["x-fal-metadata"]["category"], endpoint["category"]);
        let queue = format!("{}/queue", server.base);
        assert_eq!(document["servers"], json!([{ "url": queue }]));
        assert_eq!(document["security"], json!([{ "apiKeyAuth": [] }]));
        assert_paths(&document, id, endpoint);
        for side in ["input", "output"] {
            let component = &endpoint[format!("openapi_component_{side}")];
            let model = &document["components"]["schemas"][component.as_str().unwrap()];
            assert_eq!(model["title"], endpoint[format!("openapi_title_{side}")]);
            let order = &endpoint[format!("{side}_order")];
            assert_model(&document, &facts, model, order, &endpoint[side]);
        }
        assert_references(&document);
    }
}

/// Four paths, and what they take and answer.
fn assert_paths(document: &Value, id: &str, endpoint: &Value) {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let answer = |operation: &Value| {
        operation["responses"]["200"]["content"]["application/json"]["schema"].clone()
    };
    let paths = &document["paths"];
    assert_eq!(paths.as_object().unwrap().len(), 4);
    let submit = &paths[format!("/{id}")]["post"];
    let taken = &submit["requestBody"]["content"]["application/json"]["schema"];
    let input = endpoint["openapi_component_input"].as_str().unwrap();
    assert_eq!(taken, &reference(input));
    assert_eq!(answer(submit), reference("QueueStatus"));
    let request = format!("/{id}/requests/{{request_id}}");
    let output = endpoint["openapi_component_output"].as_str().unwrap();
    assert_eq!(answer(&paths[&request]["get"]), reference(output));
    let status = &paths[format!("{request}/status")]["get"];
    assert_eq!(answer(status), reference("QueueStatus"));
    assert_eq!(names(&status["parameters"], "name"), ["request_id", "logs"]);
    assert_eq!(status["parameters"][1]["schema"]["type"], "number");
    let cancel = &paths[format!("{request}/cancel")]["put"];
    assert_eq!(answer(cancel)["properties"]["success"]["type"], "boolean");
}

/// A model's fields in their order, and theirs.
fn assert_model(document: &Value, facts: &Value, model: &Value, order: &Value, fields: &Value) {
    assert_eq!(&model["x-fal-order-properties"], order);
    let required: Vec<_> = fields.as_array().unwrap().iter().collect();
    let required: Vec<_> = required
        .iter()
        .filter(|field| field["required"] == true)
        .map(|field| &field["name"])
        .collect();
    assert_eq!(
        model["required"]
            .as_array()
            .unwrap()
            .iter()
            .collect::<Vec<_>>(),
        required
    );
    for field in fields.as_array().unwrap() {
        let name = field["name"].as_str().unwrap();
        let property = &model["properties"][name];
        let examples = field.get("examples").unwrap_or(&Value::Null);
        assert_eq!(&property["examples"], examples, "{name}");
        for (key, bound) in field["constraints"].as_object().unwrap() {
            assert_eq!(&property[key], bound, "{name} {key}");
        }
        if field["constraints"] == json!({}) {
            assert!(property.get("minimum").is_none(), "{name}");
        }
        if let Some(target) = field.get("ref").and_then(Value::as_str) {
            assert_eq!(
                property["allOf"],
                json!([{ "$ref": format!("#/components/schemas/{target}") }])
            );
            assert_type(document, facts, target);
            continue;
        }
        assert_eq!(property["type"], field["type"], "{name}");
        match &field["items"] {
            Value::String(target) => {
                let reference = format!("#/components/schemas/{target}");
                assert_eq!(property["items"], json!({ "$ref": reference }));
                assert_type(document, facts, target);
            }
            items => assert_eq!(property.get("items").unwrap_or(&Value::Null), items),
        }
    }
}

fn assert_type(document: &Value, facts: &Value, name: &str) {
    let fact = &facts["types"][name];
    let model = &document["components"]["schemas"][name];
    assert_eq!(model["title"], name);
    assert_model(document, facts, model, &fact["order"], &fact["fields"]);
}

/// Every reference leads somewhere, and every schema is referred to.
fn assert_references(document: &Value) {
    let mut found = BTreeSet::new();
    collect_references(document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let known: BTreeSet<String> = schemas
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(found, known);
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref") {
                found.insert(target.clone());
            }
            members
                .values()
                .for_each(|it| collect_references(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| collect_references(it, found)),
        _ => {}
    }
}

#[tokio::test]
async fn an_unknown_endpoint_is_answered_as_fal_does() {
    let server = server().await;
    for id in [
        "",
        "fal-ai/florence-2-large",
        "fal-ai/other/caption",
        "caption",
    ] {
        let answer = published(&server, id).await;
        assert_eq!((answer.status, answer.json()), (404, Value::Null), "{id}");
    }
    let answer = server.get("/api/openapi/queue/openapi.json?%ff&&=").await;
    assert_eq!((answer.status, answer.json()), (404, Value::Null));
    let encoded = published(&server, "fal-ai%2Fflorence-2-large%2Focr").await;
    assert_eq!(encoded.status, 200);
}

#[tokio::test]
async fn our_document_is_whole_and_names_the_address_it_was_asked_at() {
    let server = server().await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], server.base);
    assert_references(&document);
    // Names of type parameters are ours alone; published ones have none.
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let derived: Vec<_> = schemas.keys().filter(|name| name.contains('_')).collect();
    assert!(derived.is_empty(), "{derived:?}");
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{place}: {id} is taken");
            assert_ne!(operation["summary"], "", "{place}");
            for answer in operation["responses"].as_object().unwrap().values() {
                assert_ne!(answer["description"], "", "{place}");
            }
        }
    }
}

#[tokio::test]
async fn the_page_tells_every_route_and_loads_nothing() {
    let server = server().await;
    let document = server.get("/openapi.json").await.json();
    let page = server.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let text = page.text.replace("<wbr>", "");
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("<code>{path}</code>")), "{path}");
    }
    for loading in [
        "<script", "<link", "<img", "<iframe", "src=", "url(", "@import",
    ] {
        assert!(!text.contains(loading), "{loading}");
    }
    let opened = text.matches("<details>").count();
    assert_eq!(opened, text.matches("</details>").count());
    assert!(opened > 14);
}

#[tokio::test]
async fn a_callers_host_cannot_write_into_the_page() {
    let server = server().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /docs HTTP/1.1\r\nhost: <b>\"x'\r\nconnection: close\r\n\r\n")
        .await;
    let page = raw.read_to_end().await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(!page.contains("<b>\"x"), "{page}");
}
