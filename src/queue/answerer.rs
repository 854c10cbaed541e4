//! What the queue asks of whoever answers jobs, and what it tells them.
//!
//! The trait stands here so that the queue needs to know neither HTTP nor the model: `server`
//! implements it, `cli::serve` brings the two together. The answers that the queue has to give by
//! itself ([`Refusals`]) are handed to it ready made, because only `server` knows how they look.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use uuid::Uuid;

use super::job::{JobError, LogLevel, LogLine};
use super::live::Live;
use super::slot::WorkerSlot;
use super::timeline::Timeline;

/// Lines kept of one job's log. A job logs about ten; this bounds one that never stops.
const MAX_LINES: usize = 500;

/// Characters kept of one line.
const MAX_LINE_CHARS: usize = 2000;

/// A job's answer, when it is there.
pub type Answering<'a> = Pin<Box<dyn Future<Output = JobAnswer> + Send + 'a>>;

/// Answers jobs.
pub trait Answerer: Send + Sync + 'static {
    /// Answers one job. Dropping the future must stop the work: that is how a running job is
    /// cancelled. A panic counts as a failure of ours. Whatever is fetched from elsewhere is waited for
    /// through [`WorkerSlot::while_fetching`].
    ///
    /// The request is given away, because its body may be megabytes that the work need not keep.
    fn answer<'a>(
        &'a self,
        request: JobRequest,
        log: &'a JobLog,
        slot: &'a WorkerSlot,
    ) -> Answering<'a>;
}

/// A job as it is given to the [`Answerer`].
#[derive(Clone, Debug)]
pub struct JobRequest {
    /// The job.
    pub id: Uuid,
    /// The endpoint.
    pub endpoint: String,
    /// The body's declared media type.
    pub content_type: Option<String>,
    /// The body as it was received.
    pub body: Bytes,
    /// Public base address under which the caller reached this server.
    pub base: String,
    /// What the caller asked for files that the answer produces, as it was said.
    pub lifecycle: Option<String>,
    /// Attempts before this one, whatever ended them.
    pub earlier_attempts: u32,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is the answer, whether good or bad.
    Finished,
    /// We failed, and another attempt may go better. The answer counts if there is none.
    Retry,
}

/// The answer to a job, as it will be repeated to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobAnswer {
    /// Status number.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Whether this is the last word.
    pub outcome: Outcome,
    /// What went wrong outside of the model; shown in the job's status.
    pub error: Option<JobError>,
}

/// The answers that the queue gives by itself. Only it knows their outcome; what they say about it is
/// not looked at.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// The caller cancelled the job.
    pub cancelled: JobAnswer,
    /// Its start deadline passed while it waited.
    pub start_deadline: JobAnswer,
    /// The process died too often while it ran alone.
    pub poisoned: JobAnswer,
    /// Answering it panicked. Tried again like any failure of ours.
    pub panicked: JobAnswer,
}

impl Refusals {
    /// The same with the outcomes that belong to them.
    pub(super) fn with_outcomes(mut self) -> Self {
        self.cancelled.outcome = Outcome::Finished;
        self.start_deadline.outcome = Outcome::Finished;
        // Not tried again, because nothing that is finished is; but the fault is ours.
        self.poisoned.outcome = Outcome::Retry;
        self.panicked.outcome = Outcome::Retry;
        self
    }
}

/// A running job's log. What is pushed is visible in its status at once.
#[derive(Clone)]
pub struct JobLog {
    id: Uuid,
    lines: Arc<Mutex<Vec<LogLine>>>,
    clock: Arc<Timeline>,
    live: Arc<Live>,
}

impl std::fmt::Debug for JobLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobLog")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl JobLog {
    /// A log that goes on after `earlier` lines.
    pub(super) fn new(
        id: Uuid,
        earlier: Vec<LogLine>,
        clock: Arc<Timeline>,
        live: Arc<Live>,
    ) -> Self {
        Self {
            id,
            lines: Arc::new(Mutex::new(earlier)),
            clock,
            live,
        }
    }

    /// Adds a line. Overlong lines are cut; beyond a generous number of lines the rest is dropped.
    pub fn push(&self, level: LogLevel, message: impl Into<String>) {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_LINE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        {
            let mut lines = self.lock();
            if lines.len() >= MAX_LINES {
                return;
            }
            lines.push(LogLine {
                message,
                level,
                timestamp_ms: self.clock.wall_ms(),
            });
        }
        self.live.touch(self.id);
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<LogLine> {
        self.lock().clone()
    }

    /// A line is pushed whole or not at all, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Vec<LogLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> JobLog {
        let live = Arc::new(Live::default());
        let clock = Arc::new(Timeline::fresh());
        JobLog::new(Uuid::new_v4(), Vec::new(), clock, live)
    }

    #[test]
    fn an_overlong_line_is_cut_between_characters() {
        let log = log();
        log.push(LogLevel::Info, "é".repeat(MAX_LINE_CHARS));
        log.push(LogLevel::Info, "é".repeat(MAX_LINE_CHARS + 1));
        let lengths: Vec<_> = log
            .lines()
            .iter()
            .map(|l| l.message.chars().count())
            .collect();
        assert_eq!(lengths, [MAX_LINE_CHARS, MAX_LINE_CHARS + 1]);
        assert!(log.lines()[1].message.ends_with('…'));
    }

    #[test]
    fn a_log_without_end_is_bounded() {
        let log = log();
        for number in 0..=MAX_LINES {
            log.push(LogLevel::Debug, number.to_string());
        }
        assert_eq!(log.lines().len(), MAX_LINES);
    }
}
