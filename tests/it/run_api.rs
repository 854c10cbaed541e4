//! fal's synchronous call: all fourteen endpoints, bodies to the byte.

use florence2_server::fal::endpoint::ENDPOINTS;
use serde_json::{Value, json};

use crate::support::data;
use crate::support::fake_model::{FakeModel, Reply};
use crate::support::pictures::{grey, input};
use crate::support::server::{TestServer, send};

/// One row of `tests/data/run_golden.json`.
struct Golden {
    endpoint: String,
    prompt: String,
    model_text: String,
    body: String,
}

fn golden() -> Vec<Golden> {
    let file = data::json("run_golden.json");
    let rows = file["rows"].as_array().unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| Golden {
            endpoint: text(row, "endpoint"),
            prompt: text(row, "prompt"),
            model_text: text(row, "model_text"),
            body: text(row, "body"),
        })
        .collect()
}

/// Answers every prompt of the golden file with its text.
fn golden_model() -> FakeModel {
    let rows = golden();
    let answer = move |prompt: &str, _: &_| {
        let row = rows.iter().find(|row| row.prompt == prompt);
        Reply::Text(row.map_or("unknown prompt".into(), |row| row.model_text.clone()))
    };
    FakeModel::new(answer).0
}

#[tokio::test]
async fn every_endpoint_answers_its_golden_body_under_all_its_paths() {
    let server = TestServer::with(golden_model(), |settings| {
        settings.pipeline.draws_image = false;
    })
    .await;
    let rows = golden();
    assert!(
        ENDPOINTS
            .iter()
            .all(|endpoint| rows.iter().any(|row| row.endpoint == endpoint.name))
    );
    for row in &rows {
        for prefix in ["", "/run"] {
            for slash in ["", "/"] {
                let path = format!("{prefix}/fal-ai/florence-2-large/{}{slash}", row.endpoint);
                let request = server.client.post(format!("{}{path}", server.base));
                let answer = send(request.json(&input())).await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                assert_eq!(answer.text, row.body, "{path}");
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("x-fal-billable-units"), "1");
            }
        }
    }
}

#[tokio::test]
async fn a_body_without_content_type_or_with_a_json_dialect_is_accepted() {
    let server = TestServer::start(FakeModel::saying("text")).await;
    let body = input().to_string();
    let request = || server.client.post(server.url("caption")).body(body.clone());
    assert_eq!(send(request()).await.status, 200);
    for content_type in [
        "application/json; charset=utf-8",
        "application/vnd.fal+json",
    ] {
        let answer = send(request().header("content-type", content_type)).await;
        assert_eq!(answer.status, 200, "{content_type}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = send(request().header("content-type", content_type)).await;
        assert_eq!(answer.status, 422, "{content_type}");
        let entry = &answer.json()["detail"][0];
        assert_eq!(entry["type"], "model_attributes_type");
        assert_eq!(entry["loc"], json!(["body"]));
        let shown = entry["input"].as_str().unwrap().trim_end_matches('…');
        assert!(body.starts_with(shown));
    }
}

#[tokio::test]
async fn hostile_model_text_gives_fewer_findings_and_never_an_error() {
    for text in [
        "",
        "<loc_1><loc_2><loc_3>",
        "a<loc_1><loc_2><loc_3><loc_9999999999999999999>",
        "<poly><poly></poly><and><sep>\u{0}\u{1f}\"\\",
        "a<loc_-1><loc_x><loc_><loc_5",
        "</s></s><s><pad>",
    ] {
        let server = TestServer::start(FakeModel::saying(text)).await;
        for endpoint in &ENDPOINTS {
            let answer = server.call(endpoint.name, &input()).await;
            assert_eq!(answer.status, 200, "{} {text:?}", endpoint.name);
            assert!(answer.json().get("results").is_some());
        }
    }
}

#[tokio::test]
async fn the_picture_that_was_sent_reaches_the_model() {
    let (model, _remote) =
        FakeModel::new(|_, input| Reply::Text(format!("{:?}", input.pixel_values)));
    let server = TestServer::start(model).await;
    for colour in [[10, 20, 30], [255, 0, 1]] {
        let file = crate::support::pictures::file(3, 2, colour, image::ImageFormat::Png);
        let image_url = crate::support::pictures::data_uri(&file);
        let answer = server
            .call("caption", &json!({ "image_url": image_url }))
            .await;
        let expected = format!("{:?}", colour.map(f32::from));
        assert_eq!(answer.json()["results"], expected);
    }
}

#[tokio::test]
async fn many_calls_on_one_connection_each_get_their_own_id() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let body = json!({"image_url": grey(2, 2), "sync_mode": true});
    let mut ids = std::collections::HashSet::new();
    for _ in 0..20 {
        let answer = server.call("caption", &body).await;
        assert!(ids.insert(answer.header("x-fal-request-id").to_owned()));
    }
}

#[tokio::test]
async fn a_stream_is_the_answer_as_one_event_and_errors_stay_what_they_are() {
    let server = TestServer::start(FakeModel::saying("a \"b\"\nc")).await;
    for path in ["caption/stream", "caption/stream/"] {
        let request = server.client.post(server.url(path)).json(&input());
        let answer = send(request.header("accept", "text/event-stream")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text, "data: {\"results\":\"a \\\"b\\\"\\nc\"}\n\n");
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("x-fal-billable-units"), "1");
    }
    let answer = server.call("caption/stream", &json!({})).await;
    assert_eq!(
        (answer.status, answer.fault_type().as_str()),
        (422, "missing")
    );
    let answer = server.get("/fal-ai/florence-2-large/caption/stream").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
}
