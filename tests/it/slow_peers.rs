//! Peers that send slowly, read slowly, say nothing or take everything: each holds up itself alone.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{input, png};
use crate::support::raw::{Raw, post};
use crate::support::server::{Answer, TestServer, client_trusting, send};

const CAPTION: &str = "/fal-ai/florence-2-large/caption";
const CUT: &str = r#"florence2_cut_connections_total{reason="slow_reader"} 1"#;

/// A server that tells callers apart by what a proxy says, so that one machine can be many.
async fn behind_a_proxy(
    change: impl FnOnce(&mut florence2_server::cli::serve::ServeSettings),
) -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.face.trust_forwarded = true;
        change(settings);
    })
    .await
}

/// Begins to send a body of this length and stops half way.
async fn begin_body(server: &TestServer, caller: &str, path: &str, length: usize) -> Raw {
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {caller}\r\ncontent-length: {length}\r\n\
         expect: 100-continue\r\n\r\n"
    ))
    .await;
    // It says so once the body is waited for.
    let interim = raw.read_answer().await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    raw.send(vec![b' '; length / 2]).await;
    raw
}

async fn call(server: &TestServer, caller: &str, body: &serde_json::Value) -> Answer {
    let request = server.client.post(server.url("caption"));
    send(request.header("x-forwarded-for", caller).json(body)).await
}

#[tokio::test]
async fn slow_bodies_close_run_to_nobody() {
    let server = behind_a_proxy(|settings| settings.http.max_calls = 2).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(begin_body(&server, "192.0.2.1", CAPTION, 100).await);
    }
    // Not even to the caller who sends them.
    for caller in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(call(&server, caller, &input()).await.status, 200);
    }
    server.wait_for_metric("florence2_calls_inside 0").await;
}

#[tokio::test]
async fn one_caller_holds_a_share_of_the_arriving_bodies() {
    let server = behind_a_proxy(|settings| settings.http.peers.max_bodies = 4).await;
    let one = begin_body(&server, "192.0.2.1", CAPTION, 100).await;
    let queue = format!("/queue{CAPTION}");
    let _two = begin_body(&server, "192.0.2.1", &queue, 100).await;
    let refused = call(&server, "192.0.2.1", &input()).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(call(&server, "192.0.2.2", &input()).await.status, 200);
    drop(one);
    let deadline = Instant::now() + Duration::from_secs(10);
    while call(&server, "192.0.2.1", &input()).await.status != 200 {
        assert!(Instant::now() < deadline, "the place is not given back");
    }
}

#[tokio::test]
async fn one_caller_holds_a_share_of_the_memory_for_bodies() {
    let server = behind_a_proxy(|settings| {
        settings.http.max_body_bytes = 64 << 10;
        settings.http.max_body_memory_bytes = 128 << 10;
    })
    .await;
    let _slow = begin_body(&server, "192.0.2.1", CAPTION, 100 << 10 >> 1).await;
    let _slow = begin_body(&server, "192.0.2.1", CAPTION, 64 << 10).await;
    let large = json!({"image_url": "x".repeat(30 << 10)});
    let deadline = Instant::now() + Duration::from_secs(10);
    while call(&server, "192.0.2.1", &large).await.status != 429 {
        // What was sent may still be on its way.
        assert!(Instant::now() < deadline, "the share has no end");
    }
    assert_eq!(call(&server, "192.0.2.2", &large).await.status, 422);
}

#[tokio::test]
async fn one_caller_holds_a_share_of_the_uploads() {
    let server = behind_a_proxy(|settings| settings.files.max_uploads = 2).await;
    let slow = begin_body(&server, "192.0.2.1", "/files/upload", 100).await;
    let upload = async |caller: &str| {
        let request = server.client.post(format!("{}/files/upload", server.base));
        send(request.header("x-forwarded-for", caller).body("x")).await
    };
    let refused = upload("192.0.2.1").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(upload("192.0.2.2").await.status, 200);
    drop(slow);
}

