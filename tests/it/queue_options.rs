//! What a caller may ask of the queue: order, deadlines, retries, limits; and what everybody gets.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::fake_model::{FakeModel, Remote, Reply};
use crate::support::pictures::{grey, input};
use crate::support::queue_client::submit;
use crate::support::raw::{Raw, post};
use crate::support::server::{TestServer, send};

const ENDPOINT: &str = "open-vocabulary-detection";

/// A server whose only worker is busy with a first job, and its model.
async fn busy() -> (TestServer, Remote) {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.queue.workers = 1).await;
    server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    (server, remote)
}

/// A job that the model knows by its name.
async fn submit_named(server: &TestServer, name: &str, headers: &[(&str, &str)]) -> String {
    let body = json!({"image_url": grey(2, 2), "text_input": name});
    let mut request = server.client.post(server.queue_url(ENDPOINT)).json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    submit(request).await
}

#[tokio::test]
async fn low_jobs_wait_behind_all_normal_ones_and_positions_say_so() {
    let (server, remote) = busy().await;
    let low = submit_named(&server, "low", &[("x-fal-queue-priority", "low")]).await;
    let first = submit_named(&server, "first", &[("x-fal-queue-priority", "normal")]).await;
    let second = submit_named(&server, "second", &[]).await;
    for (id, position) in [(&first, 0), (&second, 1), (&low, 2)] {
        assert_eq!(server.status(id).await.json()["queue_position"], position);
    }
    for name in ["first", "second", "low"] {
        remote.go();
        let prompt = remote.wait_for_start().await;
        assert_eq!(prompt, format!("Locate {name} in the image."));
    }
    remote.go();
    assert_eq!(server.wait_for_result(&low).await.status, 200);
}

#[tokio::test]
async fn a_start_deadline_that_passes_in_the_queue_ends_the_job() {
    let (server, remote) = busy().await;
    let late = submit_named(&server, "late", &[("X-Fal-Request-Timeout", "0.1")]).await;
    let patient = submit_named(&server, "patient", &[("X-Fal-Request-Timeout", "600.0")]).await;
    let status = server.wait_for(&late, "COMPLETED").await;
    assert_eq!(status["error_type"], "request_timeout");
    assert_eq!(status["metrics"], json!({}));
    let result = server.result(&late).await;
    assert_eq!(result.status, 504);
    assert_eq!(result.header("x-fal-request-timeout-type"), "user");
    assert_eq!(result.header("x-fal-error-type"), "request_timeout");
    assert_eq!(result.header("x-fal-needs-retry"), "0");
    remote.go();
    assert_eq!(
        remote.wait_for_start().await,
        "Locate patient in the image."
    );
    remote.go();
    assert_eq!(server.wait_for_result(&patient).await.status, 200);
}

#[tokio::test]
async fn our_own_failures_are_tried_again_unless_the_caller_says_no() {
    let failures = AtomicUsize::new(0);
    let (model, _remote) = FakeModel::new(move |prompt, _| {
        if prompt.contains("fragile") && failures.fetch_add(1, Ordering::SeqCst) == 0 {
            return Reply::OutOfMemory;
        }
        if prompt.contains("impatient") {
            return Reply::Panic;
        }
        Reply::Text("x<loc_0><loc_0><loc_999><loc_999>".into())
    });
    let server = TestServer::start(model).await;
    let id = submit_named(&server, "fragile", &[]).await;
    let status = server.wait_for(&id, "COMPLETED").await;
    assert!(status.get("error").is_none(), "{status}");
    assert!(
        status["logs"]
            .to_string()
            .contains("Failed with status 503"),
        "{status}"
    );
    assert_eq!(server.result(&id).await.status, 200);
    for word in ["1", "true", "yes"] {
        let id = submit_named(&server, "impatient", &[("X-Fal-No-Retry", word)]).await;
        let result = server.wait_for_result(&id).await;
        assert_eq!(
            (result.status, result.header("x-fal-error-type")),
            (500, "internal_error")
        );
    }
}

