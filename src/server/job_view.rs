//! A job as callers see it: its id in a path, its addresses, its status, its id on every answer.
//!
//! Addresses are built from the address that the caller of this very request used, so that whoever
//! asks can follow them; a Python client follows them to the letter.

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use uuid::Uuid;

use super::error::{ApiError, REQUEST_ID};
use crate::fal::endpoint::{ALIAS, OWNER};
use crate::fal::queue::{LogLine, QueueMetrics, QueueStatus, Status};
use crate::queue::{self, JobView, Progress};

/// Where jobs stand in canonical paths.
const REQUESTS: &str = "/queue/requests/";

/// The id in a canonical path.
///
/// # Errors
/// When it is none of ours, which is the same as not being there.
pub(crate) fn id_in(path: &str) -> Result<Uuid, ApiError> {
    path.strip_prefix(REQUESTS)
        .and_then(|rest| rest.split('/').next())
        .and_then(|id| Uuid::try_parse(id).ok())
        .ok_or(ApiError::UnknownJob)
}

/// Puts the job's id on an answer about it.
pub(crate) fn name(id: Uuid, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The status of a job that was just handed in. A receiver of webhooks is told a second id.
pub(crate) fn waiting(base: &str, id: Uuid, position: u64, has_webhook: bool) -> QueueStatus {
    QueueStatus {
        queue_position: Some(position),
        gateway_request_id: has_webhook.then(|| id.to_string()),
        ..with_addresses(base, id, Status::InQueue)
    }
}

/// The status of a job. `logs_after` is the number of lines that the caller knows already; without
/// it no lines are told.
pub(crate) fn status(
    base: &str,
    id: Uuid,
    view: &JobView,
    logs_after: Option<usize>,
) -> QueueStatus {
    let logs = logs_after.map(|known| {
        let news = view.logs.get(known..).unwrap_or_default();
        news.iter().map(log_line).collect()
    });
    let status = match &view.progress {
        Progress::InQueue { position } => QueueStatus {
            queue_position: Some(*position),
            ..with_addresses(base, id, Status::InQueue)
        },
        Progress::InProgress => with_addresses(base, id, Status::InProgress),
        Progress::Completed {
            inference_seconds,
            error,
        } => QueueStatus {
            metrics: QueueMetrics {
                inference_time: *inference_seconds,
            },
            error: error.as_ref().map(|error| error.message.clone()),
            error_type: error.as_ref().map(|error| error.error_type.clone()),
            ..with_addresses(base, id, Status::Completed)
        },
    };
    QueueStatus { logs, ..status }
}

fn with_addresses(base: &str, id: Uuid, status: Status) -> QueueStatus {
    let request = format!("{base}/{OWNER}/{ALIAS}/requests/{id}");
    QueueStatus {
        status,
        request_id: id.to_string(),
        status_url: format!("{request}/status"),
        cancel_url: format!("{request}/cancel"),
        response_url: request,
        logs: None,
        metrics: QueueMetrics::default(),
        queue_position: None,
        error: None,
        error_type: None,
        gateway_request_id: None,
    }
}

fn log_line(line: &queue::LogLine) -> LogLine {
    LogLine {
        message: line.message.clone(),
        level: line.level.name(),
        source: "USER",
        timestamp: timestamp(line.timestamp_ms),
    }
}

/// ISO 8601 with an offset: older Python cannot read a final `Z`.
fn timestamp(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_an_offset() {
        assert_eq!(
            timestamp(1_700_000_000_123),
            "2023-11-14T22:13:20.123+00:00"
        );
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(timestamp(i64::MAX), "1970-01-01T00:00:00.000+00:00");
    }

    #[test]
    fn an_id_is_read_from_a_canonical_path_alone() {
        let id = Uuid::new_v4();
        for tail in ["", "/status", "/status/stream", "/response"] {
            let path = format!("/queue/requests/{id}{tail}");
            assert_eq!(id_in(&path).unwrap(), id, "{path}");
        }
        for path in [
            "",
            "/queue/requests/",
            "/queue/requests/7",
            "/queue/requests/%2e%2e/status",
        ] {
            assert!(matches!(id_in(path), Err(ApiError::UnknownJob)), "{path}");
        }
    }

    #[test]
    fn a_caller_is_told_only_lines_that_it_does_not_know() {
        let line = |number: i64| queue::LogLine {
            message: number.to_string(),
            level: queue::LogLevel::Info,
            timestamp_ms: number,
        };
        let view = JobView {
            endpoint: "caption".into(),
            progress: Progress::InProgress,
            logs: vec![line(0), line(1)],
        };
        let told = |known: Option<usize>| -> Option<Vec<String>> {
            let logs = status("", Uuid::nil(), &view, known).logs?;
            Some(logs.into_iter().map(|line| line.message).collect())
        };
        assert_eq!(told(None), None);
        assert_eq!(told(Some(0)).unwrap(), ["0", "1"]);
        assert_eq!(told(Some(1)).unwrap(), ["1"]);
        assert!(told(Some(2)).unwrap().is_empty());
        // After a restart a log may be shorter than it was.
        assert!(told(Some(9)).unwrap().is_empty());
    }
}
