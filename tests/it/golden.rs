//! Every row of fal's published documents: a golden request and its golden answer, at once and
//! through the queue, keys in the published order.

use serde_json::Value;

use crate::support::data;
use crate::support::fake_model::{FakeModel, Reply};
use crate::support::pictures::grey;
use crate::support::server::{TestServer, send};

/// One row of `schema_golden.json` with its answer in `run_golden.json`.
struct Row {
    endpoint: String,
    input: String,
    output: String,
    request: String,
    answer: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rows(schema: &Value, answers: &Value) -> Vec<Row> {
    let answers = answers["rows"].as_array().unwrap();
    let rows = schema["rows"].as_array().unwrap().iter().map(|row| {
        let id = text(&row["endpoint_id"]);
        let endpoint = id.strip_prefix("fal-ai/florence-2-large/").unwrap();
        let answer = answers.iter().find(|it| it["endpoint"] == endpoint);
        Row {
            endpoint: endpoint.to_owned(),
            input: text(&row["input"]),
            output: text(&row["output"]),
            request: text(&row["request"]).replace("{picture}", &grey(100, 50)),
            answer: text(&answer.unwrap()["body"]),
        }
    });
    rows.collect()
}

fn model(answers: &Value) -> FakeModel {
    let rows = answers["rows"].as_array().unwrap().clone();
    let answer = move |prompt: &str, _: &_| {
        let row = rows.iter().find(|row| row["prompt"] == prompt);
        Reply::Text(row.map_or("unknown prompt".into(), |row| text(&row["model_text"])))
    };
    FakeModel::new(answer).0
}

/// Checks that an object's keys begin with the published ones, in order, and so on inside.
fn assert_order(types: &Value, name: &str, value: &Value) {
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| assert_order(types, name, item)),
        Value::Null => {}
        _ => {
            let object = value
                .as_object()
                .unwrap_or_else(|| panic!("{name}: {value}"));
            let fields = types[name].as_array().unwrap();
            let keys: Vec<_> = object.keys().map(String::as_str).collect();
            let published: Vec<_> = fields.iter().map(|it| it[0].as_str().unwrap()).collect();
            // What we add stands behind what fal has.
            assert!(keys.starts_with(&published), "{name}: {keys:?}");
            for field in fields {
                if let Some(inner) = field[1].as_str() {
                    assert_order(types, inner, &object[field[0].as_str().unwrap()]);
                }
            }
        }
    }
}

#[tokio::test]
async fn every_row_of_the_schema_has_its_answer_at_once_and_through_the_queue() {
    let (schema, answers) = (
        data::json("schema_golden.json"),
        data::json("run_golden.json"),
    );
    let server = TestServer::start(model(&answers)).await;
    let rows = rows(&schema, &answers);
    assert_eq!(rows.len(), 14);
    for row in &rows {
        let Row { endpoint, .. } = row;
        let types = &schema["types"];
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_order(types, &row.input, &parse(&row.request));
        assert_order(types, &row.output, &parse(&row.answer));

        let at_once = server.call_raw(endpoint, row.request.clone()).await;
        assert_eq!(
            (at_once.status, &at_once.text),
            (200, &row.answer),
            "{endpoint}"
        );

        let url = server.queue_url(endpoint);
        let request = server.client.post(url).body(row.request.clone());
        let submitted = send(request.header("content-type", "application/json")).await;
        let id = text(&submitted.json()["request_id"]);
        let queued = server.wait_for_result(&id).await;
        assert_eq!(
            (queued.status, &queued.text),
            (200, &row.answer),
            "{endpoint}"
        );
        assert_eq!(queued.header("content-type"), "application/json");
        assert_eq!(queued.header("x-fal-billable-units"), "1");
        assert_eq!(queued.header("x-fal-request-id"), id);
    }
}

#[test]
fn the_order_check_sees_a_wrong_order() {
    let types = data::json("schema_golden.json")["types"].clone();
    let check = |text: &str| {
        let value = serde_json::from_str(text).unwrap();
        let types = types.clone();
        std::panic::catch_unwind(move || {
            assert_order(&types, "BoundingBoxOutputWithLabels", &value);
        })
    };
    let boxed = |fields: &str| format!(r#"{{"results":{{"bboxes":[{{{fields}}}]}},"image":null}}"#);
    let (right, wrong) = (
        boxed(r#""x":1,"y":2,"w":3,"h":4,"label":"","score":1"#),
        boxed(r#""y":1,"x":2,"w":3,"h":4,"label":"""#),
    );
    assert!(check(&right).is_ok());
    assert!(check(&wrong).is_err());
    assert!(check(r#"{"image":null,"results":{"bboxes":[]}}"#).is_err());
}
