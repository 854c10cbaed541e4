//! Jobs outlive the server: what waits is answered by the next one, what is done is still there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::raw::{Raw, post};
use crate::support::server::TestServer;

#[tokio::test]
async fn jobs_and_results_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (model, remote) = FakeModel::slow("first \u{e9}");
    let mut server = TestServer::with(model, |settings| {
        settings.queue.workers = 1;
        settings.data_dir = Some(folder.path().into());
    })
    .await;
    let done = server.submit("caption", &input()).await;
    remote.go();
    let kept = server.wait_for_result(&done).await;
    remote.wait_for_start().await;
    let running = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(server.submit("ocr", &input()).await);
    }
    let cancelled = server.submit("caption", &input()).await;
    server.cancel(&cancelled).await;

    // Somebody is still handing a job in; the interim answer says that its body is waited for.
    let body = input().to_string();
    let path = "/queue/fal-ai/florence-2-large/caption";
    let request = post(path, "expect: 100-continue\r\n", &body);
    let (begun, rest) = request.split_at(request.len() - 10);
    let mut slow = Raw::connect(server.address).await;
    slow.send(begun).await;
    let interim = slow.read_answer().await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");

    // What runs is finished, what waits is not begun, though connections are still open.
    server.stop();
    server.wait_until_refused().await;
    remote.go();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(remote.try_started(), None);
    slow.send(rest).await;
    let answer = slow.read_answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let late: Value = serde_json::from_str(body).unwrap();
    waiting.push(late["request_id"].as_str().unwrap().to_owned());
    server.stopped().await;
    assert_eq!(remote.try_started(), None);

    let next = TestServer::with(FakeModel::saying("second"), |settings| {
        settings.data_dir = Some(folder.path().into());
    })
    .await;
    let again = next.result(&done).await;
    assert_eq!((again.status, &again.text), (kept.status, &kept.text));
    for name in ["content-type", "x-fal-request-id", "x-fal-billable-units"] {
        assert_eq!(again.header(name), kept.header(name));
    }
    let finished = next.result(&running).await;
    assert_eq!(finished.json(), json!({"results": "first \u{e9}"}));
    assert_eq!(next.result(&cancelled).await.status, 499);
    for id in &waiting {
        let answer = next.wait_for_result(id).await;
        assert_eq!(answer.json(), json!({"results": "second"}));
    }
}
