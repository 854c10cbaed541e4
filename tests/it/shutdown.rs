//! Stopping: what is in flight is answered, what comes later is not accepted, and it ends in time.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use florence2_server::cli::serve::{LoadedModel, ServeSettings, serve};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::fake_model::{FakeCodec, FakeModel, options};
use crate::support::pictures::{grey, input};
use crate::support::raw::Raw;
use crate::support::server::{TestServer, send};

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
    wait_until_refused(address).await;
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

async fn wait_until_refused(address: std::net::SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "the listener stays open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Not a test of its own: the process that the next test starts and stops by signal.
#[test]
#[ignore = "started as a child process by the signal test"]
fn child_server() {
    let settings = ServeSettings {
        http: florence2_server::config::HttpSettings {
            port: 0,
            ..ServeSettings::default().http
        },
        ..ServeSettings::default()
    };
    serve(&settings, || {
        Ok(LoadedModel {
            model: Box::new(FakeModel::saying("from the child")),
            codec: Arc::new(FakeCodec),
            options: options(),
        })
    })
    .unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_process_says_where_it_listens_becomes_ready_and_stops_on_either_signal() {
    for signal in ["-TERM", "-INT"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "shutdown::child_server",
                "--ignored",
                "--nocapture",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let base = loop {
            let line = lines
                .next()
                .expect("the child says where it listens")
                .unwrap();
            if let Some((_, base)) = line.split_once("listening on ") {
                break base.to_owned();
            }
        };
        let client = crate::support::server::client();
        let ready = format!("{base}/health/ready");
        let deadline = Instant::now() + Duration::from_secs(10);
        while send(client.get(&ready)).await.status != 200 {
            assert!(Instant::now() < deadline, "the child is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let url = format!("{base}/fal-ai/florence-2-large/caption");
        let answer = send(client.post(url).json(&json!({"image_url": grey(2, 2)}))).await;
        assert_eq!(answer.json(), json!({"results": "from the child"}));

        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let status = tokio::time::timeout(Duration::from_secs(10), status).await;
        assert!(
            status.expect("the child ends").unwrap().success(),
            "{signal}"
        );
    }
}
