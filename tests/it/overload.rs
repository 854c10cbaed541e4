//! Too many calls: the excess is refused at once, in a way that clients retry.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use florence2_server::config::{DecodeSettings, FetchSettings};
use florence2_server::engine::Engine;
use florence2_server::florence2::processor::{PixelValues, ProcessorError};
use florence2_server::image_io::PictureLoader;
use florence2_server::pipeline::{Codec, Pipeline};
use image::RgbImage;
use serde_json::json;

use crate::support::fake_model::{FakeCodec, FakeModel, options};
use crate::support::pictures::{grey, input};
use crate::support::server::{Answer, TestServer, send};

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
    wait_for_metric(&server, "florence2_calls_inside 2").await;

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
    wait_for_metric(
        &server,
        r#"florence2_requests_total{route="caption",status="429"} 1"#,
    )
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
async fn a_caller_who_hangs_up_frees_the_place_is_counted_and_costs_the_model_nothing() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.http.max_calls = 2).await;
    let request = || server.client.post(server.url("caption")).json(&input());
    let first = tokio::spawn(send(request()));
    remote.wait_for_start().await;
    let left = tokio::spawn(send(request()));
    wait_for_metric(&server, "florence2_calls_inside 2").await;
    left.abort();
    wait_for_metric(&server, "florence2_calls_inside 1").await;
    let abandoned = r#"florence2_requests_abandoned_total{route="caption"} 1"#;
    wait_for_metric(&server, abandoned).await;
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
    let mut holder = crate::support::raw::Raw::connect(server.address).await;
    holder
        .send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    holder.read_answer().await;
    let mut second = crate::support::raw::Raw::connect(server.address).await;
    second
        .send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let early =
        tokio::time::timeout(std::time::Duration::from_millis(200), second.read_answer()).await;
    assert!(
        early.is_err(),
        "the second connection was served beside the first"
    );
    drop(holder);
    let answer = second.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

async fn wait_for_metric(server: &TestServer, line: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let text = server.get("/metrics").await.text;
        if text.lines().any(|found| found == line) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no {line} in\n{text}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
