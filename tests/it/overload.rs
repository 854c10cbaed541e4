//! Too many calls: the excess is refused at once, in a way that clients retry.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use florence2_server::config::{DecodeSettings, FetchSettings};
use florence2_server::engine::Engine;
use florence2_server::florence2::processor::{PixelValues, ProcessorError};
use florence2_server::image_io::PictureLoader;
use florence2_server::pipeline::{Codec, Pipeline};
use image::RgbImage;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::fake_model::{FakeCodec, FakeModel, options};
use crate::support::pictures::{grey, input};
use crate::support::queue_client::submit;
use crate::support::raw::{Raw, post};
use crate::support::server::{Answer, TestServer, send};

const CAPTION: &str = "/fal-ai/florence-2-large/caption";

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.json()["error_type"], "concurrent_requests_limit");
    assert_eq!(
        answer.header("x-fal-error-type"),
        "concurrent_requests_limit"
    );
    assert_eq!(answer.header("x-fal-needs-retry"), "1");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_those_inside_are_answered() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.http.max_calls = 2).await;
    let request = || server.client.post(server.url("caption")).json(&input());
    let first = tokio::spawn(send(request()));
    remote.wait_for_start().await;
    let second = tokio::spawn(send(request()));
    server.wait_for_metric("florence2_calls_inside 2").await;

    assert_refused(&send(request()).await);
    // Health answers however full it is.
    assert_eq!(server.get("/health/ready").await.status, 200);

    remote.go();
    remote.go();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    remote.go();
    assert_eq!(send(request()).await.status, 200);
}

#[tokio::test]
async fn a_full_line_in_front_of_the_model_refuses_too() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.engine.max_waiting = 1).await;
    let request = || server.client.post(server.url("caption")).json(&input());
    let first = tokio::spawn(send(request()));
    remote.wait_for_start().await;
    // One of these two finds the place in the line, the other one finds it taken.
    let (a, b) = (tokio::spawn(send(request())), tokio::spawn(send(request())));
    server
        .wait_for_metric(r#"florence2_requests_total{route="caption",status="429"} 1"#)
        .await;
    remote.go();
    remote.go();
    assert_eq!(first.await.unwrap().status, 200);
    let answers = [a.await.unwrap(), b.await.unwrap()];
    let (fine, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(fine.len(), 1);
    assert_refused(refused[0]);
}

#[tokio::test]
async fn a_queued_job_waits_where_a_caller_meets_a_full_line() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.engine.max_waiting = 1).await;
    let request = || server.client.post(server.url("caption")).json(&input());
    let running = tokio::spawn(send(request()));
    remote.wait_for_start().await;
    let (a, b) = (tokio::spawn(send(request())), tokio::spawn(send(request())));
    server
        .wait_for_metric(r#"florence2_requests_total{route="caption",status="429"} 1"#)
        .await;
    let job = server.client.post(server.queue_url("caption"));
    let job = submit(job.json(&input()).header("x-fal-no-retry", "1")).await;
    server.wait_for(&job, "IN_PROGRESS").await;
    assert_refused(&send(request()).await);
    for _ in 0..3 {
        remote.go();
    }
    let answer = server.wait_for_result(&job).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for call in [running, a, b] {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_frees_the_place_is_counted_and_costs_the_model_nothing() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.http.max_calls = 2).await;
    let request = || server.client.post(server.url("caption")).json(&input());
    let first = tokio::spawn(send(request()));
    remote.wait_for_start().await;
    let left = tokio::spawn(send(request()));
    server.wait_for_metric("florence2_calls_inside 2").await;
    left.abort();
    server.wait_for_metric("florence2_calls_inside 1").await;
    let abandoned = r#"florence2_requests_abandoned_total{route="caption"} 1"#;
    server.wait_for_metric(abandoned).await;
    remote.go();
    assert_eq!(first.await.unwrap().status, 200);
    remote.go();
    assert_eq!(send(request()).await.status, 200);
    remote.wait_for_start().await;
    assert_eq!(
        remote.try_started(),
        None,
        "the abandoned input reached the model"
    );
}

