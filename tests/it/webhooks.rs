//! Webhooks: what a receiver is sent, how it can check it, when it is told again, and whom nobody
//! ever contacts.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use florence2_server::config::QueueSettings;
use florence2_server::image_io::fetch::{LookedUp, NameLookup};
use florence2_server::queue::{NewJob, Queue, Surroundings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::jobs::{ManualClock, PATIENCE, Script, completed, job, refusals};
use crate::support::origin::Origin;
use crate::support::receiver::{Receiver, Told};

fn allowing(allowed: &[&str]) -> QueueSettings {
    QueueSettings {
        allowed_webhooks: allowed.iter().map(ToString::to_string).collect(),
        ..QueueSettings::default()
    }
}

/// A queue in memory that may tell receivers on loopback.
async fn queue() -> (Queue, Arc<Script>, ManualClock) {
    let clock = ManualClock::new();
    let settings = allowing(&["127.0.0.1"]);
    let queue = Queue::in_memory(&settings, refusals(), clock.surroundings())
        .await
        .unwrap();
    let script = Script::new();
    queue.run(script.clone());
    (queue, script, clock)
}

async fn submit(queue: &Queue, body: &str, url: String) -> Uuid {
    let told = NewJob {
        webhook: Some(url),
        ..job(body)
    };
    queue.submit(told).await.unwrap().id
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let bytes = digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]);
    bytes.map(|byte| u8::try_from(byte).unwrap()).collect()
}

/// Checks a webhook as fal's documentation tells receivers to.
pub(crate) fn is_genuine(told: &Told, jwks: &str) -> bool {
    let hash = digest(&SHA256, &told.body);
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let message = [
        told.header("x-fal-webhook-request-id"),
        told.header("x-fal-webhook-user-id"),
        told.header("x-fal-webhook-timestamp"),
        &hash,
    ]
    .join("\n");
    let signature = unhex(told.header("x-fal-webhook-signature"));
    let keys: Value = serde_json::from_str(jwks).unwrap();
    keys["keys"].as_array().unwrap().iter().any(|key| {
        let x = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, x);
        key.verify(message.as_bytes(), &signature).is_ok()
    })
}

#[tokio::test]
async fn a_receiver_gets_the_answer_and_can_check_who_sent_it() {
    let receiver = Receiver::grateful().await;
    let (queue, _script, _clock) = queue().await;
    let answer = r#"{"results":{"bboxes":[{"x":0.10}]}}"#;
    let id = submit(&queue, answer, receiver.url("/hook?token=a%2Fb")).await;
    let told = receiver.told(1).await.remove(0);
    let expected = format!(
        r#"{{"request_id":"{id}","gateway_request_id":"{id}","status":"OK","error":null,"payload":{answer}}}"#
    );
    assert_eq!(told.text(), expected);
    assert_eq!(told.path, "/hook");
    assert_eq!(told.header("content-type"), "application/json");
    assert_eq!(told.header("x-fal-webhook-request-id"), id.to_string());
    assert_eq!(told.header("x-fal-webhook-timestamp"), "1700000000");
    assert!(is_genuine(&told, &queue.jwks()));
    let mut forged = told.clone();
    forged.body = told.text().replace("0.10", "0.11").into();
    assert!(!is_genuine(&forged, &queue.jwks()));
    let key = &serde_json::from_str::<Value>(&queue.jwks()).unwrap()["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"]),
        (&json!("OKP"), &json!("Ed25519"))
    );
}

#[tokio::test]
async fn failures_and_cancelled_jobs_are_told_as_errors() {
    let receiver = Receiver::grateful().await;
    let (queue, script, _clock) = queue().await;
    submit(&queue, "status 422", receiver.url("/")).await;
    let told: Value = serde_json::from_str(receiver.told(1).await[0].text()).unwrap();
    assert_eq!(told["status"], "ERROR");
    assert_eq!(told["error"], "Invalid status code: 422");
    assert_eq!(told["payload"], json!({"detail": []}));
    let id = submit(&queue, "hang", receiver.url("/")).await;
    script.started(2).await;
    queue.cancel(id).await.unwrap();
    let told: Value = serde_json::from_str(receiver.told(2).await[1].text()).unwrap();
    assert_eq!(told["request_id"], id.to_string());
    assert_eq!(told["error"], "Invalid status code: 499");
    assert_eq!(told["payload"]["error_type"], "client_cancelled");
}

