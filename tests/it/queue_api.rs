//! The queue as seen from outside: a job's way from submit to result, to the byte where clients look.

use florence2_server::cli::serve::ServeSettings;
use serde_json::{Value, json};

use crate::support::fake_model::{FakeModel, Remote, Reply};
use crate::support::pictures::{grey, input};
use crate::support::server::{Answer, TestServer, pipeline, send};

/// A server with one worker, so that a second job waits, and a model that answers when told.
async fn one_at_a_time() -> (TestServer, Remote) {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.queue.workers = 1).await;
    (server, remote)
}

/// Status answer without its closing brace, up to and with the log.
fn beginning(server: &TestServer, status: &str, id: &str, logs: &str) -> String {
    let request = server.job_url(id, "");
    format!(
        r#"{{"status":"{status}","request_id":"{id}","response_url":"{request}","status_url":"{request}/status","cancel_url":"{request}/cancel","logs":{logs},"metrics":{{"#
    )
}

#[tokio::test]
async fn a_job_goes_from_queue_to_progress_to_completion() {
    let (server, remote) = one_at_a_time().await;
    let first = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let url = server.queue_url("caption");
    let answer = send(server.client.post(url).json(&input())).await;
    let second = answer.json()["request_id"].as_str().unwrap().to_owned();
    let under_queue = |text: String| text.replace("/fal-ai/", "/queue/fal-ai/");
    let expected = under_queue(beginning(&server, "IN_QUEUE", &second, "null"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text, format!(r#"{expected}}},"queue_position":0}}"#));

    let look = |id: &str| send(server.client.get(server.job_url(id, "/status")));
    let waiting = look(&second).await;
    let expected = beginning(&server, "IN_QUEUE", &second, "null");
    assert_eq!(waiting.status, 202);
    assert_eq!(
        waiting.text,
        format!(r#"{expected}}},"queue_position":0}}"#)
    );
    let running = look(&first).await;
    let expected = beginning(&server, "IN_PROGRESS", &first, "null");
    assert_eq!(
        (running.status, running.text),
        (202, format!("{expected}}}}}"))
    );
    for id in [&first, &second] {
        let early = server.result(id).await;
        assert_eq!(early.status, 400);
        assert_eq!(early.text, r#"{"detail":"Request is still in progress"}"#);
        assert_eq!(early.header("x-fal-request-id"), id);
    }

    remote.go();
    remote.go();
    server.wait_for(&second, "COMPLETED").await;
    let done = look(&first).await;
    assert_eq!(done.status, 200);
    let expected = beginning(&server, "COMPLETED", &first, "null");
    let metrics = done.text.strip_prefix(&expected).expect(&done.text);
    let seconds = metrics.strip_prefix(r#""inference_time":"#).expect(metrics);
    let seconds: f64 = seconds.strip_suffix("}}").unwrap().parse().unwrap();
    assert!((0.0..20.0).contains(&seconds), "{seconds}");
    for id in [&first, &second] {
        // Again and again, to the byte.
        for _ in 0..2 {
            let result = server.result(id).await;
            assert_eq!(
                (result.status, result.text.as_str()),
                (200, r#"{"results":"t"}"#)
            );
            assert_eq!(result.header("content-type"), "application/json");
            assert_eq!(result.header("x-fal-billable-units"), "1");
            assert_eq!(result.header("x-fal-request-id"), id);
        }
    }
}

#[tokio::test]
async fn a_job_is_found_under_every_path_that_ends_in_its_id() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let id = server.submit("caption", &input()).await;
    server.wait_for(&id, "COMPLETED").await;
    for prefix in [
        "/fal-ai/florence-2-large",
        "/fal-ai/florence-2-large/caption",
        "/fal-ai/florence-2-large/ocr",
        "/queue/fal-ai/florence-2-large",
        "/queue/fal-ai/florence-2-large/caption",
        "/run/fal-ai/florence-2-large",
        "/fal-ai/another",
        "",
    ] {
        for slash in ["", "/"] {
            for tail in ["", "/response"] {
                let path = format!("{prefix}/requests/{id}{tail}{slash}");
                let answer = server.get(&path).await;
                assert_eq!(
                    (answer.status, answer.text.as_str()),
                    (200, r#"{"results":"t"}"#),
                    "{path}"
                );
            }
            let path = format!("{prefix}/requests/{id}/status{slash}?logs=0");
            let status = server.get(&path).await;
            assert_eq!(status.status, 200, "{path}");
            let base = match prefix.split('/').nth(1) {
                Some("queue") => "/queue",
                Some("run") => "/run",
                _ => "",
            };
            let expected = format!(
                "{}{base}/fal-ai/florence-2-large/requests/{id}",
                server.base
            );
            assert_eq!(status.json()["response_url"], expected, "{path}");
            let path = format!("{prefix}/requests/{id}/cancel{slash}");
            let url = format!("{}{path}", server.base);
            assert_eq!(send(server.client.put(url)).await.status, 400, "{path}");
        }
    }
}

#[tokio::test]
async fn unknown_jobs_and_methods_are_refused_as_on_fal() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let unknown = uuid::Uuid::new_v4().to_string();
    for id in [
        unknown.as_str(),
        "7",
        "..",
        "%2e%2e%2fx",
        "%00",
        "'; DROP TABLE jobs; --",
    ] {
        for (method, tail) in [
            ("GET", ""),
            ("GET", "/response"),
            ("GET", "/status"),
            ("GET", "/status/stream"),
            ("PUT", "/cancel"),
        ] {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            // The client itself would resolve dots.
            let id = id.replace("..", "%2e%2e.");
            let url = server.job_url(&id, tail);
            let answer = send(server.client.request(method, url)).await;
            assert_eq!(answer.status, 404, "{id}{tail}");
            assert_eq!(answer.text, r#"{"status":"NOT_FOUND"}"#);
        }
    }
    for (method, tail, allow) in [
        ("POST", "", "GET, HEAD"),
        ("PUT", "/status", "GET, HEAD"),
        ("GET", "/cancel", "PUT"),
        ("POST", "/cancel", "PUT"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = send(
            server
                .client
                .request(method, server.job_url(&unknown, tail)),
        )
        .await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, allow),
            "{tail}"
        );
    }
    let answer = server.get(&format!("/requests/{unknown}/other")).await;
    assert_eq!(answer.status, 404);
    let answer = send(server.client.get(server.queue_url("caption"))).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn invalid_input_is_taken_and_refused_at_the_result_exactly_as_at_once() {
    let server = TestServer::start(FakeModel::saying("never asked")).await;
    let text = "word ".repeat(100);
    for (endpoint, content_type, body) in [
        ("caption", "application/json", "{}".to_owned()),
        ("caption", "application/json", String::new()),
        ("caption", "application/json", "{".to_owned()),
        ("caption", "text/plain", input().to_string()),
        (
            "caption",
            "application/json",
            json!({"image_url": "data:,x"}).to_string(),
        ),
        (
            "region-to-category",
            "application/json",
            json!({"image_url": grey(2, 2), "region": {"x1": 1000}}).to_string(),
        ),
        (
            "open-vocabulary-detection",
            "application/json",
            json!({"image_url": grey(2, 2), "text_input": text}).to_string(),
        ),
    ] {
        let request = |url: String| {
            let request = server.client.post(url).header("content-type", content_type);
            request.body(body.clone())
        };
        let at_once = send(request(server.url(endpoint))).await;
        assert_eq!(at_once.status, 422, "{body}");
        let submitted = send(request(server.queue_url(endpoint))).await;
        assert_eq!(submitted.status, 200, "{submitted:?}");
        let id = submitted.json()["request_id"].as_str().unwrap().to_owned();
        let status = server.wait_for(&id, "COMPLETED").await;
        assert!(status.get("error").is_none(), "{status}");
        let queued = server.result(&id).await;
        assert_eq!((queued.status, &queued.text), (422, &at_once.text));
        assert_eq!(own_headers(&queued), own_headers(&at_once));
        assert_eq!(queued.header("x-fal-request-id"), id);
    }
}

/// Every header but those that differ from answer to answer.
fn own_headers(answer: &Answer) -> Vec<(String, String)> {
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-fal-request-id"].contains(&name.as_str()));
    let texts = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn what_we_break_is_a_request_error_in_status_and_result() {
    let (model, _remote) = FakeModel::new(|_, _| Reply::Fail);
    let server = TestServer::start(model).await;
    let request = server
        .client
        .post(server.queue_url("caption"))
        .json(&input());
    let id = crate::support::queue_client::submit(request.header("X-Fal-No-Retry", "1")).await;
    let status = server.wait_for(&id, "COMPLETED").await;
    assert_eq!(status["error"], "The model failed.");
    assert_eq!(status["error_type"], "runner_server_error");
    assert!(!status.to_string().contains("secret"), "{status}");
    let at_once = server.call("caption", &input()).await;
    let result = server.result(&id).await;
    assert_eq!((result.status, &result.text), (500, &at_once.text));
    assert_eq!(own_headers(&result), own_headers(&at_once));
}

#[tokio::test]
async fn the_log_says_what_happens_when_it_is_asked_for() {
    let server = TestServer::start(FakeModel::saying("four")).await;
    let id = server.submit("detailed-caption", &input()).await;
    let status = server.wait_for(&id, "COMPLETED").await;
    let lines = status["logs"].as_array().unwrap();
    let messages: Vec<_> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    let log = messages.join("\n");
    for word in [
        "Task detailed-caption",
        "a data: URI of",
        "Picture of 100 x 50 pixels",
        "4 tokens",
        "vision",
        "decode",
    ] {
        assert!(log.contains(word), "{word} is not in\n{log}");
    }
    for line in lines {
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["message", "level", "source", "timestamp"]);
        assert_eq!(
            (&line["level"], &line["source"]),
            (&json!("INFO"), &json!("USER"))
        );
        let timestamp = line["timestamp"].as_str().unwrap();
        assert_eq!(&timestamp[timestamp.len() - 6..], "+00:00");
        assert_eq!(
            (&timestamp[4..5], &timestamp[10..11], timestamp.len()),
            ("-", "T", 29)
        );
    }
    for (query, has_logs) in [
        ("", false),
        ("?logs=0", false),
        ("?logs=false", false),
        ("?logs=1", true),
        ("?logs=true", true),
        ("?logs=True", true),
    ] {
        let answer = send(
            server
                .client
                .get(server.job_url(&id, &format!("/status{query}"))),
        )
        .await;
        assert_eq!(answer.json()["logs"].is_array(), has_logs, "{query}");
        assert_eq!(answer.json()["logs"].is_null(), !has_logs, "{query}");
    }
}

#[tokio::test]
async fn a_log_that_is_asked_for_is_a_list_even_before_there_is_a_line() {
    let (server, remote) = one_at_a_time().await;
    server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let waiting = server.submit("caption", &input()).await;
    assert_eq!(server.status(&waiting).await.json()["logs"], json!([]));
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_is_stopped() {
    let (server, remote) = one_at_a_time().await;
    let running = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let waiting = server.submit("caption", &input()).await;
    for id in [&waiting, &running] {
        let answer = server.cancel(id).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.text, r#"{"status":"CANCELLATION_REQUESTED"}"#);
        assert_eq!(answer.header("x-fal-request-id"), id);
        let status = server.wait_for(id, "COMPLETED").await;
        assert_eq!(status["error_type"], "client_cancelled");
        let result = server.result(id).await;
        assert_eq!(result.status, 499);
        assert_eq!(
            result.text,
            r#"{"detail":"The request was cancelled.","error_type":"client_cancelled"}"#
        );
        assert_eq!(result.header("x-fal-error-type"), "client_cancelled");
        let again = server.cancel(id).await;
        assert_eq!(
            (again.status, again.text.as_str()),
            (400, r#"{"status":"ALREADY_COMPLETED"}"#)
        );
    }
    // The model is free for others once it has finished what nobody waits for.
    let next = server.submit("caption", &input()).await;
    remote.go();
    remote.wait_for_start().await;
    remote.go();
    assert_eq!(server.wait_for_result(&next).await.status, 200);
    assert_eq!(
        remote.try_started(),
        None,
        "a cancelled job reached the model"
    );
}

#[tokio::test]
async fn jobs_are_taken_while_the_model_is_still_loading() {
    let server = TestServer::without_model(ServeSettings::default()).await;
    let id = server.submit("caption", &input()).await;
    assert_eq!(server.call("caption", &input()).await.status, 503);
    let status: Value = server.status(&id).await.json();
    assert_eq!(
        (&status["status"], &status["queue_position"]),
        (&json!("IN_QUEUE"), &json!(0))
    );
    let lookup = std::sync::Arc::new(florence2_server::image_io::fetch::SystemLookup);
    let model = FakeModel::saying("at last");
    server.slot.provide(pipeline(
        &ServeSettings::default(),
        model,
        lookup,
        &server.files,
    ));
    assert_eq!(
        server.wait_for_result(&id).await.json(),
        json!({"results": "at last"})
    );
}
