//! Hands a call in to the queue.
//!
//! The input is not looked at: as on fal, what is wrong with it is said when the result is fetched.
//! Only what the queue itself must know is read here: webhook, priority, deadline, retries, limits.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use url::Url;

use crate::queue::{Fault, NewJob, Priority, SubmitError};
use crate::server::call::Subject;
use crate::server::error::ApiError;
use crate::server::state::Shared;
use crate::server::{caller, extract, job_view, lifecycle};

/// Longest address of a webhook: it is stored with the job.
const MAX_WEBHOOK: usize = 4096;

/// `POST {queue}/fal-ai/florence-2-large/{task}`
pub(crate) async fn submit(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived_ms = shared.queue.now_ms();
    let (head, body) = request.into_parts();
    let base = extract::reached(&head.extensions)?.base();
    // What is wrong with the rest is said before the body is waited for.
    let job = job_of(subject, &head, arrived_ms)?;
    // A disk that does not answer may do so for long: whoever waits for it with a body takes the memory
    // of calls that need no disk.
    if shared.queue.store_health().fault == Some(Fault::Stalled) {
        return Err(ApiError::QueueUnavailable(Fault::Stalled.sentence().into()));
    }
    let body = extract::read_body(body, caller::of(&head.extensions), shared).await?;
    let job = NewJob {
        body: body.bytes,
        ..job
    };
    let has_webhook = job.webhook.is_some();
    let submitted = shared.queue.submit(job).await.map_err(refused)?;
    let (id, position) = (submitted.id, submitted.position);
    tracing::debug!(%id, position, endpoint = subject.name(), "handed in");
    let status = job_view::waiting(&base, id, position, has_webhook);
    Ok(job_view::name(id, Json(status)))
}

/// Everything of a job but its body.
fn job_of(subject: Subject, head: &Parts, arrived_ms: i64) -> Result<NewJob, ApiError> {
    let (headers, query) = (&head.headers, head.uri.query());
    let timeout = extract::start_timeout(headers)?;
    Ok(NewJob {
        endpoint: subject.name().into(),
        content_type: extract::content_type(headers).map(str::to_owned),
        body: Bytes::new(),
        base: extract::reached(&head.extensions)?.files_origin(),
        lifecycle: lifecycle::of_later_products(headers)?,
        priority: priority(headers),
        start_by_ms: timeout.map(|timeout| later(arrived_ms, timeout)),
        may_retry: !is_set(headers, "x-fal-no-retry"),
        webhook: webhook(query)?,
        max_queue_length: max_queue_length(query)?,
        keep_payload: header(headers, "x-fal-store-io") != Some("0"),
    })
}

fn refused(error: SubmitError) -> ApiError {
    match error {
        SubmitError::Full { waiting } => ApiError::QueueFull { waiting },
        other => ApiError::QueueUnavailable(other.to_string()),
    }
}

/// The address to be told, which must be one that can be posted to.
fn webhook(query: Option<&str>) -> Result<Option<String>, ApiError> {
    let Some(text) = extract::parameter(query, "fal_webhook") else {
        return Ok(None);
    };
    let is_usable = |url: Url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare
    };
    if text.len() <= MAX_WEBHOOK && Url::parse(&text).is_ok_and(is_usable) {
        Ok(Some(text))
    } else {
        Err(ApiError::BadParameter(
            "fal_webhook must be an http or https URL.",
        ))
    }
}