#[tokio::test]
async fn a_caller_may_refuse_to_stand_in_a_long_line() {
    let (server, _remote) = busy().await;
    let request = |limit: &str| {
        let url = format!(
            "{}?fal_max_queue_length={limit}",
            server.queue_url("caption")
        );
        server.client.post(url).json(&input())
    };
    submit(request("0")).await;
    submit(request("1")).await;
    let refused = send(request("1")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error_type"], "concurrent_requests_limit");
    assert_eq!(
        refused.header("x-fal-error-type"),
        "concurrent_requests_limit"
    );
    assert_eq!(refused.header("x-fal-needs-retry"), "1");
    assert_eq!(refused.header("retry-after"), "1");
    // The line is another one at every endpoint.
    let url = format!("{}?fal_max_queue_length=0", server.queue_url("ocr"));
    submit(server.client.post(url).json(&input())).await;
    submit(request("2")).await;
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused_before_anything_is_stored() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    for (query, header) in [
        ("?fal_webhook=", None),
        ("?fal_webhook=example.com", None),
        ("?fal_webhook=ftp%3A%2F%2Fexample.com", None),
        ("?fal_max_queue_length=-1", None),
        ("?fal_max_queue_length=x", None),
        ("", Some("soon")),
        ("", Some("-1")),
    ] {
        let url = format!("{}{query}", server.queue_url("caption"));
        let mut request = server.client.post(url).json(&input());
        if let Some(timeout) = header {
            request = request.header("x-fal-request-timeout", timeout);
        }
        let answer = send(request).await;
        assert_eq!(answer.status, 400, "{query} {header:?}");
        assert_eq!(answer.json()["error_type"], "bad_request");
    }
    let metrics = server.get("/metrics").await.text;
    assert!(
        metrics.contains("florence2_jobs{state=\"waiting\"} 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_queue_takes_no_place_inside_and_is_counted() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| {
        settings.http.max_calls = 1;
        settings.queue.workers = 1;
    })
    .await;
    let call = server.client.post(server.url("caption")).json(&input());
    let inside = tokio::spawn(send(call));
    remote.wait_for_start().await;
    let first = server.submit("caption", &input()).await;
    server.wait_for(&first, "IN_PROGRESS").await;
    let second = server.submit("caption", &input()).await;
    assert_eq!(server.call("caption", &input()).await.status, 429);
    let metrics = server.get("/metrics").await.text;
    for line in [
        r#"florence2_jobs{state="waiting"} 1"#,
        r#"florence2_jobs{state="running"} 1"#,
        "florence2_calls_inside 1",
        r#"florence2_requests_total{route="submit",status="200"} 2"#,
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    for _ in 0..3 {
        remote.go();
    }
    assert_eq!(inside.await.unwrap().status, 200);
    assert_eq!(server.wait_for_result(&second).await.status, 200);
}

#[tokio::test]
async fn bodies_of_jobs_have_their_caps_and_clocks_and_share_one_memory() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_body_bytes = 8192;
        settings.http.max_body_memory_bytes = 8192;
    })
    .await;
    let path = "/queue/fal-ai/florence-2-large/caption";
    let send_raw = async |body: &str| {
        let mut raw = Raw::connect(server.address).await;
        raw.send(post(path, "connection: close\r\n", body)).await;
        raw.read_to_end().await
    };
    let too_long = send_raw(&"x".repeat(8193)).await;
    assert!(too_long.starts_with("HTTP/1.1 413 "), "{too_long}");
    assert!(
        send_raw(&"x".repeat(8192))
            .await
            .starts_with("HTTP/1.1 200 ")
    );

    // Half of the memory is taken by a body that is still coming.
    let mut slow = Raw::connect(server.address).await;
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 8000\r\n\r\n");
    slow.send(format!("{head}{}", "x".repeat(5000))).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let refused = loop {
        let answer = send_raw(&"x".repeat(5000)).await;
        if !answer.starts_with("HTTP/1.1 200 ") {
            break answer;
        }
        // The slow body's first bytes may not have been read yet.
        assert!(
            std::time::Instant::now() < deadline,
            "the memory has no end"
        );
    };
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("concurrent_requests_limit"), "{refused}");
    assert!(
        send_raw(&"x".repeat(1000))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    slow.send("x".repeat(3000)).await;
    assert!(slow.read_answer().await.starts_with("HTTP/1.1 200 "));
    assert!(
        send_raw(&"x".repeat(5000))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}
