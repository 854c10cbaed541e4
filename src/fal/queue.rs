//! What the queue says about a request: submit and status answers, its log, words such as `NOT_FOUND`.
//!
//! Keys and their order are those of answers recorded from the live service. Clients index several
//! of them without looking whether they are there, so which keys stand in which answer is part of
//! the contract: see the tests.

use serde::Serialize;
use utoipa::ToSchema;

/// The three statuses that clients know; any other one is an error to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Waits.
    InQueue,
    /// Is being worked on.
    InProgress,
    /// Ended, well or badly: the result tells.
    Completed,
}

/// Body of a submit answer, a status answer, and of each event of the status stream.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct QueueStatus {
    /// Where the request stands.
    pub status: Status,
    /// Its id.
    pub request_id: String,
    /// Where its result will be.
    pub response_url: String,
    /// Where this is said again.
    pub status_url: String,
    /// Where it can be cancelled.
    pub cancel_url: String,
    /// Its log, when it was asked for; null otherwise.
    pub logs: Option<Vec<LogLine>>,
    /// Figures about it.
    pub metrics: QueueMetrics,
    /// Requests ahead of it, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// What went wrong outside of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The same for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The id by which a webhook receiver knows the request: the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_request_id: Option<String>,
}

/// Figures about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct QueueMetrics {
    /// Seconds that the last attempt took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_time: Option<f64>,
}

/// One line of a request's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogLine {
    /// What is said.
    pub message: String,
    /// `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub level: &'static str,
    /// Who says it: always `USER`.
    pub source: &'static str,
    /// When, ISO 8601 with an offset.
    pub timestamp: String,
}

/// Body of an answer that is one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueWord {
    /// The word.
    pub status: Word,
}

/// The words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Word {
    /// No such request, or not any more.
    NotFound,
    /// It will be stopped; one that is nearly done may still finish.
    CancellationRequested,
    /// Too late to cancel.
    AlreadyCompleted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: Status) -> QueueStatus {
        QueueStatus {
            status,
            request_id: "i".into(),
            response_url: "r".into(),
            status_url: "s".into(),
            cancel_url: "c".into(),
            logs: None,
            metrics: QueueMetrics::default(),
            queue_position: None,
            error: None,
            error_type: None,
            gateway_request_id: None,
        }
    }

    fn text_of(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn keys_that_clients_index_are_always_there_and_in_the_recorded_order() {
        let urls = r#""request_id":"i","response_url":"r","status_url":"s","cancel_url":"c""#;
        let waiting = QueueStatus {
            queue_position: Some(0),
            ..status(Status::InQueue)
        };
        assert_eq!(
            text_of(&waiting),
            format!(
                r#"{{"status":"IN_QUEUE",{urls},"logs":null,"metrics":{{}},"queue_position":0}}"#
            )
        );
        let running = QueueStatus {
            logs: Some(Vec::new()),
            ..status(Status::InProgress)
        };
        assert_eq!(
            text_of(&running),
            format!(r#"{{"status":"IN_PROGRESS",{urls},"logs":[],"metrics":{{}}}}"#)
        );
        let line = LogLine {
            message: "m".into(),
            level: "INFO",
            source: "USER",
            timestamp: "t".into(),
        };
        let done = QueueStatus {
            logs: Some(vec![line]),
            metrics: QueueMetrics {
                inference_time: Some(0.25),
            },
            error: Some("e".into()),
            error_type: Some("internal_error".into()),
            ..status(Status::Completed)
        };
        assert_eq!(
            text_of(&done),
            format!(
                r#"{{"status":"COMPLETED",{urls},"logs":[{{"message":"m","level":"INFO","source":"USER","timestamp":"t"}}],"metrics":{{"inference_time":0.25}},"error":"e","error_type":"internal_error"}}"#
            )
        );
    }

    #[test]
    fn words_are_spelled_as_documented() {
        for (word, spelled) in [
            (Word::NotFound, "NOT_FOUND"),
            (Word::CancellationRequested, "CANCELLATION_REQUESTED"),
            (Word::AlreadyCompleted, "ALREADY_COMPLETED"),
        ] {
            let expected = format!(r#"{{"status":"{spelled}"}}"#);
            assert_eq!(text_of(&QueueWord { status: word }), expected);
        }
    }
}
