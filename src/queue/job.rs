//! A job, its states, and what the outside may see of it.
//!
//! ```text
//!              submit
//!                │
//!                ▼        Claim
//!            ┌─────────┐ ───────▶ ┌─────────┐
//!            │ Waiting │          │ Running │
//!            └─────────┘ ◀─────── └─────────┘
//!                │        PutBack      │
//!         Cancel │                     │ Finish
//!                ▼                     ▼
//!            ┌───────────────────────────┐
//!            │           Done            │   until it expires
//!            └───────────────────────────┘
//! ```
//!
//! [`Transition`] is the list of legal moves; a store refuses every other one. `PutBack` happens
//! after a failure of ours, after the process died, and when the process stops before the job ends.
//! Cancelling a running job is no move of its own: it asks whoever runs the job to finish it.
//!
//! Nothing here knows HTTP: a status is a number, headers are pairs of text, a body is bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In line.
    Waiting,
    /// Claimed by a worker.
    Running,
    /// It has its one result.
    Done,
}

/// A legal move from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// A worker takes it.
    Claim,
    /// It goes back in line.
    PutBack,
    /// Its result is there.
    Finish,
    /// It is cancelled before anybody took it.
    Cancel,
}

impl Transition {
    /// The state from which this move starts.
    pub(super) fn from(self) -> State {
        match self {
            Self::Claim | Self::Cancel => State::Waiting,
            Self::PutBack | Self::Finish => State::Running,
        }
    }

    /// The state to which it leads.
    pub(super) fn to(self) -> State {
        match self {
            Self::Claim => State::Running,
            Self::PutBack => State::Waiting,
            Self::Finish | Self::Cancel => State::Done,
        }
    }
}

/// Who goes first among the jobs of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// In order of arrival.
    #[default]
    Normal,
    /// Behind everything normal.
    Low,
}

/// A job as it is handed in.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The endpoint it waits for; positions and limits are counted per endpoint.
    pub endpoint: String,
    /// The body's declared media type.
    pub content_type: Option<String>,
    /// The body as it was received.
    pub body: Bytes,
    /// Public base address under which the caller reached this server; addresses in the answer are
    /// built from it.
    pub base: String,
    /// What the caller asks for files that the answer produces, as it was said.
    pub lifecycle: Option<String>,
    /// Who goes first.
    pub priority: Priority,
    /// Latest moment to begin, in the milliseconds of [`Queue::now_ms`](super::Queue::now_ms).
    pub start_by_ms: Option<i64>,
    /// Whether a failure of ours may be tried again.
    pub may_retry: bool,
    /// Address that is told when the job ends.
    pub webhook: Option<String>,
    /// Refuse the job when more than this many wait for the endpoint.
    pub max_queue_length: Option<u64>,
    /// Whether the request may be kept, for a person to look at, when the job failed by our fault.
    /// The request of any other job is deleted as soon as it ends.
    pub keep_payload: bool,
}

/// A job was stored durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// By this it is found again; unguessable.
    pub id: Uuid,
    /// Jobs ahead of it for the same endpoint.
    pub position: u64,
}

/// What the outside may see of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// The endpoint it was handed in for.
    pub endpoint: String,
    /// How far it is.
    pub progress: Progress,
    /// What was logged so far, in order, over all attempts.
    pub logs: Vec<LogLine>,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// In line.
    InQueue {
        /// Jobs ahead of it for the same endpoint.
        position: u64,
    },
    /// A worker has it.
    InProgress,
    /// Its result is there, whether good or bad.
    Completed {
        /// How long the last attempt ran; none if it never ran to an answer.
        inference_seconds: Option<f64>,
        /// What went wrong outside of the model.
        error: Option<JobError>,
    },
}

/// What went wrong outside of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// For people.
    pub message: String,
    /// For programs.
    pub error_type: String,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug,
    /// What happens.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// One line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// What is said.
    pub message: String,
    /// How important it is.
    pub level: LogLevel,
    /// When, in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// The answer of a job, repeated exactly until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// Status number.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// What there is to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// Nothing yet.
    NotFinished,
    /// The answer.
    Finished(StoredResult),
}

/// What came of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is out of the line, or whoever runs it is told to stop.
    Requested,
    /// Too late.
    AlreadyCompleted,
    /// No such job.
    NotFound,
}

/// Jobs in this queue now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In line.
    pub waiting: u64,
    /// Claimed by workers.
    pub running: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_done_job_never_moves_again() {
        let moves = [
            Transition::Claim,
            Transition::PutBack,
            Transition::Finish,
            Transition::Cancel,
        ];
        for transition in moves {
            assert_ne!(transition.from(), State::Done, "{transition:?}");
            assert_ne!(transition.from(), transition.to(), "{transition:?}");
        }
    }

    #[test]
    fn normal_goes_before_low() {
        assert!(Priority::Normal < Priority::Low);
    }

    #[test]
    fn log_levels_are_stored_as_they_are_sent() {
        for level in [
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warn,
            LogLevel::Error,
        ] {
            let stored = serde_json::to_string(&level).unwrap();
            assert_eq!(stored, format!("\"{}\"", level.name()));
        }
    }
}