#[tokio::test]
async fn one_address_holds_a_share_of_the_connections() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_connections = 4;
    })
    .await;
    let silent = [
        Raw::connect(server.address).await,
        Raw::connect(server.address).await,
    ];
    let mut third = Raw::connect(server.address).await;
    let answer = third.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nx-fal-request-id: "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.ends_with(r#""error_type":"concurrent_requests_limit"}"#));
    drop(silent);
    let counted = r#"florence2_cut_connections_total{reason="share"} "#;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut raw = Raw::connect(server.address).await;
        raw.send("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await;
        let text = raw.read_to_end().await;
        if text.contains(counted) {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

#[tokio::test]
async fn silent_sources_hold_no_work() {
    let origin = Origin::start(|_| Serve::Hang(Vec::new())).await;
    let server = behind_a_proxy(|settings| {
        settings.http.max_calls = 2;
        settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
    })
    .await;
    let silent = json!({"image_url": origin.url("/x.png")});
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let request = server.client.post(server.url("caption"));
            tokio::spawn(request.json(&silent).send())
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while origin.connections() < 16 {
        assert!(Instant::now() < deadline, "{}", origin.connections());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = Instant::now();
    assert_eq!(server.call("caption", &input()).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.wait_for_metric("florence2_calls_inside 0").await;
    for call in waiting {
        call.abort();
    }
    origin.wait_until_left().await;
}

#[tokio::test]
async fn one_caller_and_one_source_hold_a_share_of_the_downloads() {
    let origin = Origin::start(|target| match target {
        "/silent" => Serve::Hang(Vec::new()),
        _ => Serve::Body(png(2, 2)),
    })
    .await;
    let server = behind_a_proxy(|settings| {
        settings.fetch.sources.max_fetches = 4;
        settings.fetch.allowed_sources = vec!["127.0.0.0/8".into(), "localhost".into()];
    })
    .await;
    let silent = |host: &str| {
        let port = origin.port();
        json!({"image_url": format!("http://{host}:{port}/silent")})
    };
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let request = server.client.post(server.url("caption"));
        let request = request.header("x-forwarded-for", "192.0.2.1");
        waiting.push(tokio::spawn(request.json(&silent("127.0.0.1")).send()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while origin.connections() < n {
            assert!(Instant::now() < deadline, "the source is not asked");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let good = |host: &str| {
        let port = origin.port();
        json!({"image_url": format!("http://{host}:{port}/x.png")})
    };
    // Its own share is used up, and so is that of the source.
    let status = async |caller: &str, host: &str| call(&server, caller, &good(host)).await.status;
    assert_eq!(status("192.0.2.1", "localhost").await, 429);
    assert_eq!(status("192.0.2.2", "127.0.0.1").await, 429);
    assert_eq!(status("192.0.2.2", "localhost").await, 200);
    for call in waiting {
        call.abort();
    }
    origin.wait_until_left().await;
    assert_eq!(status("192.0.2.1", "127.0.0.1").await, 200);
}

#[tokio::test]
async fn a_call_that_waits_for_its_picture_keeps_its_start_deadline() {
    let origin = Origin::start(|_| Serve::Hang(Vec::new())).await;
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.fetch.allowed_sources = vec!["127.0.0.1".into()];
    })
    .await;
    let request = server.client.post(server.url("caption"));
    let request = request.header("x-fal-request-timeout", "0.2");
    let body = json!({"image_url": origin.url("/x.png")});
    let answer = send(request.json(&body)).await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.header("x-fal-request-timeout-type"), "user");
    origin.wait_until_left().await;
}

/// A server that gives readers little time, and a file that fills every buffer on the way.
async fn with_a_large_file(
    change: impl FnOnce(&mut florence2_server::cli::serve::ServeSettings),
) -> (TestServer, String) {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.peers.answer_grace = Duration::from_millis(300);
        change(settings);
    })
    .await;
    let upload = server.client.post(format!("{}/files/upload", server.base));
    let stored = send(upload.body(vec![7; LARGE])).await.json();
    let url = url::Url::parse(stored["access_url"].as_str().unwrap()).unwrap();
    (server, url.path().to_owned())
}

/// More than a socket's buffers hold, which grow to some megabytes.
const LARGE: usize = 32 << 20;

#[tokio::test]
async fn who_reads_nothing_is_cut_and_counted_even_while_the_server_drains() {
    let (mut server, path) = with_a_large_file(|_| {}).await;
    let get = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut raw = Raw::connect(server.address).await;
    raw.send(&get).await;
    server.wait_for_metric(CUT).await;
    let mut left = Vec::new();
    // What the system had taken is given up too.
    let _ = raw.0.read_to_end(&mut left).await;
    assert!(left.len() < LARGE, "all of it came");

    let mut raw = Raw::connect(server.address).await;
    raw.send(&get).await;
    let begun = Instant::now();
    server.stop();
    server.stopped().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the drain waited"
    );
}

#[tokio::test]
async fn who_asks_on_and_on_and_reads_nothing_is_cut() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.peers.answer_grace = Duration::from_millis(300);
    })
    .await;
    let mut raw = Raw::connect(server.address).await;
    let asked = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let deadline = Instant::now() + Duration::from_secs(15);
    while raw.0.write_all(asked.as_bytes()).await.is_ok() {
        assert!(Instant::now() < deadline, "it is answered for ever");
    }
    server.wait_for_metric(CUT).await;
}

#[tokio::test]
async fn a_steady_reader_gets_everything_however_long_it_takes() {
    let (server, path) = with_a_large_file(|settings| {
        settings.http.peers.min_answer_rate_bytes = 4 << 20;
    })
    .await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    ))
    .await;
    let (mut read, mut chunk) = (0, vec![0; 1 << 20]);
    let begun = Instant::now();
    loop {
        match raw.0.read(&mut chunk).await.unwrap() {
            0 => break,
            count => read += count,
        }
        // Twice the least rate, and much longer than the grace.
        let due = Duration::from_secs_f64(read as f64 / f64::from(8 << 20));
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
    assert!(read > LARGE);
    assert!(begun.elapsed() > Duration::from_secs(2));
}

#[tokio::test]
async fn who_reads_nothing_of_an_encrypted_answer_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cert"), pair.cert.pem()).unwrap();
    std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    let mode = format!("{},{}", path("cert"), path("key"));
    let mut server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.tls.mode = mode.parse().unwrap();
        settings.http.peers.answer_grace = Duration::from_millis(300);
    })
    .await;
    server.base = format!("https://localhost:{}", server.address.port());
    server.client = client_trusting(pair.cert.pem().as_bytes());
    let upload = server.client.post(format!("{}/files/upload", server.base));
    let stored = send(upload.body(vec![7; LARGE])).await.json();
    let url = stored["access_url"].as_str().unwrap();
    let response = server.client.get(url).send().await.unwrap();
    server.wait_for_metric(CUT).await;
    assert!(response.bytes().await.is_err(), "all of it came");
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_the_clock_for_headers() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.header_timeout = Duration::from_millis(200);
    })
    .await;
    let mut raw = Raw::connect(server.address).await;
    let body = input().to_string();
    raw.send(post(CAPTION, "", &body)).await;
    assert!(raw.read_answer().await.starts_with("HTTP/1.1 200 "));
    let begun = Instant::now();
    assert_eq!(raw.read_to_end().await, "");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
