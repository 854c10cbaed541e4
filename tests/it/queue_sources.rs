//! Jobs whose pictures lie behind silent hosts hold back nobody else's.
//!
//! Every host is an address of its own in 127.0.0.0/8, which all belong to this machine on Linux.

use std::time::{Duration, Instant};

use florence2_server::cli::serve::ServeSettings;
use serde_json::json;

use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{input, png};
use crate::support::queue_client::submit;
use crate::support::server::TestServer;

/// Time within which a good job is done, on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// A host of its own that never answers.
async fn silent(host: &str) -> Origin {
    Origin::start_on(host, |_| Serve::Hang(Vec::new())).await
}

async fn server(change: impl FnOnce(&mut ServeSettings)) -> TestServer {
    TestServer::with(FakeModel::saying("t"), |settings| {
        settings.fetch.allowed_sources = vec!["127.0.0.0/8".into()];
        settings.queue.workers = 2;
        change(settings);
    })
    .await
}

async fn submit_url(server: &TestServer, url: &str) -> String {
    server.submit("caption", &json!({ "image_url": url })).await
}

async fn is_done_soon(server: &TestServer, id: &str, since: Instant) {
    let answer = server.wait_for_result(id).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let took = since.elapsed();
    assert!(took < SOON, "a good job took {took:?}");
}

#[tokio::test]
async fn six_jobs_with_silent_sources_hold_no_good_job_back() {
    let server = server(|_| {}).await;
    let silent = silent("127.0.0.2").await;
    let good = Origin::start_on("127.0.0.3", |_| Serve::Body(png(2, 2))).await;
    for number in 0..6 {
        submit_url(&server, &silent.url(&format!("/{number}"))).await;
    }
    let begun = Instant::now();
    let inline = server.submit("caption", &input()).await;
    let remote = submit_url(&server, &good.url("/")).await;
    is_done_soon(&server, &inline, begun).await;
    is_done_soon(&server, &remote, begun).await;
}

#[tokio::test]
async fn a_silent_source_beyond_its_share_takes_no_place_of_another() {
    let server = server(|settings| {
        settings.queue.fetches = 3;
        settings.queue.fetches_per_source = 2;
    })
    .await;
    let silent = silent("127.0.0.4").await;
    let good = Origin::start_on("127.0.0.5", |_| Serve::Body(png(2, 2))).await;
    let mut stuck = Vec::new();
    for number in 0..30 {
        stuck.push(submit_url(&server, &silent.url(&format!("/{number}"))).await);
    }
    let begun = Instant::now();
    let remote = submit_url(&server, &good.url("/")).await;
    is_done_soon(&server, &remote, begun).await;
    assert_eq!(silent.connections(), 2);
    // The others are in line, in their order.
    let last = server.status(stuck.last().unwrap()).await.json();
    assert_eq!(last["status"], "IN_QUEUE");
    assert_eq!(last["queue_position"], 27);
    // Those that are cancelled make room for the next.
    for id in &stuck[..2] {
        server.cancel(id).await;
        server.wait_for(id, "COMPLETED").await;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while silent.connections() < 4 {
        assert!(Instant::now() < deadline, "nobody takes the free place");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for id in &stuck[2..4] {
        server.wait_for(id, "IN_PROGRESS").await;
    }
    assert_eq!(silent.connections(), 4);
}

#[tokio::test]
async fn a_job_held_for_its_source_keeps_its_start_deadline() {
    let server = server(|settings| settings.queue.fetches_per_source = 1).await;
    let silent = silent("127.0.0.6").await;
    let first = submit_url(&server, &silent.url("/")).await;
    server.wait_for(&first, "IN_PROGRESS").await;
    let body = json!({ "image_url": silent.url("/late") });
    let late = server.client.post(server.queue_url("caption")).json(&body);
    let late = submit(late.header("x-fal-request-timeout", "1.5")).await;
    let status = server.wait_for(&late, "COMPLETED").await;
    assert_eq!(status["error_type"], "request_timeout");
    assert_eq!(silent.connections(), 1);
}

#[tokio::test]
async fn all_jobs_of_a_slow_source_are_done_in_the_end() {
    let server = server(|settings| settings.queue.fetches_per_source = 1).await;
    let slow = Origin::start_on("127.0.0.7", |_| {
        std::thread::sleep(Duration::from_millis(20));
        Serve::Body(png(2, 2))
    })
    .await;
    let mut jobs = Vec::new();
    for number in 0..12 {
        jobs.push(submit_url(&server, &slow.url(&format!("/{number}"))).await);
    }
    for id in &jobs {
        assert_eq!(server.wait_for_result(id).await.status, 200);
    }
    assert_eq!(slow.connections(), 12);
}

#[tokio::test]
async fn jobs_wait_for_memory_that_other_pictures_hold() {
    let server = server(|settings| {
        settings.fetch.max_picture_bytes = 64 << 10;
        // One file of the largest size, of which jobs may hold as much.
        settings.fetch.sources.max_fetch_memory_bytes = 64 << 10;
    })
    .await;
    let half_sent = Origin::start_on("127.0.0.9", |_| {
        let mut part = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n".to_vec();
        part.resize(50_000, 0);
        Serve::Hang(part)
    })
    .await;
    // What stands behind a picture is not looked at.
    let mut picture = png(2, 2);
    picture.resize(40_000, 0);
    let good = Origin::start_on("127.0.0.10", move |_| Serve::Body(picture.clone())).await;
    let silent = submit_url(&server, &half_sent.url("/")).await;
    server.wait_for(&silent, "IN_PROGRESS").await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        let body = json!({ "image_url": good.url("/") });
        let job = server.client.post(server.queue_url("caption")).json(&body);
        jobs.push(submit(job.header("x-fal-no-retry", "1")).await);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while good.connections() < jobs.len() {
        assert!(Instant::now() < deadline, "the source is not asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.cancel(&silent).await;
    for id in &jobs {
        let answer = server.wait_for_result(id).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn held_jobs_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let silent = silent("127.0.0.8").await;
    let change = |settings: &mut ServeSettings| {
        settings.data_dir = Some(folder.path().into());
        settings.queue.fetches_per_source = 1;
        settings.http.drain_timeout = Duration::from_millis(100);
    };
    let mut first = server(change).await;
    let mut jobs = Vec::new();
    for number in 0..3 {
        jobs.push(submit_url(&first, &silent.url(&format!("/{number}"))).await);
    }
    first.wait_for(&jobs[0], "IN_PROGRESS").await;
    let good = first.submit("caption", &input()).await;
    first.wait_for(&good, "COMPLETED").await;
    first.stop();
    first.stopped().await;

    let next = server(change).await;
    for (at, id) in jobs.iter().enumerate() {
        let expected = if at == 0 { "IN_PROGRESS" } else { "IN_QUEUE" };
        next.wait_for(id, expected).await;
    }
    for id in &jobs {
        next.wait_for(id, "IN_PROGRESS").await;
        next.cancel(id).await;
        assert_eq!(next.wait_for_result(id).await.status, 499);
    }
}
