//! What callers are told when something is wrong: status, envelope, headers, to the byte.

use florence2_server::cli::serve::ServeSettings;
use florence2_server::fal::endpoint::{ENDPOINTS, InputModel};
use serde_json::{Value, json};

use crate::support::data;
use crate::support::fake_model::{FakeModel, Reply};
use crate::support::origin::Origin;
use crate::support::pictures::{grey, input};
use crate::support::server::{Answer, TestServer, send};

fn takes(model: InputModel) -> &'static str {
    match model {
        InputModel::Image => "image",
        InputModel::ImageWithText => "text",
        InputModel::ImageWithRegion => "region",
    }
}

#[tokio::test]
async fn every_route_answers_every_hostile_request_with_its_exact_envelope() {
    let server = TestServer::start(FakeModel::saying("never asked")).await;
    let file = data::json("hostile_requests.json");
    let (mut asked, mut wrong) = (0, Vec::new());
    for case in file["cases"].as_array().unwrap() {
        let body = match case.get("raw") {
            Some(raw) => raw.as_str().unwrap().to_owned(),
            None => case["body"].to_string(),
        };
        let wanted = case["takes"].as_array().unwrap();
        let expected = json!({ "detail": case["detail"] }).to_string();
        for endpoint in &ENDPOINTS {
            if !wanted.contains(&json!(takes(endpoint.input))) {
                continue;
            }
            let name = format!("{} on {}", case["name"], endpoint.name);
            let answer = server.call_raw(endpoint.name, body.clone()).await;
            let headers = ["content-type", "x-fal-billable-units", "x-fal-needs-retry"]
                .map(|header| answer.header(header));
            if (answer.status, answer.text.as_str()) != (422, &expected)
                || headers != ["application/json", "0", "0"]
            {
                wrong.push(format!("{name}\n  expected {expected}\n  {answer:?}"));
            }
            asked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 600, "only {asked} requests were made");
}

/// Checks a request error: status, both places of its type, and whether to try again.
fn assert_request_error(answer: &Answer, status: u16, kind: &str, retry: bool) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error_type"], kind);
    assert!(body["detail"].is_string());
    assert_eq!(body.as_object().unwrap().len(), 2);
    assert_eq!(answer.header("x-fal-error-type"), kind);
    assert_eq!(
        answer.header("x-fal-needs-retry"),
        if retry { "1" } else { "0" }
    );
    assert_eq!(answer.header("x-fal-retryable"), retry.to_string());
    assert!(!answer.text.contains("secret"), "{answer:?}");
}

async fn answer_of(reply: fn() -> Reply) -> Answer {
    let (model, _remote) = FakeModel::new(move |_, _| reply());
    let server = TestServer::start(model).await;
    server.call("caption", &input()).await
}

#[tokio::test]
async fn the_models_failures_are_told_apart_and_their_causes_stay_inside() {
    let failed = answer_of(|| Reply::Fail).await;
    assert_request_error(&failed, 500, "runner_server_error", true);
    let memory = answer_of(|| Reply::OutOfMemory).await;
    assert_request_error(&memory, 503, "runner_scheduling_failure", true);
    assert_eq!(memory.header("retry-after"), "1");
    let panicked = answer_of(|| Reply::Panic).await;
    assert_request_error(&panicked, 500, "internal_error", true);
    assert_eq!(panicked.json()["detail"], "Internal Server Error");
}

