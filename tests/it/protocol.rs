//! Raw sockets: slow, split, oversized, pipelined and broken requests.

use std::time::{Duration, Instant};

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::raw::{Raw, post};
use crate::support::server::{TestServer, send};

const CAPTION: &str = "/fal-ai/florence-2-large/caption";

async fn server() -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_body_bytes = 4096;
        settings.http.max_header_bytes = 16 << 10;
        settings.http.max_header_lines = 20;
    })
    .await
}

/// The same with clocks that run out while a test waits.
async fn hasty_server() -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.header_timeout = Duration::from_millis(300);
        settings.http.body_grace = Duration::from_millis(300);
    })
    .await
}

/// What is said about something that is no HTTP.
const MALFORMED: &str = "The request could not be read as HTTP/1.1.";

/// One refusal in the envelope, with an id, that ends the connection.
fn assert_refused(answer: &str, status: u16, said: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer:?}"
    );
    let header = |name: &str| {
        let mut found = head.lines().filter_map(|line| line.split_once(": "));
        let value = found.find(|(known, _)| *known == name);
        value.map_or("", |(_, value)| value)
    };
    assert!(
        uuid::Uuid::parse_str(header("x-fal-request-id")).is_ok(),
        "{answer:?}"
    );
    assert_eq!(header("connection"), "close", "{answer:?}");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("content-length"), body.len().to_string());
    assert_eq!(header("x-fal-error-type"), "bad_request");
    assert_eq!(header("x-fal-needs-retry"), "0");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({"detail": said, "error_type": "bad_request"});
    assert_eq!(body, expected);
}

async fn exchange(server: &TestServer, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(server.address).await;
    raw.send(request).await;
    raw.read_to_end().await
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off_by_the_clock() {
    let server = hasty_server().await;
    let begun = Instant::now();
    let mut raw = Raw::connect(server.address).await;
    raw.send("POST / HTTP/1.1\r\nhost: x\r\nx-drip: ").await;
    let answer = raw.read_to_end().await;
    assert_refused(&answer, 408, "The request's headers arrived too slowly.");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // A connection on which nothing was said is closed without a word.
    assert_eq!(Raw::connect(server.address).await.read_to_end().await, "");
}

#[tokio::test]
async fn one_byte_at_a_time_does_not_stop_the_clock() {
    let server = hasty_server().await;
    let mut raw = Raw::connect(server.address).await;
    let begun = Instant::now();
    for byte in "GET /health/live HTTP/1.1\r\nx: "
        .bytes()
        .chain(std::iter::repeat(b'a'))
    {
        if tokio::io::AsyncWriteExt::write_all(&mut raw.0, &[byte])
            .await
            .is_err()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the clock never ran out"
        );
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off_by_the_clock() {
    let server = hasty_server().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "POST {CAPTION} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{"
    ))
    .await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    assert!(answer.ends_with(
        r#"{"detail":"The request body arrived too slowly.","error_type":"bad_request"}"#
    ));
}