fn max_queue_length(query: Option<&str>) -> Result<Option<u64>, ApiError> {
    let text = extract::parameter(query, "fal_max_queue_length");
    let Some(text) = text else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|_| {
        ApiError::BadParameter("fal_max_queue_length must be a whole number of requests.")
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// What is not `low` is normal, as it is without the header.
fn priority(headers: &HeaderMap) -> Priority {
    match header(headers, "x-fal-queue-priority") {
        Some(word) if word.eq_ignore_ascii_case("low") => Priority::Low,
        _ => Priority::Normal,
    }
}

fn is_set(headers: &HeaderMap, name: &str) -> bool {
    let words = ["1", "true", "yes"];
    header(headers, name)
        .is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
}

fn later(arrived_ms: i64, by: Duration) -> i64 {
    arrived_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::server::face::{Face, Reached};

    /// The job of a request that came to a queue under a prefix.
    fn job(query: &str, headers: &[(&'static str, &str)]) -> NewJob {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("/queue/x{query}").parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request.extensions_mut().insert(Reached {
            face: Face::Queue,
            origin: "https://vision.test".into(),
            prefix: "/queue",
        });
        let (head, _) = request.into_parts();
        let subject = Subject::named("ocr").unwrap();
        job_of(subject, &head, 1_000_000).unwrap()
    }

    #[test]
    fn a_job_keeps_everything_that_its_answer_depends_on() {
        let plain = job("", &[]);
        assert_eq!(plain.endpoint, "ocr");
        // Hosted files stand beside the queue, not under its prefix.
        assert_eq!(plain.base, "https://vision.test");
        assert_eq!((plain.content_type, plain.start_by_ms), (None, None));
        assert_eq!(plain.lifecycle, None);
        assert_eq!((plain.webhook, plain.max_queue_length), (None, None));
        assert_eq!(plain.priority, Priority::Normal);
        assert!(plain.may_retry && plain.keep_payload);
        let asked = job(
            "?fal_webhook=https%3A%2F%2Fa.test%2F&fal_max_queue_length=3",
            &[
                ("content-type", "text/json"),
                ("x-fal-request-timeout", "1.5"),
                ("x-fal-queue-priority", "low"),
                ("x-fal-no-retry", "true"),
                ("x-fal-store-io", "0"),
            ],
        );
        assert_eq!(asked.content_type.as_deref(), Some("text/json"));
        assert_eq!(asked.start_by_ms, Some(1_001_500));
        assert_eq!(asked.webhook.as_deref(), Some("https://a.test/"));
        assert_eq!(asked.max_queue_length, Some(3));
        assert_eq!(asked.priority, Priority::Low);
        assert!(!asked.may_retry && !asked.keep_payload);
    }

    #[test]
    fn a_webhook_is_an_address_that_can_be_posted_to() {
        let read = |value: &str| webhook(Some(&format!("fal_webhook={value}")));
        let url = "https%3A%2F%2Fa.test%2Fhook%3Fx%3D1%262";
        assert_eq!(
            read(url).unwrap().as_deref(),
            Some("https://a.test/hook?x=1&2")
        );
        assert!(webhook(None).unwrap().is_none());
        let long = format!("https://a.test/{}", "x".repeat(MAX_WEBHOOK));
        for value in [
            "",
            "a.test/x",
            "/x",
            "ftp://a.test",
            "javascript:1",
            "https://",
            "https://user@a.test/",
            "https://:password@a.test/",
            &long,
        ] {
            assert!(
                matches!(read(value), Err(ApiError::BadParameter(_))),
                "{value}"
            );
        }
    }

    #[test]
    fn a_limit_is_a_whole_number() {
        let read = |value: &str| max_queue_length(Some(&format!("fal_max_queue_length={value}")));
        assert_eq!(read("0").unwrap(), Some(0));
        assert_eq!(read("17").unwrap(), Some(17));
        assert!(max_queue_length(None).unwrap().is_none());
        for value in ["", "-1", "1.5", "many", "99999999999999999999"] {
            assert!(
                matches!(read(value), Err(ApiError::BadParameter(_))),
                "{value}"
            );
        }
    }

    #[test]
    fn headers_are_read_in_every_spelling_and_nonsense_says_nothing() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        for (word, expected) in [
            ("low", Priority::Low),
            (" LOW ", Priority::Low),
            ("normal", Priority::Normal),
            ("high", Priority::Normal),
            ("", Priority::Normal),
        ] {
            let found = priority(&headers("x-fal-queue-priority", word));
            assert_eq!(found, expected, "{word}");
        }
        for (word, expected) in [
            ("1", true),
            ("True", true),
            ("yes", true),
            ("0", false),
            ("", false),
        ] {
            let found = is_set(&headers("x-fal-no-retry", word), "x-fal-no-retry");
            assert_eq!(found, expected, "{word}");
        }
    }
}