#[tokio::test]
async fn numbers_that_are_not_finite_fail_the_call_and_are_counted() {
    let mut count = 0;
    let (model, _remote) = FakeModel::new(move |_, _| {
        count += 1;
        match count {
            1 | 2 => Reply::NotFinite,
            _ => Reply::Text("fine".into()),
        }
    });
    let server = TestServer::start(model).await;
    for _ in 0..2 {
        let answer = server.call("caption", &input()).await;
        assert_request_error(&answer, 500, "runner_server_error", true);
    }
    assert_eq!(server.call("caption", &input()).await.status, 200);
    let text = server.get("/metrics").await.text;
    let line = r#"florence2_model_failures_total{reason="not_finite"} 2"#;
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[tokio::test]
async fn after_a_panic_in_the_model_the_next_caller_is_answered() {
    let mut count = 0;
    let (model, _remote) = FakeModel::new(move |_, _| {
        count += 1;
        if count % 2 == 1 {
            Reply::Panic
        } else {
            Reply::Text("fine".into())
        }
    });
    let server = TestServer::start(model).await;
    for expected in [500, 200, 500, 200] {
        assert_eq!(server.call("caption", &input()).await.status, expected);
    }
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn before_the_model_is_there_calls_are_asked_to_come_back() {
    let server = TestServer::without_model(ServeSettings::default()).await;
    assert_eq!(server.get("/health/live").await.status, 200);
    let ready = server.get("/health/ready").await;
    assert_eq!(
        (ready.status, &ready.json()),
        (503, &json!({"status": "starting"}))
    );
    let answer = server.call("caption", &input()).await;
    assert_request_error(&answer, 503, "runner_scheduling_failure", true);
    // What is wrong with the call is said even then.
    assert_eq!(server.call("caption", &json!({})).await.status, 422);
}

#[tokio::test]
async fn a_text_that_the_model_cannot_read_is_a_fault_of_its_field() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let text = "word ".repeat(100);
    let body = json!({"image_url": grey(2, 2), "text_input": text});
    let answer = server.call("open-vocabulary-detection", &body).await;
    assert_eq!(answer.status, 422);
    // The fake model's tokens are characters, and the prompt has 21 of its own beside the text.
    let entry = json!({
        "type": "sequence_too_long",
        "loc": ["body", "text_input"],
        "msg": "Text is too long: with it the prompt has 520 tokens, and at most 200 are supported.",
        "input": text,
        "ctx": {"max_length": 200},
        "url": "https://docs.fal.ai/errors#sequence_too_long",
    });
    assert_eq!(answer.text, json!({"detail": [entry]}).to_string());
}

#[tokio::test]
async fn a_text_longer_than_any_is_refused_before_the_picture_is_fetched() {
    let canary = Origin::canary().await;
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
    })
    .await;
    let text = "é".repeat(1 << 20);
    let find = json!({"task": "open-vocabulary-detection", "text_input": text});
    let shown = format!("{}…", "é".repeat(1024));
    for (endpoint, body, loc) in [
        (
            "open-vocabulary-detection",
            json!({"image_url": canary.url("/"), "text_input": text}),
            json!(["body", "text_input"]),
        ),
        (
            "",
            json!({"image_url": canary.url("/"), "tasks": ["caption", find]}),
            json!(["body", "tasks", 1, "text_input"]),
        ),
    ] {
        let answer = server.call(endpoint, &body).await;
        assert_eq!(answer.status, 422);
        let entry = json!({
            "type": "sequence_too_long",
            "loc": loc,
            "msg": "Text is too long: with it the prompt has more than 200 tokens, and at most 200 are supported.",
            "input": shown,
            "ctx": {"max_length": 200},
            "url": "https://docs.fal.ai/errors#sequence_too_long",
        });
        assert_eq!(answer.text, json!({"detail": [entry]}).to_string());
    }
    // One that is short enough to be tokenised is judged before the picture, too.
    let body = json!({"image_url": canary.url("/"), "text_input": "word ".repeat(100)});
    let answer = server.call("open-vocabulary-detection", &body).await;
    assert_eq!(answer.fault_type(), "sequence_too_long");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_url_longer_than_a_url_may_be_is_one_that_cannot_be_fetched() {
    let canary = Origin::canary().await;
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
    })
    .await;
    for image_url in [
        canary.url(&format!("/{}", "x".repeat(8192))),
        "1.".repeat(1 << 20),
    ] {
        let answer = server
            .call("caption", &json!({"image_url": image_url}))
            .await;
        assert_eq!(answer.status, 422);
        assert_eq!(answer.fault_type(), "file_download_error");
        let entry = &answer.json()["detail"][0];
        assert_eq!(entry["loc"], json!(["body", "image_url"]));
        assert_eq!(entry["input"], format!("{}…", &image_url[..1024]));
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn other_methods_are_refused_with_the_allowed_one() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(server.client.request(method, server.url("caption"))).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.text, r#"{"detail":"Method Not Allowed"}"#);
        let allow: Vec<_> = answer.headers.get_all("allow").iter().collect();
        assert_eq!(allow, ["POST"]);
    }
    let answer = send(server.client.post(format!("{}/metrics", server.base))).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn unknown_paths_and_applications_are_named() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    for (path, detail) in [
        ("/", "Path / not found"),
        ("/nothing", "Path /nothing not found"),
        ("/nothing/here", "Application \"here\" not found"),
        ("/fal-ai/florence-2-large/ca", "Path /ca not found"),
        (
            "/fal-ai/florence-2-large/caption/streams",
            "Path /caption/streams not found",
        ),
        ("/run/fal-ai/florence-2-large/x", "Path /x not found"),
        (
            "/fal-ai/other-model/caption",
            "Application \"other-model\" not found",
        ),
        ("/run/fal-ai/other", "Application \"other\" not found"),
        ("/running/fal-ai/other", "Application \"fal-ai\" not found"),
        ("/workflows/me/mine/x", "Application \"mine\" not found"),
        ("/comfy/fal-ai/florence-2-large/x", "Path /x not found"),
        ("/123-name", "Application \"name\" not found"),
        ("/queue/fal-ai/florence-2-large/x", "Path /x not found"),
        ("/queue/fal-ai/other/x", "Application \"other\" not found"),
        ("/rest/fal-ai/other", "Path /fal-ai/other not found"),
        ("/files/fal-ai", "Path /files/fal-ai not found"),
        ("/health", "Path /health not found"),
        ("/fal-ai/florence-2-large/%22%0a", "Path /%22%0a not found"),
        (
            "/fal-ai/florence-2-large/captoin",
            "Path /captoin not found. Did you mean /caption?",
        ),
        (
            "/queue/fal-ai/florence-2-large/object_detection/",
            "Path /object_detection not found. Did you mean /object-detection?",
        ),
    ] {
        let answer = send(server.client.post(format!("{}{path}", server.base))).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json(), json!({ "detail": detail }), "{path}");
    }
}

