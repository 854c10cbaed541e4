//! Raw sockets: slow, split, oversized, pipelined and broken requests.

use std::time::{Duration, Instant};

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::raw::{Raw, post};
use crate::support::server::TestServer;

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
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
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
    }
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
    }
    assert_eq!(server.get("/health/ready").await.status, 200);
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
