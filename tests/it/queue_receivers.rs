//! Receivers of webhooks that never answer keep nobody else from being told.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use florence2_server::config::QueueSettings;
use florence2_server::image_io::fetch::{LookedUp, NameLookup};
use florence2_server::queue::{NewJob, Queue, Surroundings};

use crate::support::jobs::{ManualClock, PATIENCE, Script, completed, job, refusals};
use crate::support::receiver::Receiver;

/// Time within which a receiver that is well is told, on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// Leads every name to this machine.
struct Here;

impl NameLookup for Here {
    fn lookup(&self, _: &str) -> LookedUp {
        let address = IpAddr::from([127, 0, 0, 1]);
        Box::pin(async move { io::Result::Ok(vec![address]) })
    }
}

/// A queue whose receivers are named, and everything is told at once.
async fn queue(change: impl FnOnce(&mut QueueSettings)) -> Queue {
    let mut settings = QueueSettings {
        allowed_webhooks: vec!["127.0.0.1".into()],
        ..QueueSettings::default()
    };
    change(&mut settings);
    let around = Surroundings {
        lookup: Arc::new(Here),
        ..ManualClock::new().surroundings()
    };
    let queue = Queue::in_memory(&settings, refusals(), around).await;
    let queue = queue.unwrap();
    queue.run(Script::new());
    queue
}

/// Has a receiver told of a job that is done already.
async fn tell(queue: &Queue, host: &str, receiver: &Receiver, body: &str) {
    let told = NewJob {
        webhook: Some(format!("http://{host}:{}/", receiver.port())),
        ..job(body)
    };
    let id = queue.submit(told).await.unwrap().id;
    completed(queue, id).await;
}

/// A receiver that never answers.
async fn hanging() -> Receiver {
    Receiver::start(|_, _| None).await
}

async fn is_told_within(queue: &Queue, limit: Duration, body: &str) {
    let good = Receiver::grateful().await;
    let begun = Instant::now();
    tell(queue, "good.test", &good, body).await;
    good.told(1).await;
    let took = begun.elapsed();
    assert!(took < limit, "a good receiver is told after {took:?}");
}

#[tokio::test]
async fn forty_hanging_deliveries_to_one_receiver_hold_no_good_one_back() {
    let queue = queue(|_| {}).await;
    let hanging = hanging().await;
    for _ in 0..40 {
        tell(&queue, "hanging.test", &hanging, "{}").await;
    }
    is_told_within(&queue, SOON, "{}").await;
    assert_eq!(hanging.told(4).await.len(), 4, "its share");
}

#[tokio::test]
async fn forty_hanging_receivers_hold_no_good_one_back() {
    let queue = queue(|_| {}).await;
    let hanging = hanging().await;
    for number in 0..40 {
        tell(&queue, &format!("h{number}.test"), &hanging, "{}").await;
    }
    is_told_within(&queue, SOON, "{}").await;
    hanging.told(40).await;
}

#[tokio::test]
async fn more_hanging_receivers_than_places_hold_a_good_one_back_for_moments() {
    let queue = queue(|settings| settings.webhooks = 4).await;
    let hanging = hanging().await;
    for number in 0..10 {
        tell(&queue, &format!("h{number}.test"), &hanging, "{}").await;
    }
    // Three times two seconds, in which those ahead could have answered.
    is_told_within(&queue, Duration::from_secs(10), "{}").await;
}

/// A result of 1.5 MiB.
fn large() -> String {
    format!("\"{}\"", "x".repeat(3 << 19))
}

#[tokio::test]
async fn hanging_receivers_of_large_results_hold_no_good_one_back() {
    let queue = queue(|_| {}).await;
    let hanging = hanging().await;
    for number in 0..6 {
        tell(&queue, &format!("h{number}.test"), &hanging, &large()).await;
    }
    is_told_within(&queue, SOON, "{}").await;
    is_told_within(&queue, SOON, &large()).await;
    hanging.told(6).await;
}

#[tokio::test]
async fn large_results_beyond_the_memory_are_told_after_moments() {
    // Two of them fit, and one of each receiver.
    let queue = queue(|settings| settings.webhook_memory_bytes = 4 << 20).await;
    let hanging = hanging().await;
    for number in 0..4 {
        tell(&queue, &format!("h{number}.test"), &hanging, &large()).await;
    }
    is_told_within(&queue, SOON, "{}").await;
    // Two times two seconds, in which those ahead could have answered.
    is_told_within(&queue, Duration::from_secs(8), &large()).await;
    hanging.told(4).await;
}

#[tokio::test]
async fn all_of_a_slow_receivers_deliveries_arrive_in_the_end() {
    let slow = Receiver::start(|_, _| {
        std::thread::sleep(Duration::from_millis(10));
        Some("thanks".into_response())
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = QueueSettings {
        allowed_webhooks: vec!["127.0.0.1".into()],
        webhooks_per_receiver: 1,
        ..QueueSettings::default()
    };
    let around = Surroundings {
        lookup: Arc::new(Here),
        ..Surroundings::default()
    };
    let open = async || {
        let queue = Queue::open_in(folder.path(), &settings, refusals(), around.clone());
        queue.await.unwrap()
    };
    let queue = open().await;
    queue.run(Script::new());
    for _ in 0..20 {
        tell(&queue, "slow.test", &slow, "{}").await;
    }
    // What is held is not forgotten by a restart.
    queue.close(Duration::ZERO).await;
    let queue = open().await;
    let told = slow.told(20).await;
    let mut ids: Vec<_> = told
        .iter()
        .map(|told| told.header("x-fal-webhook-request-id").to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    let deadline = Instant::now() + PATIENCE;
    while ids.len() < 20 {
        assert!(Instant::now() < deadline, "only {} are told", ids.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
        let told = slow.told(20).await;
        ids = told
            .iter()
            .map(|told| told.header("x-fal-webhook-request-id").to_owned())
            .collect();
        ids.sort();
        ids.dedup();
    }
    queue.close(Duration::ZERO).await;
}
