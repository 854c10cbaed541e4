//! Stopping: what is in flight is answered, what comes later is not accepted, and it ends in time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::child::Child;
use crate::support::fake_model::FakeModel;
use crate::support::origin::{Origin, Serve};
use crate::support::pictures::{grey, input};
use crate::support::raw::{Raw, post};
use crate::support::server::{Answer, TestServer, client, send};

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
    let call = tokio::spawn(send(request));
    remote.wait_for_start().await;
    let begun = Instant::now();
    server.stop();
    assert_stopping(&call.await.unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(200));
    // The model is still at it, and is not waited for.
    server.stopped().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    remote.go();
}

/// The answer to a call that the server will not see to the end.
fn assert_stopping(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(answer.header("x-fal-needs-retry"), "1");
    assert_eq!(answer.header("retry-after"), "1");
    let said = "The server is stopping. Try again later.";
    let error_type = "runner_scheduling_failure";
    assert_eq!(
        answer.json(),
        json!({"detail": said, "error_type": error_type})
    );
}

#[tokio::test]
async fn new_calls_are_told_during_the_drain_and_reading_goes_on() {
    let (model, remote) = FakeModel::slow("kept");
    let mut server = TestServer::with(model, |settings| settings.queue.workers = 1).await;
    let job = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let request = server.client.post(server.url("caption")).json(&input());
    let call = tokio::spawn(send(request));
    server.wait_for_metric("florence2_calls_inside 1").await;
    // A connection that was open before is told like a new one.
    let mut old = Raw::connect(server.address).await;
    old.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    old.read_answer().await;

    server.stop();
    server.wait_until_refused().await;
    assert_stopping(&server.call("caption", &input()).await);
    let submit = server.client.post(server.queue_url("caption"));
    assert_stopping(&send(submit.json(&input())).await);
    old.send(post("/fal-ai/florence-2-large/caption", "", "{}"))
        .await;
    let told = old.read_to_end().await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert_eq!(server.get("/health/live").await.status, 200);
    let ready = server.get("/health/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({"status": "stopping"}))
    );
    assert_eq!(
        server.status(&job).await.json()["status"],
        json!("IN_PROGRESS")
    );

    remote.go();
    remote.go();
    assert_eq!(call.await.unwrap().json(), json!({"results": "kept"}));
    server.stopped().await;
}

#[tokio::test]
async fn the_stop_delay_answers_calls_and_says_not_ready() {
    let mut server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.http.stop_delay = Duration::from_secs(1);
    })
    .await;
    let begun = Instant::now();
    server.stop();
    while server.get("/health/ready").await.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(5), "it stays ready");
    }
    let answer = server.call("caption", &input()).await;
    assert_eq!(answer.json(), json!({"results": "t"}));
    let early = begun.elapsed() < Duration::from_millis(900);
    assert!(early, "the machine is too slow to tell");
    server.stopped().await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut best = Duration::MAX;
    // A busy machine may be slow once.
    for _ in 0..5 {
        let mut server = TestServer::start(FakeModel::saying("t")).await;
        server.call("caption", &input()).await;
        let mut open = Raw::connect(server.address).await;
        open.send("GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        open.read_answer().await;
        let mut half = Raw::connect(server.address).await;
        half.send("GET /health/li").await;
        let begun = Instant::now();
        server.stop();
        server.stopped().await;
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn an_idle_process_ends_at_once() {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let child = Child::start().await;
        let url = child.url("caption");
        let call = client().post(url).json(&json!({"image_url": grey(2, 2)}));
        assert_eq!(send(call).await.status, 200);
        let begun = Instant::now();
        child.stop("-TERM").await;
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let child = Child::start().await;
        // Somebody is still handing a job in, which the drain waits for.
        let url = url::Url::parse(child.base()).unwrap();
        let mut raw = Raw::connect(url.socket_addrs(|| None).unwrap()[0]).await;
        let path = "/queue/fal-ai/florence-2-large/caption";
        let request = post(path, "expect: 100-continue\r\n", &input().to_string());
        raw.send(&request[..request.len() - 5]).await;
        let interim = raw.read_answer().await;
        assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
        child.signal("-TERM");
        let call = || client().post(child.url("caption")).body("[]").send();
        let deadline = Instant::now() + Duration::from_secs(10);
        while call().await.is_ok_and(|answer| answer.status() != 503) {
            assert!(Instant::now() < deadline, "the drain does not begin");
        }
        child.signal(signal);
        let (status, _) = child.ended().await;
        assert_eq!(status.code(), Some(code), "{signal}");
        assert!(Instant::now() < deadline);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_hangup_is_ignored() {
    let child = Child::start().await;
    child.signal("-HUP");
    child.signal("-HUP");
    let url = child.url("caption");
    let call = client().post(url).json(&json!({"image_url": grey(2, 2)}));
    assert_eq!(send(call).await.status, 200);
    let log = child.stop("-TERM").await;
    assert!(log.contains("SIGHUP is ignored"), "{log}");
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
    // The address of an upload is a credential.
    let upload = child
        .url("")
        .replace("fal-ai/florence-2-large", "files/upload");
    let upload = client().put(format!("{upload}{secret}")).body("x");
    assert_eq!(send(upload).await.status, 403);
    let log = child.stop("-TERM").await;
    assert_eq!(log.matches("refused").count(), bodies.len() + 1, "{log}");
    assert!(
        log.contains("face=\"run\" path=/run/fal-ai/florence-2-large/caption"),
        "{log}"
    );
    assert!(!log.to_uppercase().contains(secret), "{log}");
}
