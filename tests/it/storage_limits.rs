//! Uploads that are too much, too late, forged or malformed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_model::FakeModel;
use crate::support::raw::Raw;
use crate::support::server::{Answer, TestServer, send};

const MIB: usize = 1 << 20;

/// A server for small files only.
async fn server() -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.files.max_files_bytes = 4 * MIB as u64;
        settings.files.max_file_bytes = MIB as u64;
        settings.files.max_multipart_bytes = MIB as u64 + 512 * 1024;
    })
    .await
}

async fn offer(server: &TestServer, call: &str) -> Value {
    let url = format!("{}/rest/storage/upload/{call}", server.base);
    let body = json!({"file_name": "a.png", "content_type": "image/png"});
    send(server.client.post(url).json(&body)).await.json()
}

async fn put(server: &TestServer, url: &str, content: impl Into<reqwest::Body>) -> Answer {
    send(server.client.put(url).body(content)).await
}

async fn complete(server: &TestServer, url: &str, parts: &Value) -> Answer {
    let request = server.client.post(format!("{url}/complete"));
    send(request.json(&json!({ "parts": parts }))).await
}

/// A body of unknown length.
fn streamed(bytes: usize) -> reqwest::Body {
    let chunk = vec![7_u8; 64 << 10];
    let count = bytes.div_ceil(chunk.len());
    let chunks = (0..count).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
}

#[tokio::test]
async fn a_file_may_have_as_many_bytes_as_are_allowed_and_not_one_more() {
    let server = server().await;
    let url = format!("{}/files/upload", server.base);
    let post = async |body: reqwest::Body| send(server.client.post(&url).body(body)).await;
    assert_eq!(post(vec![7; MIB].into()).await.status, 200);
    for body in [vec![7; MIB + 1].into(), streamed(2 * MIB)] {
        let answer = post(body).await;
        assert_eq!(
            (answer.status, answer.fault_type().as_str()),
            (413, "file_too_large")
        );
        let ctx = &answer.json()["detail"][0]["ctx"];
        assert_eq!(*ctx, json!({ "max_size": MIB }));
        assert_eq!(answer.header("x-fal-retryable"), "false");
    }
}

#[tokio::test]
async fn too_much_is_refused_before_any_byte_of_it_comes() {
    let server = server().await;
    for length in [MIB + 1, 1 << 40] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(format!(
            "POST /files/upload HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        let answer = raw.read_answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"));
    }
}

#[tokio::test]
async fn a_full_store_says_so_until_files_end() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.files.max_files_bytes = 2 * MIB as u64;
    })
    .await;
    let url = format!("{}/files/upload", server.base);
    let lifecycle = r#"{"expiration_duration_seconds": 60}"#;
    let post = async || {
        let request = server.client.post(&url);
        let request = request.header("x-fal-object-lifecycle", lifecycle);
        send(request.body(vec![7; MIB])).await
    };
    assert_eq!(post().await.status, 200);
    let refused = post().await;
    assert_eq!(refused.status, 507);
    assert_eq!(
        refused.json(),
        json!({"detail": "There is no room for the file. Try again later.", "error_type": "internal_error"})
    );
    assert_eq!(refused.header("x-fal-error-type"), "internal_error");
    server.clock.advance(Duration::from_secs(60));
    server.files.sweep().await;
    assert_eq!(server.files.used_bytes(), 0);
    assert_eq!(post().await.status, 200);
}