/// Takes a long text's tokens only when told.
struct SlowTokenizer {
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Codec for SlowTokenizer {
    fn pixel_values(&self, picture: &RgbImage) -> PixelValues {
        FakeCodec.pixel_values(picture)
    }

    fn input_ids(&self, text: &str, _: usize) -> Result<Vec<u32>, ProcessorError> {
        if text.len() > 1000 {
            self.begun.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
        FakeCodec.input_ids(text, usize::MAX)
    }

    fn decode(&self, token_ids: &[u32]) -> Result<String, ProcessorError> {
        FakeCodec.decode(token_ids)
    }

    fn token_ends(&self, token_ids: &[u32], text: &str) -> Result<Vec<usize>, ProcessorError> {
        FakeCodec.token_ends(token_ids, text)
    }
}

#[tokio::test]
async fn a_text_being_tokenised_holds_no_decode_slot_and_no_thread_that_serves() {
    let server = TestServer::without_model(Default::default()).await;
    let ((begun, has_begun), (go, told)) = (channel(), channel());
    let decode = DecodeSettings {
        decode_slots: 1,
        ..DecodeSettings::default()
    };
    let pictures = PictureLoader::new(&FetchSettings::default(), decode).unwrap();
    let engine = Engine::start(Box::new(FakeModel::saying("t")), 8).unwrap();
    let go_on = Mutex::new(told);
    let codec = Arc::new(SlowTokenizer { begun, go: go_on });
    let pipeline = Pipeline::new(pictures, codec, engine, options());
    server.slot.provide(pipeline);

    let long = json!({"image_url": grey(2, 2), "text_input": "x".repeat(1000)});
    let url = server.url("open-vocabulary-detection");
    let slow = tokio::spawn(send(server.client.post(url).json(&long)));
    let has_begun = tokio::task::spawn_blocking(move || has_begun.recv());
    has_begun.await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(server.call("caption", &input()).await.status, 200);
    }
    assert!(!slow.is_finished());
    go.send(()).unwrap();
    assert_eq!(slow.await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_until_one_leaves() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_connections = 1;
    })
    .await;
    let mut holder = Raw::connect(server.address).await;
    holder
        .send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    holder.read_answer().await;
    let mut second = Raw::connect(server.address).await;
    second
        .send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_answer()).await;
    assert!(
        early.is_err(),
        "the second connection was served beside the first"
    );
    drop(holder);
    let answer = second.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_full_server_refuses_before_a_body_is_sent() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.http.max_calls = 1).await;
    let request = server.client.post(server.url("caption")).json(&input());
    let inside = tokio::spawn(send(request));
    remote.wait_for_start().await;
    let mut raw = Raw::connect(server.address).await;
    raw.send(format!(
        "POST {CAPTION} HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n"
    ))
    .await;
    let answer = raw.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    remote.go();
    assert_eq!(inside.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_server_that_fills_up_meanwhile_refuses_after_the_body() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.http.max_calls = 1).await;
    let request = post(CAPTION, "expect: 100-continue\r\n", &input().to_string());
    let (begun, rest) = request.split_at(request.len() - 5);
    let mut raw = Raw::connect(server.address).await;
    raw.send(begun).await;
    raw.read_answer().await;
    let call = server.client.post(server.url("caption")).json(&input());
    let inside = tokio::spawn(send(call));
    remote.wait_for_start().await;
    raw.send(rest).await;
    let answer = raw.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    remote.go();
    assert_eq!(inside.await.unwrap().status, 200);
}

#[cfg(target_os = "linux")]
#[test]
fn a_low_limit_on_open_files_is_raised() {
    use std::io::{BufRead, BufReader};
    let data_dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", r#"ulimit -S -n 200 && exec "$0" "$@""#])
        .arg(env!("CARGO_BIN_EXE_florence2-server"))
        .args(["serve", "--port", "0", "--model", "demo", "--data-dir"])
        .arg(data_dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    let limits = limits.unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = files.unwrap().split_whitespace().skip(3);
    let soft: u64 = numbers.next().unwrap().parse().unwrap();
    let hard: u64 = numbers.next().unwrap().parse().unwrap_or(u64::MAX);
    assert!(soft >= hard.min(2048), "{soft} of {hard}");
}

/// Connects so often at once; gives the longest wait for a connection.
async fn burst(address: std::net::SocketAddr, count: usize) -> (Duration, Vec<TcpStream>) {
    let connecting: Vec<_> = (0..count)
        .map(|_| {
            tokio::spawn(async move {
                let begun = Instant::now();
                let stream = TcpStream::connect(address).await.unwrap();
                (begun.elapsed(), stream)
            })
        })
        .collect();
    let (mut longest, mut streams) = (Duration::ZERO, Vec::new());
    for connected in connecting {
        let (took, stream) = connected.await.unwrap();
        longest = longest.max(took);
        streams.push(stream);
    }
    (longest, streams)
}

#[tokio::test]
async fn a_burst_beyond_the_cap_waits_in_the_systems_line() {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let allowed: usize = allowed.map_or(128, |text| text.trim().parse().unwrap());
    if allowed < 512 {
        eprintln!("skipped: the system allows a line of {allowed}");
        return;
    }
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_connections = 1;
    })
    .await;
    // Who does not fit into the line tries again after a second.
    let (longest, _streams) = burst(server.address, 400).await;
    assert!(longest < Duration::from_millis(900), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "opens six thousand files"]
async fn slow_burst_of_three_thousand_connections_waits_under_a_second() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.max_connections = 4096;
        settings.http.peers.max_share_percent = 100;
    })
    .await;
    let (longest, streams) = burst(server.address, 3000).await;
    println!("the longest of 3,000 connections took {longest:?}");
    assert!(longest < Duration::from_secs(1));
    server.wait_for_metric("florence2_connections 3001").await;
    drop(streams);
}