/// Lets time pass until the receiver was told this often. Time goes on while an answer is on its way,
/// so the pauses are at least what they should be.
async fn told_in_time(receiver: &Receiver, clock: &ManualClock, times: usize) -> Vec<Told> {
    let begun = Instant::now();
    loop {
        let told = receiver.told(0).await;
        if told.len() >= times {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "told {} times", told.len());
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again_with_growing_pauses() {
    let receiver = Receiver::start(|earlier, _| {
        let status = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::NOT_FOUND];
        Some(
            status
                .get(earlier)
                .copied()
                .unwrap_or(StatusCode::NO_CONTENT)
                .into_response(),
        )
    })
    .await;
    let (queue, _script, clock) = queue().await;
    let id = submit(&queue, "{}", receiver.url("/")).await;
    // The first call comes while time still stands.
    receiver.told(1).await;
    let told = told_in_time(&receiver, &clock, 3).await;
    let seconds = |told: &Told| -> i64 { told.header("x-fal-webhook-timestamp").parse().unwrap() };
    assert_eq!(seconds(&told[0]), 1_700_000_000);
    assert!(seconds(&told[1]) >= seconds(&told[0]) + 10);
    assert!(seconds(&told[2]) >= seconds(&told[1]) + 20);
    for told in &told {
        assert_eq!(told.header("x-fal-webhook-request-id"), id.to_string());
        assert_eq!(told.body, receiver.told(1).await[0].body);
        assert!(is_genuine(told, &queue.jwks()));
    }
    // It has arrived: whatever the time, the next one told is another job.
    clock.advance(Duration::from_secs(7200));
    let next = submit(&queue, "{}", receiver.url("/next")).await;
    let told = receiver.told(4).await;
    assert_eq!(told[3].header("x-fal-webhook-request-id"), next.to_string());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_not_tried_again() {
    let canary = Origin::canary().await;
    let target = canary.url("/");
    let receiver = Receiver::start(move |_, path| {
        Some(match path {
            "/redirect" => Redirect::temporary(&target).into_response(),
            _ => StatusCode::OK.into_response(),
        })
    })
    .await;
    let (queue, _script, clock) = queue().await;
    submit(&queue, "{}", receiver.url("/redirect")).await;
    receiver.told(1).await;
    clock.advance(Duration::from_secs(7200));
    submit(&queue, "{}", receiver.url("/ok")).await;
    assert_eq!(receiver.told(2).await[1].path, "/ok");
    assert_eq!(canary.connections(), 0);
}

/// Leads every name to the same place.
struct To(&'static str);

impl NameLookup for To {
    fn lookup(&self, _: &str) -> LookedUp {
        let address: Result<IpAddr, _> = self.0.parse().map_err(io::Error::other);
        Box::pin(async move { Ok(vec![address?]) })
    }
}

#[tokio::test]
async fn nobody_private_is_contacted_unless_allowed() {
    let canary = Origin::canary().await;
    let port = canary.port();
    let receiver = Receiver::grateful().await;
    let clock = ManualClock::new();
    let surroundings = Surroundings {
        lookup: Arc::new(To("127.0.0.1")),
        ..clock.surroundings()
    };
    // The last job's receiver is allowed by its name and port, which lead to the same address.
    let friend = format!("friend.test:{}", receiver.port());
    let settings = allowing(&["10.0.0.0/8", &friend]);
    let queue = Queue::in_memory(&settings, refusals(), surroundings)
        .await
        .unwrap();
    queue.run(Script::new());
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://looks-public.test:{port}/"),
        format!("http://friend.test@127.0.0.1:{port}/"),
        format!("http://friend.test:{port}/"),
        format!("http://user:password@{friend}/"),
        format!("http://user@{friend}/"),
        format!("http://{friend}/{}", "x".repeat(8 << 10)),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://168.63.129.16/machine/".into(),
        "http://[::ffff:168.63.129.16]/".into(),
        "http://[64:ff9b::a83f:8110]/".into(),
        "http://8.8.8.8:6379/".into(),
        "http://8.8.8.8:25/".into(),
        "ftp://friend.test/".into(),
        "file:///etc/passwd".into(),
        "not a url".into(),
        String::new(),
    ] {
        let id = submit(&queue, "{}", url).await;
        completed(&queue, id).await;
    }
    clock.advance(Duration::from_secs(7200));
    let id = submit(&queue, "{}", format!("http://{friend}/")).await;
    let told = receiver.told(1).await;
    assert_eq!(told[0].header("x-fal-webhook-request-id"), id.to_string());
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_delivery_survives_a_restart() {
    // The first call is left hanging, and the server stops meanwhile.
    let receiver =
        Receiver::start(|earlier, _| (earlier > 0).then(|| StatusCode::OK.into_response())).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = allowing(&["127.0.0.1"]);
    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    queue.run(Script::new());
    let id = submit(&queue, "{}", receiver.url("/")).await;
    receiver.told(1).await;
    let keys = queue.jwks();
    queue.close(Duration::ZERO).await;

    // Nobody answers jobs any more, but what is owed is delivered.
    let queue = Queue::open(folder.path(), &settings, refusals())
        .await
        .unwrap();
    let told = receiver.told(2).await;
    assert_eq!(told[0].text(), told[1].text());
    let user = "x-fal-webhook-user-id";
    assert_eq!(told[0].header(user), told[1].header(user));
    for told in &told {
        assert_eq!(told.header("x-fal-webhook-request-id"), id.to_string());
        assert!(is_genuine(told, &keys));
    }
    queue.close(PATIENCE).await;
}