#[tokio::test]
async fn a_body_is_limited_at_the_limit_however_it_is_framed() {
    let server = server().await;
    let body = |length: usize| {
        let empty = r#"{"image_url":""}"#;
        empty.replace(
            r#""""#,
            &format!("\"{}\"", "x".repeat(length - empty.len())),
        )
    };
    let at = exchange(&server, post(CAPTION, "connection: close\r\n", &body(4096))).await;
    assert!(at.starts_with("HTTP/1.1 422 "), "{at:?}");
    let past = exchange(&server, post(CAPTION, "", &body(4097))).await;
    assert!(past.starts_with("HTTP/1.1 413 "), "{past:?}");
    assert!(past.ends_with(r#"{"detail":[{"type":"file_too_large","loc":["body"],"msg":"File size exceeds the maximum allowed size of 4096 bytes. Please upload a smaller file.","input":null,"ctx":{"max_size":4096},"url":"https://docs.fal.ai/errors#file_too_large"}]}"#), "{past:?}");

    let chunked = |length: usize| {
        let body = body(length);
        let (a, b) = body.split_at(1000);
        let (a_length, b_length) = (a.len(), b.len());
        format!(
            "POST {CAPTION} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{a_length:x}\r\n{a}\r\n{b_length:x}\r\n{b}\r\n0\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(server.address).await;
    raw.send(chunked(4096)).await;
    assert!(raw.read_answer().await.starts_with("HTTP/1.1 422 "));
    let past = exchange(&server, chunked(4097)).await;
    assert!(past.starts_with("HTTP/1.1 413 "), "{past:?}");
}

#[tokio::test]
async fn a_caller_who_sends_far_too_much_still_reads_the_answer() {
    let server = server().await;
    let body = vec![b'x'; 8 << 20];
    let request = server.client.post(server.url("caption")).body(body);
    let answer = crate::support::server::send(request).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_body_cut_off_in_the_middle_is_dropped() {
    let server = server().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "POST {CAPTION} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{\"im"
    ))
    .await;
    tokio::io::AsyncWriteExt::shutdown(&mut raw.0)
        .await
        .unwrap();
    let answer = raw.read_to_end().await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer:?}"
    );
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let server = server().await;
    let long = "x".repeat(20 << 10);
    let many = "a: b\r\n".repeat(30);
    for head in [
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"),
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ] {
        let answer = exchange(&server, head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
        let said = "The request's line and headers are too large.";
        assert_refused(&answer, 431, said);
    }
    server
        .wait_for_metric(r#"florence2_requests_total{route="none",status="431"} 2"#)
        .await;
}

#[tokio::test]
async fn an_address_that_is_too_long_is_refused() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_header_bytes = 1 << 20;
    })
    .await;
    let head = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    let answer = exchange(&server, head).await;
    assert_refused(&answer, 414, "The request's address is too long.");
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_harms_nobody() {
    let server = hasty_server().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        // Two readings of where the body ends.
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, x\r\n\r\n",
    ] {
        let answer = exchange(&server, bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert!(["400", "408", "closed"].contains(&status), "{answer:?}");
        // Nobody is left without a word.
        if status == "408" {
            assert_refused(&answer, 408, "The request's headers arrived too slowly.");
        } else {
            assert_refused(&answer, 400, MALFORMED);
        }
    }
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn what_follows_a_good_request_is_refused_after_its_answer() {
    let server = server().await;
    let good = post(CAPTION, "", &input().to_string());
    for junk in ["junk\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(format!("{good}{junk}")).await;
        let first = raw.read_answer().await;
        assert!(first.ends_with(r#"{"results":"t"}"#), "{first:?}");
        assert_refused(&raw.read_to_end().await, 400, MALFORMED);
    }
}

#[tokio::test]
async fn a_refusal_fits_what_was_asked() {
    let server = server().await;
    // Whoever asks for a head alone is sent no body.
    let answer = exchange(&server, "HEAD / HTTP/1.1\r\nno colon\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(head.contains("\r\nx-fal-request-id: "), "{head}");
    assert_eq!(body, "");
    // A connection of the older version stays one.
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /health/live HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    let first = raw.read_answer().await;
    assert!(first.starts_with("HTTP/1.0 200 "), "{first}");
    raw.send("GET / HTTP/1.0\r\nno colon\r\n\r\n").await;
    let answer = raw.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    assert_refused(&answer.replace("HTTP/1.0", "HTTP/1.1"), 400, MALFORMED);
    // Half a head and no more to come.
    let mut raw = Raw::connect(server.address).await;
    raw.send("GET /health/live HTTP/1.1\r\nx-half: ").await;
    tokio::io::AsyncWriteExt::shutdown(&mut raw.0)
        .await
        .unwrap();
    assert_refused(&raw.read_to_end().await, 400, MALFORMED);
}

#[tokio::test]
async fn a_file_that_looks_like_a_refusal_arrives_whole() {
    let server = server().await;
    let content = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let upload = server.client.post(format!("{}/files/upload", server.base));
    let stored = send(upload.body(content)).await.json();
    let url = stored["access_url"].as_str().unwrap();
    for _ in 0..2 {
        // On a connection that is kept, and whose next request waits for the end of this answer.
        assert_eq!(send(server.client.get(url)).await.text, content);
    }
    let path = url.strip_prefix(&server.base).unwrap();
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\n\r\nno request\r\n\r\n"
    ))
    .await;
    assert!(raw.read_answer().await.ends_with(content));
    assert_refused(&raw.read_to_end().await, 400, MALFORMED);
}

#[tokio::test]
async fn a_request_may_arrive_in_pieces_and_two_may_arrive_at_once() {
    let server = server().await;
    let body = input().to_string();
    let request = post(CAPTION, "", &body);
    let mut raw = Raw::connect(server.address).await;
    for piece in request.as_bytes().chunks(97) {
        raw.send(piece).await;
        tokio::task::yield_now().await;
    }
    let answer = raw.read_answer().await;
    assert!(answer.ends_with(r#"{"results":"t"}"#), "{answer:?}");
    raw.send(format!("{request}{request}")).await;
    for _ in 0..2 {
        assert!(raw.read_answer().await.starts_with("HTTP/1.1 200 "));
    }
}