#[tokio::test]
async fn a_start_deadline_is_kept_while_waiting_and_checked_for_sense() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::start(model).await;
    let request = |timeout: &str| {
        let request = server.client.post(server.url("caption")).json(&input());
        request.header("X-Fal-Request-Timeout", timeout)
    };
    let first = tokio::spawn(send(request("1")));
    remote.wait_for_start().await;
    let late = send(request("0.1")).await;
    assert_request_error(&late, 504, "request_timeout", false);
    assert_eq!(late.header("x-fal-request-timeout-type"), "user");
    // Processing that has begun is not cut.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    remote.go();
    assert_eq!(first.await.unwrap().status, 200);
    assert_request_error(&send(request("soon")).await, 400, "bad_request", false);
}

#[tokio::test]
async fn metrics_are_a_closed_set_that_follows_what_happens() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    server.call("caption", &input()).await;
    server.call("caption", &json!({})).await;
    for path in ["/x/1", "/x/2", "/x/3"] {
        server.get(path).await;
    }
    let text = server.get("/metrics").await.text;
    for line in [
        r#"florence2_requests_total{route="caption",status="200"} 1"#,
        r#"florence2_requests_total{route="caption",status="422"} 1"#,
        r#"florence2_requests_total{route="other",status="404"} 3"#,
        r#"florence2_stage_seconds_count{stage="picture"} 1"#,
        "florence2_ready 1",
        "florence2_calls_inside 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(!text.contains("/x/"), "{text}");
    let value: Value = server.get("/health/ready").await.json();
    assert_eq!(value, json!({"status": "ready"}));
}
