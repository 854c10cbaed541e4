//! Answers the queue's jobs: the same call as a synchronous one, its answer kept instead of sent.
//!
//! Here stands what HTTP and the queue have to say to each other: a job's request becomes a
//! [`Call`], an error becomes the status, headers and body that will be repeated, and what we broke
//! ourselves is marked as worth another attempt. The answers that the queue gives without us come
//! from the same table of errors.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;

use super::call::{self, Call, CallAnswer, Subject};
use super::error::{ApiError, Blame, Failure};
use super::lifecycle;
use super::state::Shared;
use crate::files::{Durability, Lifecycle};
use crate::pipeline::{FetchGate, Fetching};
use crate::queue::{
    Answerer, Answering, JobAnswer, JobError, JobLog, JobRequest, LogLevel, Outcome, Refusals,
    WorkerSlot,
};
use crate::semaphore::Caller;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct QueueAnswerer(Arc<Shared>);

impl QueueAnswerer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    async fn call(
        &self,
        request: &JobRequest,
        body: Bytes,
        log: &JobLog,
        slot: &WorkerSlot,
    ) -> Result<CallAnswer, ApiError> {
        // A job may have been handed in to a server that knew more endpoints.
        let subject = Subject::named(&request.endpoint).ok_or_else(|| ApiError::UnknownPath {
            path: format!("/{}", request.endpoint),
        })?;
        let lifecycle = match &request.lifecycle {
            Some(said) => lifecycle::of_stored(said.as_bytes())?,
            None => Lifecycle::default(),
        };
        let gate: Arc<dyn FetchGate> = Arc::new(Lent(slot.clone()));
        let call = Call {
            subject,
            content_type: request.content_type.as_deref(),
            body,
            caller: Caller::Own,
            permit: None,
            // The queue has kept the deadline already: a job that is here has begun.
            start_by: None,
            files_origin: &request.base,
            lifecycle,
            // Whoever comes for a kept result finds its picture, too.
            durability: Durability::Synced,
            gate: Some(&gate),
        };
        call::answer(&self.0, call, &|level, line| log.push(level, line)).await
    }
}

/// Lends a job's worker to others while its picture is fetched.
#[derive(Debug)]
struct Lent(WorkerSlot);

impl FetchGate for Lent {
    fn pass<'a>(&'a self, host: &'a str, fetch: Fetching<'a>) -> Fetching<'a> {
        Box::pin(self.0.while_fetching(host, fetch))
    }
}

impl Answerer for QueueAnswerer {
    fn answer<'a>(
        &'a self,
        mut request: JobRequest,
        log: &'a JobLog,
        slot: &'a WorkerSlot,
    ) -> Answering<'a> {
        Box::pin(async move {
            let body = std::mem::take(&mut request.body);
            match self.call(&request, body, log, slot).await {
                Ok(answer) => JobAnswer {
                    status: answer.status.as_u16(),
                    headers: pairs(&answer.headers),
                    body: answer.body,
                    outcome: Outcome::Finished,
                    error: None,
                },
                Err(error) => {
                    let (answer, failure) = kept(&error);
                    tell(&request, &failure, &answer, log);
                    answer
                }
            }
        })
    }
}

/// The caller's log gets the public sentence, ours the cause.
fn tell(request: &JobRequest, failure: &Failure, answer: &JobAnswer, log: &JobLog) {
    let (id, status, cause) = (request.id, answer.status, &failure.cause);
    match failure.blame {
        Blame::Us => tracing::error!(%id, status, %cause, "a job failed"),
        Blame::Unready => tracing::warn!(%id, status, %cause, "a job failed"),
        Blame::Caller | Blame::Overload | Blame::Deadline => {
            tracing::debug!(%id, status, %cause, "a job failed");
        }
    }
    let reason = answer.error.as_ref().map(|error| error.message.as_str());
    let reason = reason.unwrap_or("The input was refused.");
    log.push(
        LogLevel::Error,
        format!("Failed with status {status}: {reason}"),
    );
}

/// What the queue answers by itself.
#[must_use]
pub fn refusals() -> Refusals {
    let refusal = |error: ApiError| kept(&error).0;
    Refusals {
        cancelled: refusal(ApiError::JobCancelled),
        start_deadline: refusal(ApiError::JobTooLate),
        poisoned: refusal(ApiError::JobPoisoned),
        panicked: refusal(ApiError::Internal("answering a job panicked".into())),
    }
}

/// An error as a job keeps it, and what the log is told.
fn kept(error: &ApiError) -> (JobAnswer, Failure) {
    let parts = error.parts();
    let error = parts.request_error.map(|(message, error_type)| JobError {
        message: message.into(),
        error_type: error_type.into(),
    });
    let answer = JobAnswer {
        status: parts.status.as_u16(),
        headers: pairs(&parts.headers),
        body: parts.body.into(),
        outcome: if parts.retry {
            Outcome::Retry
        } else {
            Outcome::Finished
        },
        error,
    };
    (answer, parts.failure)
}

/// Headers as text. All of ours are.
fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let texts = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().into(), value.to_str().ok()?.into())));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(answer: &'a JobAnswer, name: &str) -> Option<&'a str> {
        let found = answer.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_queues_own_answers_are_request_errors() {
        let refusals = refusals();
        for (answer, status, kind, outcome) in [
            (
                &refusals.cancelled,
                499,
                "client_cancelled",
                Outcome::Finished,
            ),
            (
                &refusals.start_deadline,
                504,
                "request_timeout",
                Outcome::Finished,
            ),
            (
                &refusals.poisoned,
                500,
                "runner_server_error",
                Outcome::Finished,
            ),
            (&refusals.panicked, 500, "internal_error", Outcome::Retry),
        ] {
            let error = answer.error.as_ref().unwrap();
            assert_eq!((answer.status, error.error_type.as_str()), (status, kind));
            assert_eq!(header(answer, "x-fal-error-type"), Some(kind));
            assert_eq!(header(answer, "content-type"), Some("application/json"));
            assert_eq!(answer.outcome, outcome);
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["detail"], error.message);
            assert_eq!(body["error_type"], kind);
        }
        assert_eq!(
            header(&refusals.start_deadline, "x-fal-request-timeout-type"),
            Some("user")
        );
    }

    #[test]
    fn what_we_broke_is_tried_again_and_what_the_caller_sent_is_not() {
        let outcome = |error: ApiError| kept(&error).0.outcome;
        assert_eq!(outcome(ApiError::NotReady), Outcome::Retry);
        assert_eq!(outcome(ApiError::Busy), Outcome::Retry);
        assert_eq!(outcome(ApiError::Invalid(Vec::new())), Outcome::Finished);
        let unknown = ApiError::UnknownPath { path: "/x".into() };
        assert_eq!(outcome(unknown), Outcome::Finished);
    }
}