#[tokio::test]
async fn uploads_that_break_off_give_their_room_back() {
    let server = server().await;
    for _ in 0..8 {
        let mut raw = Raw::connect(server.address).await;
        raw.send("POST /files/upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc")
            .await;
        drop(raw);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.files.used_bytes() > 0 {
        assert!(std::time::Instant::now() < deadline, "room stays taken");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn uploads_at_once_are_counted_and_those_of_one_file_take_turns() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.files.max_uploads = 2;
        settings.http.peers.max_share_percent = 100;
    })
    .await;
    let upload_url = offer(&server, "initiate").await["upload_url"].clone();
    let upload_url = upload_url.as_str().unwrap();
    let mut first = Raw::connect(server.address).await;
    let target = upload_url.strip_prefix(&server.base).unwrap();
    first
        .send(format!(
            "PUT {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"
        ))
        .await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.files.used_bytes() == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "the upload does not begin"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let second = put(&server, upload_url, "x").await;
    assert_eq!(second.status, 409);
    let url = format!("{}/files/upload", server.base);
    let mut third = Raw::connect(server.address).await;
    let before = server.files.used_bytes();
    third
        .send("POST /files/upload HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
        .await;
    while server.files.used_bytes() == before {
        assert!(
            std::time::Instant::now() < deadline,
            "the upload does not begin"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let refused = send(server.client.post(&url).body("x")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error_type"], "concurrent_requests_limit");
    for raw in [&mut first, &mut third] {
        raw.send("abc").await;
        assert!(raw.read_answer().await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(put(&server, upload_url, "x").await.status, 200);
}

#[tokio::test]
async fn forged_late_and_misused_addresses_all_get_one_answer() {
    let server = server().await;
    let whole = offer(&server, "initiate").await["upload_url"].clone();
    let parts = offer(&server, "initiate-multipart").await["upload_url"].clone();
    let (whole, parts) = (whole.as_str().unwrap(), parts.as_str().unwrap());
    let (token, _) = server.files.token();
    let base = format!("{}/files/upload", server.base);
    let mut changed = whole.to_owned();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.push(last);
    let cut = &whole[..whole.len() - 4];
    let mut answers = Vec::new();
    for url in [
        changed.as_str(),
        cut,
        parts,
        &format!("{base}/{token}"),
        &format!("{base}/x"),
    ] {
        answers.push(put(&server, url, "x").await);
    }
    for url in [whole, changed.as_str(), &format!("{base}/{token}")] {
        answers.push(put(&server, &format!("{url}/1"), "x").await);
        answers.push(complete(&server, url, &json!([])).await);
    }
    // A ticket for one file below another.
    let ticket = parts.rsplit('/').next().unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let below = format!("{}/files/{id}/a.png/multipart/{ticket}", server.base);
    answers.push(put(&server, &format!("{below}/1"), "x").await);
    answers.push(complete(&server, &below, &json!([])).await);
    server.clock.advance(Duration::from_secs(3 * 3600));
    answers.push(put(&server, whole, "x").await);
    answers.push(put(&server, &format!("{parts}/1"), "x").await);
    let expected = json!({"detail": "This upload address is not valid or has expired."});
    for answer in answers {
        assert_eq!((answer.status, answer.json()), (403, expected.clone()));
    }
    assert_eq!(server.files.used_bytes(), 0);
}

#[tokio::test]
async fn parts_must_be_numbered_and_listed_as_they_arrived() {
    let server = server().await;
    let url = offer(&server, "initiate-multipart").await["upload_url"].clone();
    let url = url.as_str().unwrap();
    for number in [
        "0",
        "-1",
        "3001",
        "65537",
        "18446744073709551617",
        "x",
        "1.0",
        "%31",
    ] {
        let answer = put(&server, &format!("{url}/{number}"), "x").await;
        assert_eq!(answer.status, 400, "{number}");
        assert_eq!(answer.json()["error_type"], "bad_request");
    }
    let etag = async |number: u64| {
        let answer = put(&server, &format!("{url}/{number}"), "x").await;
        answer.json()["etag"].clone()
    };
    let entry = |number: u64, etag: &Value| json!({"partNumber": number, "etag": etag});
    let replaced = etag(1).await;
    let (one, three) = (etag(1).await, etag(3).await);
    for parts in [
        json!([]),
        json!([entry(1, &one)]),
        json!([entry(1, &one), entry(3, &three)]),
        json!([entry(1, &one), entry(2, &three)]),
    ] {
        let answer = complete(&server, url, &parts).await;
        assert_eq!(answer.status, 400, "{parts}");
    }
    let two = etag(2).await;
    for parts in [
        json!([entry(1, &replaced), entry(2, &two), entry(3, &three)]),
        json!([entry(1, &one), entry(1, &one), entry(2, &two)]),
        json!([entry(1, &two), entry(2, &one), entry(3, &three)]),
        json!([entry(1, &one), entry(2, &two), entry(3, &json!(""))]),
        json!([
            entry(1, &one),
            entry(2, &two),
            entry(3, &three),
            entry(4, &three)
        ]),
        json!([entry(1, &one), entry(2, &two), entry(u64::MAX, &three)]),
        json!([{"partNumber": 1}, entry(2, &two), entry(3, &three)]),
        json!([entry(1, &json!(5)), entry(2, &two), entry(3, &three)]),
        json!({}),
        json!(null),
    ] {
        let answer = complete(&server, url, &parts).await;
        assert_eq!(answer.status, 400, "{parts}");
        assert_eq!(answer.json()["error_type"], "bad_request");
    }
    let parts = json!([entry(3, &three), entry(1, &one), entry(2, &two)]);
    assert_eq!(complete(&server, url, &parts).await.status, 200);
}

#[tokio::test]
async fn the_parts_of_a_file_are_limited_together() {
    let server = server().await;
    let url = offer(&server, "initiate-multipart").await["upload_url"].clone();
    let url = url.as_str().unwrap();
    assert_eq!(
        put(&server, &format!("{url}/1"), vec![7; MIB + 1])
            .await
            .status,
        413
    );
    assert_eq!(
        put(&server, &format!("{url}/1"), vec![7; MIB]).await.status,
        200
    );
    let half = MIB / 2;
    assert_eq!(
        put(&server, &format!("{url}/2"), vec![7; half + 1])
            .await
            .status,
        413
    );
    // The same part again does not count twice.
    assert_eq!(
        put(&server, &format!("{url}/2"), vec![7; half])
            .await
            .status,
        200
    );
    assert_eq!(
        put(&server, &format!("{url}/2"), vec![7; half])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_store() {
    let server = server().await;
    let id = "0123456789abcdef0123456789abcdef";
    for path in [
        "/files/../key".to_owned(),
        "/files/..%2fkey".to_owned(),
        "/files/key".to_owned(),
        "/files/%2e%2e/key".to_owned(),
        "/files/hosted/x".to_owned(),
        format!("/files/{id}/../../key"),
        format!("/files/{id}/..%2f..%2fkey"),
        format!("/files/{id}/%2e%2e"),
        format!("/files/{id}/"),
        format!("/files/{id}//"),
        format!("/files/{id}/a%00"),
        format!("/files/{id}/%ff"),
        format!("/files/{id}/{}", "a".repeat(5000)),
        "/files//".to_owned(),
        "/files/upload/..%2f..%2fkey".to_owned(),
    ] {
        let mut raw = Raw::connect(server.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        raw.send(request).await;
        let answer = raw.read_to_end().await;
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["404", "405"].contains(&status), "{path}: {answer}");
    }
}

#[tokio::test]
async fn malformed_negotiations_are_refused_in_our_words() {
    let server = server().await;
    let url = format!("{}/rest/storage/upload/initiate", server.base);
    for (body, status) in [
        (json!({}), 200),
        (
            json!({"file_name": null, "content_type": null, "more": 1}),
            200,
        ),
        (json!({"file_name": "../../etc/passwd\r\nX: y"}), 200),
        (json!({"file_name": "x".repeat(100_000)}), 200),
        (json!({"file_name": 5}), 400),
        (json!([]), 400),
        (json!("x"), 400),
    ] {
        let answer = send(server.client.post(&url).json(&body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if let Some(file_url) = answer.json()["file_url"].as_str() {
            let name = file_url.rsplit('/').next().unwrap();
            let is_plain = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
            assert!(name.len() <= 100 && name.chars().all(is_plain), "{name}");
        }
    }
    let no_json = send(server.client.post(&url).body("{")).await;
    assert_eq!(
        (no_json.status, no_json.fault_type().as_str()),
        (422, "json_invalid")
    );
    for value in ["", "7d", r#"{"expiration_duration_seconds": -1}"#] {
        let request = server.client.post(&url).json(&json!({}));
        let answer = send(request.header("x-fal-object-lifecycle", value)).await;
        assert_eq!(answer.status, 400, "{value}");
    }
    let get = server.get("/rest/storage/upload/initiate").await;
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn negotiating_needs_a_key() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    for call in ["upload/initiate", "upload/initiate-multipart", "auth/token"] {
        let url = format!("{}/rest/storage/{call}", server.base);
        let answer = send(server.client.post(url).json(&json!({}))).await;
        assert_eq!(answer.status, 401, "{call}");
    }
    for call in ["upload", "upload/multipart"] {
        let url = format!("{}/files/{call}", server.base);
        let guess = server.client.post(url).bearer_auth("guess").body("x");
        assert_eq!(send(guess).await.status, 401, "{call}");
    }
    assert_eq!(server.files.used_bytes(), 0);
}
