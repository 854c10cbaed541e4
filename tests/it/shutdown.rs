//! Stopping: what is in flight is answered, what comes later is not accepted, and it ends in time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::child::Child;
use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{grey, input};
use crate::support::raw::Raw;
use crate::support::server::{TestServer, client, send};

#[tokio::test]
async fn a_call_in_flight_is_answered_and_then_the_server_is_gone() {
    let (model, remote) = FakeModel::slow("kept");
    let mut server = TestServer::start(model).await;
    let address = server.address;
    // Idle connections must not hold the stop up.
    let mut idle = Raw::connect(address).await;
    idle.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    idle.read_answer().await;
    let request = server.client.post(server.url("caption")).json(&input());
    let call = tokio::spawn(send(request));
    remote.wait_for_start().await;

    server.stop();
    server.wait_until_refused().await;
    assert!(!call.is_finished());
    remote.go();
    assert_eq!(call.await.unwrap().json(), json!({"results": "kept"}));
    drop(idle);
    server.stopped().await;
}

#[tokio::test]
async fn the_drain_ends_when_its_time_is_over() {
    let (model, remote) = FakeModel::slow("late");
    let mut server = TestServer::with(model, |settings| {
        settings.http.drain_timeout = Duration::from_millis(200);
    })
    .await;
    let request = server.client.post(server.url("caption")).json(&input());
    let call = tokio::spawn(async move { request.send().await.is_err() });
    remote.wait_for_start().await;
    let begun = Instant::now();
    server.stop();
    assert!(call.await.unwrap(), "the connection was not cut");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    remote.go();
    server.stopped().await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_process_says_where_it_listens_becomes_ready_and_stops_on_either_signal() {
    for signal in ["-TERM", "-INT"] {
        let child = Child::start().await;
        let url = child.url("caption");
        let answer = send(client().post(url).json(&json!({"image_url": grey(2, 2)}))).await;
        assert_eq!(answer.json(), json!({"results": "from the child"}));
        child.stop(signal).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn log_lines_never_hold_keys_pictures_or_query_strings() {
    let origin = Origin::start(|_| Serve::Raw(Vec::new())).await;
    let child = Child::start().await;
    let secret = "SECRET0";
    let bodies = [
        json!({"image_url": format!("data:image/png;base64,{secret}{secret}")}),
        json!({"image_url": format!("data:image/{secret},{secret}")}),
        json!({"image_url": origin.url(&format!("/x.png?sig={secret}"))}),
        json!({"image_url": format!("{secret}:{secret}")}),
        json!({"image_url": 5, "other": secret}),
        json!(secret),
    ];
    for body in &bodies {
        let url = format!("{}?fal_jwt_token={secret}", child.url("caption"));
        let request = client()
            .post(url)
            .header("authorization", format!("Key {secret}:x"));
        assert_eq!(send(request.json(body)).await.status, 422);
    }
    let log = child.stop("-TERM").await;
    assert_eq!(log.matches("refused").count(), bodies.len(), "{log}");
    assert!(
        log.contains("face=\"run\" path=/run/fal-ai/florence-2-large/caption"),
        "{log}"
    );
    assert!(!log.to_uppercase().contains(secret), "{log}");
}
