//! The faces through real sockets: hosts, prefixes, the second port, the proxy, forwarded names.

use serde_json::{Value, json};

use crate::support::fake_model::FakeModel;
use crate::support::origin::Origin;
use crate::support::pictures::input;
use crate::support::raw::{Raw, post};
use crate::support::server::{Answer, TestServer, send};

const TASK: &str = "/fal-ai/florence-2-large/caption";

async fn server() -> TestServer {
    TestServer::start(FakeModel::saying("t")).await
}

/// Calls the proxy with a target.
async fn proxied(server: &TestServer, method: &str, target: &str, body: Option<&Value>) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let url = format!("{}/api/fal/proxy", server.base);
    let mut request = server
        .client
        .request(method, url)
        .header("x-fal-target-url", target);
    if let Some(body) = body {
        request = request.json(body);
    }
    send(request).await
}

#[tokio::test]
async fn everything_a_client_does_goes_through_the_proxy() {
    let server = server().await;
    let at_once = proxied(
        &server,
        "POST",
        &format!("https://fal.run{TASK}"),
        Some(&input()),
    )
    .await;
    assert_eq!(
        (at_once.status, at_once.json()),
        (200, json!({"results": "t"}))
    );
    let events = format!("https://fal.run{TASK}/stream");
    let events = proxied(&server, "POST", &events, Some(&input())).await;
    assert_eq!(events.text, "data: {\"results\":\"t\"}\n\n");
    let target = format!("https://queue.fal.run{TASK}?fal_max_queue_length=100");
    let submitted = proxied(&server, "POST", &target, Some(&input())).await;
    assert_eq!(submitted.status, 200, "{submitted:?}");
    let id = submitted.json()["request_id"].as_str().unwrap().to_owned();
    let job = format!("https://queue.fal.run/fal-ai/florence-2-large/requests/{id}");
    server.wait_for(&id, "COMPLETED").await;
    let status = proxied(&server, "GET", &format!("{job}/status?logs=1"), None).await;
    assert_eq!(status.status, 200);
    assert!(status.json()["logs"].is_array());
    let result = proxied(&server, "GET", &job, None).await;
    assert_eq!(result.json(), json!({"results": "t"}));
    let cancelled = proxied(&server, "PUT", &format!("{job}/cancel"), None).await;
    assert_eq!(cancelled.json(), json!({"status": "ALREADY_COMPLETED"}));
    let apps = json!({"allowed_apps": ["florence-2-large"]});
    let token = proxied(&server, "POST", "https://rest.fal.ai/tokens/", Some(&apps)).await;
    assert!(token.json().is_string(), "{token:?}");
    // What the answer names works without the proxy too.
    let url = submitted.json()["response_url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        url,
        format!(
            "{}/queue/fal-ai/florence-2-large/requests/{id}",
            server.base
        )
    );
    assert_eq!(
        send(server.client.get(url)).await.json(),
        json!({"results": "t"})
    );
}

