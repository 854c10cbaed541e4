//! Talking to the queue as a client does: submit, look, wait, follow.

use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use super::server::{Answer, TestServer, send};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

impl TestServer {
    /// The address of an endpoint in the queue.
    pub(crate) fn queue_url(&self, endpoint: &str) -> String {
        format!("{}/queue/fal-ai/florence-2-large/{endpoint}", self.base)
    }

    /// The address of a job, and what follows it.
    pub(crate) fn job_url(&self, id: &str, tail: &str) -> String {
        let base = &self.base;
        format!("{base}/fal-ai/florence-2-large/requests/{id}{tail}")
    }

    /// Hands a call in; gives the job's id.
    pub(crate) async fn submit(&self, endpoint: &str, body: &Value) -> String {
        submit(self.client.post(self.queue_url(endpoint)).json(body)).await
    }

    /// A job's status, with its log.
    pub(crate) async fn status(&self, id: &str) -> Answer {
        let url = self.job_url(id, "/status?logs=1");
        send(self.client.get(url)).await
    }

    /// A job's result, or that there is none yet.
    pub(crate) async fn result(&self, id: &str) -> Answer {
        send(self.client.get(self.job_url(id, ""))).await
    }

    /// Asks for a job to be cancelled.
    pub(crate) async fn cancel(&self, id: &str) -> Answer {
        send(self.client.put(self.job_url(id, "/cancel"))).await
    }

    /// Waits until a job has this status.
    pub(crate) async fn wait_for(&self, id: &str, status: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.status(id).await.json();
            if seen["status"] == status {
                return seen;
            }
            assert!(Instant::now() < deadline, "{status} never came: {seen}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a job is done; gives its result.
    pub(crate) async fn wait_for_result(&self, id: &str) -> Answer {
        self.wait_for(id, "COMPLETED").await;
        self.result(id).await
    }

    /// Follows a job.
    pub(crate) async fn follow(&self, id: &str, query: &str) -> Events {
        let url = self.job_url(id, &format!("/status/stream{query}"));
        let request = self.client.get(url);
        let accept = "application/json, text/event-stream";
        let response = request.header("accept", accept).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-fal-request-id"], id);
        Events {
            response,
            text: String::new(),
        }
    }
}

/// Sends a submit request, which must succeed; gives the job's id.
pub(crate) async fn submit(request: RequestBuilder) -> String {
    let answer = send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-fal-request-id"), id);
    id
}

/// A stream of events that is being read.
pub(crate) struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// The next event, or none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                // A comment is no event.
                if let Some(data) = event.strip_prefix("data: ") {
                    return Some(serde_json::from_str(data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("the stream goes on or ends").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
