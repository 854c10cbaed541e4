//! Following a job: events come as things happen, each with what is new, and end with the job.

use serde_json::Value;

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::server::{TestServer, send};

fn messages(event: &Value) -> Vec<String> {
    let lines = event["logs"].as_array().expect("a list of lines");
    let texts = lines.iter().map(|line| line["message"].as_str().unwrap());
    texts.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_stream_tells_every_step_and_every_line_once_and_ends_with_the_job() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::with(model, |settings| settings.queue.workers = 1).await;
    server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    server.submit("caption", &input()).await;
    let id = server.submit("caption", &input()).await;
    let mut events = server.follow(&id, "?logs=1").await;

    let first = events.next().await.unwrap();
    assert_eq!(
        (&first["status"], &first["queue_position"]),
        (&"IN_QUEUE".into(), &1.into())
    );
    assert_eq!(first["logs"], Value::Array(Vec::new()));
    remote.go();
    let second = events.next().await.unwrap();
    assert_eq!(
        (&second["status"], &second["queue_position"]),
        (&"IN_QUEUE".into(), &0.into())
    );
    remote.go();
    let mut told = Vec::new();
    let mut running = events.next().await.unwrap();
    assert_eq!(running["status"], "IN_PROGRESS");
    told.extend(messages(&running));
    while told.is_empty() {
        running = events.next().await.unwrap();
        assert_eq!(running["status"], "IN_PROGRESS");
        told.extend(messages(&running));
    }
    remote.go();
    let mut last = running;
    while let Some(event) = events.next().await {
        assert_ne!(last["status"], "COMPLETED", "something came after the end");
        told.extend(messages(&event));
        last = event;
    }
    assert_eq!(last["status"], "COMPLETED");
    assert!(last["metrics"]["inference_time"].is_number());
    // What polling gives as a whole, in order, and nothing twice.
    assert_eq!(told, messages(&server.status(&id).await.json()));
    assert!(told.len() >= 3, "{told:?}");
}

#[tokio::test]
async fn a_stream_of_a_done_job_is_one_event_with_the_keys_of_a_status() {
    let server = TestServer::start(FakeModel::saying("t")).await;
    let id = server.submit("caption", &input()).await;
    server.wait_for(&id, "COMPLETED").await;
    for query in ["", "?logs=0", "?logs=1"] {
        let mut events = server.follow(&id, query).await;
        let event = events.next().await.unwrap();
        let url = server.job_url(&id, &format!("/status{query}"));
        assert_eq!(event, send(server.client.get(url)).await.json(), "{query}");
        assert!(events.next().await.is_none(), "{query}");
    }
}

#[tokio::test]
async fn a_stream_without_logs_tells_steps_alone() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::start(model).await;
    let id = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let mut events = server.follow(&id, "").await;
    let running = events.next().await.unwrap();
    assert_eq!(
        (&running["status"], &running["logs"]),
        (&"IN_PROGRESS".into(), &Value::Null)
    );
    remote.go();
    let done = events.next().await.unwrap();
    assert_eq!(
        (&done["status"], &done["logs"]),
        (&"COMPLETED".into(), &Value::Null)
    );
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_cancelled_job_ends_its_stream() {
    let (model, remote) = FakeModel::slow("t");
    let server = TestServer::start(model).await;
    let id = server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let mut events = server.follow(&id, "").await;
    assert_eq!(events.next().await.unwrap()["status"], "IN_PROGRESS");
    server.cancel(&id).await;
    let last = events.next().await.unwrap();
    assert_eq!(
        (&last["status"], &last["error_type"]),
        (&"COMPLETED".into(), &"client_cancelled".into())
    );
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let (model, remote) = FakeModel::slow("t");
    let mut server = TestServer::with(model, |settings| settings.queue.workers = 1).await;
    server.submit("caption", &input()).await;
    remote.wait_for_start().await;
    let waiting = server.submit("caption", &input()).await;
    let mut events = server.follow(&waiting, "?logs=1").await;
    assert_eq!(events.next().await.unwrap()["status"], "IN_QUEUE");
    server.stop();
    assert!(events.next().await.is_none());
    remote.go();
    server.stopped().await;
}