#[tokio::test]
async fn the_proxy_contacts_nobody_and_understands_nobody_elses_address() {
    let server = server().await;
    let canary = Origin::canary().await;
    let port = canary.port();
    for target in [
        String::new(),
        "nonsense".into(),
        canary.url(TASK),
        format!("http://localhost:{port}{TASK}"),
        format!("https://fal.run:{port}{TASK}"),
        format!("https://fal.run@127.0.0.1:{port}{TASK}"),
        "https://example.com/fal-ai/florence-2-large/caption".into(),
        server.url("caption"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = proxied(&server, method, &target, Some(&input())).await;
            assert_eq!(answer.status, 400, "{method} {target}");
            assert_eq!(answer.text, r#"{"detail":"Invalid request"}"#);
        }
    }
    let missing = send(server.client.post(format!("{}/api/fal/proxy", server.base))).await;
    assert_eq!(
        (missing.status, missing.text.as_str()),
        (400, r#"{"detail":"Invalid request"}"#)
    );
    // Two targets, or one that is no text.
    let good = format!("https://fal.run{TASK}");
    for headers in [
        format!("x-fal-target-url: {good}\r\nx-fal-target-url: {good}\r\n"),
        "x-fal-target-url: https://fal.run/\u{e9}\r\n".into(),
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(post("/api/fal/proxy", &headers, "{}")).await;
        let answer = raw.read_answer().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(canary.connections(), 0);
}

/// Submits through a raw connection; gives the address of the status.
async fn status_url(address: std::net::SocketAddr, target: &str, headers: &str) -> String {
    let mut raw = Raw::connect(address).await;
    let body = "{}";
    let request = format!(
        "POST {target} HTTP/1.1\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    raw.send(request).await;
    let answer = raw.read_answer().await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap();
    let id = body["request_id"].as_str().unwrap();
    let url = body["status_url"].as_str().unwrap();
    let tail = format!("/fal-ai/florence-2-large/requests/{id}/status");
    url.strip_suffix(&tail).unwrap().to_owned()
}

#[tokio::test]
async fn answers_name_the_address_that_the_caller_used() {
    let server = server().await;
    let address = server.address;
    let queue = format!("/queue{TASK}");
    for (target, headers, base) in [
        (
            queue.clone(),
            "host: localhost:8443\r\n",
            "http://localhost:8443/queue".to_owned(),
        ),
        (
            TASK.into(),
            "host: queue.localhost:8443\r\n",
            "http://queue.localhost:8443".into(),
        ),
        (
            TASK.into(),
            "Host: queue.fal.run\r\n",
            "http://queue.fal.run".into(),
        ),
        (queue.clone(), "", format!("http://{address}/queue")),
        (
            queue.clone(),
            "host: a\"b\r\n",
            format!("http://{address}/queue"),
        ),
        (
            format!("http://absolute.test{queue}"),
            "host: other.test\r\n",
            "http://absolute.test/queue".into(),
        ),
        // Nobody said that these are to be believed.
        (
            queue.clone(),
            "host: a.test\r\nx-forwarded-host: evil.test\r\nx-forwarded-proto: https\r\n",
            "http://a.test/queue".into(),
        ),
    ] {
        assert_eq!(
            status_url(address, &target, headers).await,
            base,
            "{target} {headers}"
        );
    }
}

#[tokio::test]
async fn by_fals_names_hosted_files_stand_at_fals_media_host() {
    let server = TestServer::start(FakeModel::saying(
        "</s><s>cat<loc_1><loc_2><loc_3><loc_4></s>",
    ));
    let server = server.await;
    let body = |value: Value| {
        let text = value.to_string();
        let length = format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            text.len()
        );
        (length, text)
    };
    let upload = json!({"content_type": "image/png", "file_name": "a.png"});
    let media = "http://v3.fal.media/files/";
    for (host, path, sent, at) in [
        (
            "fal.run",
            TASK.replace("caption", "object-detection"),
            input(),
            "/image/url",
        ),
        (
            "rest.fal.ai",
            "/storage/upload/initiate".into(),
            upload.clone(),
            "/file_url",
        ),
        (
            "rest.fal.ai",
            "/storage/upload/initiate".into(),
            upload.clone(),
            "/upload_url",
        ),
        (
            "rest.alpha.fal.ai",
            "/storage/auth/token".into(),
            json!({}),
            "/base_url",
        ),
        (
            "localhost:1",
            "/rest/storage/upload/initiate".into(),
            upload,
            "/file_url",
        ),
    ] {
        let (length, text) = body(sent);
        let head = format!("host: {host}\r\nconnection: close\r\n");
        let mut raw = Raw::connect(server.address).await;
        raw.send(format!("POST {path} HTTP/1.1\r\n{head}{length}\r\n{text}"))
            .await;
        let answer = raw.read_to_end().await;
        let (_, answer) = answer.split_once("\r\n\r\n").unwrap();
        let answer: Value = serde_json::from_str(answer).unwrap();
        let url = answer.pointer(at).and_then(Value::as_str).unwrap();
        let expected = match (host, at) {
            ("localhost:1", _) => "http://localhost:1/files/",
            (_, "/base_url") => media.strip_suffix("/files/").unwrap(),
            _ => media,
        };
        assert!(url.starts_with(expected), "{host}{path}: {url}");
        if host == "fal.run" {
            let again = server.call("caption", &json!({ "image_url": url })).await;
            assert_eq!(again.status, 200, "{again:?}");
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_says_what_the_caller_used() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.face.trust_forwarded = true;
    })
    .await;
    let queue = format!("/queue{TASK}");
    for (target, headers, base) in [
        (
            queue.as_str(),
            "x-forwarded-host: vision.test\r\nx-forwarded-proto: https\r\n",
            "https://vision.test/queue",
        ),
        (
            TASK,
            "x-forwarded-host: queue.vision.test, inner\r\nx-forwarded-proto: https, http\r\n",
            "https://queue.vision.test",
        ),
        (
            queue.as_str(),
            "x-forwarded-proto: javascript\r\n",
            "http://inner.test/queue",
        ),
    ] {
        let headers = format!("host: inner.test\r\n{headers}");
        assert_eq!(
            status_url(server.address, target, &headers).await,
            base,
            "{headers}"
        );
    }
}

#[tokio::test]
async fn a_configured_address_is_named_whatever_the_caller_used() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.face.public_url = Some("https://vision.test".into());
    })
    .await;
    let (queue, host) = (format!("/queue{TASK}"), "host: inner.test\r\n");
    let base = status_url(server.address, &queue, host).await;
    assert_eq!(base, "https://vision.test/queue");
    let host = "host: queue.inner.test\r\n";
    let base = status_url(server.address, TASK, host).await;
    assert_eq!(base, "https://vision.test");
}

#[tokio::test]
async fn the_second_port_is_the_queue_and_has_our_own_pages_too() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.face.queue_port = Some(0);
    })
    .await;
    let address = server.queue_address.unwrap();
    assert_ne!(address, server.address);
    let base = format!("http://{address}");
    let request = server.client.post(format!("{base}{TASK}")).json(&input());
    let submitted = send(request).await.json();
    let url = submitted["status_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{base}/fal-ai/")), "{url}");
    let id = submitted["request_id"].as_str().unwrap();
    assert_eq!(
        server.wait_for_result(id).await.json(),
        json!({"results": "t"})
    );
    assert_eq!(
        send(server.client.get(url)).await.json()["status"],
        "COMPLETED"
    );
    assert_eq!(
        send(server.client.get(format!("{base}/health/ready")))
            .await
            .status,
        200
    );
    // The first port stays what it was.
    assert_eq!(
        server.call("caption", &input()).await.json(),
        json!({"results": "t"})
    );
}
