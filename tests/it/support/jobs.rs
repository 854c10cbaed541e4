//! What a test of the queue needs: a clock that stands still until it is told, and an answerer that
//! does what a job's body says.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use florence2_server::config::QueueSettings;
use florence2_server::queue::{
    Answerer, Answering, Clock, JobAnswer, JobError, JobLog, JobRequest, JobResult, JobView,
    LogLevel, NewJob, Outcome, Priority, Progress, Queue, Refusals, Sleeping, StoredResult,
    Surroundings, WorkerSlot,
};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

/// Longest wait for something that must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A machine's clocks that stand still until they are told: milliseconds by the calendar, and those
/// that have passed.
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(Arc<watch::Sender<(i64, i64)>>);

impl ManualClock {
    /// A clock at some moment of the year 2023.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new((1_700_000_000_000, 0))))
    }

    /// Sets the calendar back without any time passing.
    pub(crate) fn set_back(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.0.send_modify(|(wall, _)| *wall -= by);
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.0.send_modify(|(wall, elapsed)| {
            *wall += by;
            *elapsed += by;
        });
    }

    /// The queue's surroundings with this clock.
    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            clock: Arc::new(self.clone()),
            ..Surroundings::default()
        }
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.0.borrow().0
    }

    fn elapsed_ms(&self) -> i64 {
        self.0.borrow().1
    }

    fn sleep_until(&self, elapsed_ms: i64) -> Sleeping<'_> {
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let reached = now.wait_for(|(_, elapsed)| *elapsed >= elapsed_ms);
            reached.await.unwrap();
        })
    }
}

/// An answer with this status and JSON body.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> JobAnswer {
    JobAnswer {
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.into(),
        outcome: Outcome::Finished,
        error: None,
    }
}

fn refusal(status: u16, error_type: &str) -> JobAnswer {
    let body = format!(r#"{{"detail":"refused","error_type":"{error_type}"}}"#);
    JobAnswer {
        error: Some(JobError {
            message: "refused".into(),
            error_type: error_type.into(),
        }),
        ..answer(status, body)
    }
}

/// Answers that tell one refusal from another.
pub(crate) fn refusals() -> Refusals {
    Refusals {
        cancelled: refusal(499, "client_cancelled"),
        start_deadline: refusal(504, "request_timeout"),
        poisoned: refusal(500, "poisoned"),
        panicked: refusal(500, "panicked"),
    }
}

/// A job whose body says what is to become of it.
pub(crate) fn job(body: &str) -> NewJob {
    NewJob {
        endpoint: "caption".into(),
        content_type: Some("application/json".into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        base: "http://127.0.0.1:8000/queue".into(),
        lifecycle: None,
        priority: Priority::Normal,
        start_by_ms: None,
        may_retry: true,
        webhook: None,
        max_queue_length: None,
        keep_payload: true,
    }
}

/// Answers as a job's body says:
///
/// * `status N`: with that status;
/// * `gate`: when the test opens the gate, which is logged before and after;
/// * `hang`: never;
/// * `fail`: with a failure of ours, every time;
/// * `panic`: by panicking;
/// * anything else is repeated.
#[derive(Debug)]
pub(crate) struct Script {
    started: watch::Sender<Vec<String>>,
    dropped: watch::Sender<usize>,
    pub(crate) gate: Semaphore,
}

impl Script {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: watch::Sender::default(),
            dropped: watch::Sender::default(),
            gate: Semaphore::new(0),
        })
    }

    /// The bodies of all attempts so far, in order, once there are this many.
    pub(crate) async fn started(&self, attempts: usize) -> Vec<String> {
        let mut started = self.started.subscribe();
        let enough = started.wait_for(|started| started.len() >= attempts);
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        enough.expect("the attempt begins").unwrap().clone()
    }

    /// Completes when this many attempts were dropped before their end.
    pub(crate) async fn dropped(&self, attempts: usize) {
        let mut dropped = self.dropped.subscribe();
        let enough = dropped.wait_for(|dropped| *dropped >= attempts);
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        enough.expect("the attempt is dropped").unwrap();
    }

    async fn act(&self, request: JobRequest, log: &JobLog) -> JobAnswer {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        self.started
            .send_modify(|started| started.push(body.clone()));
        let unfinished = Unfinished(&self.dropped);
        let answer = match body.split_once(' ').unwrap_or((&body, "")) {
            ("status", number) => answer(number.parse().unwrap(), r#"{"detail":[]}"#),
            ("gate", _) => {
                log.push(LogLevel::Info, "at the gate");
                self.gate.acquire().await.unwrap().forget();
                log.push(LogLevel::Info, "through");
                answer(200, "\"through\"")
            }
            ("hang", _) => pending().await,
            ("fail", _) => JobAnswer {
                outcome: Outcome::Retry,
                ..answer(503, r#"{"detail":"busy"}"#)
            },
            ("panic", _) => panic!("as the job says"),
            _ => answer(200, body.clone()),
        };
        std::mem::forget(unfinished);
        answer
    }
}

impl Answerer for Script {
    fn answer<'a>(
        &'a self,
        request: JobRequest,
        log: &'a JobLog,
        _: &'a WorkerSlot,
    ) -> Answering<'a> {
        Box::pin(self.act(request, log))
    }
}

/// Counts itself when it is dropped.
struct Unfinished<'a>(&'a watch::Sender<usize>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|dropped| *dropped += 1);
    }
}

/// A queue in memory that runs a script, with a clock that stands still.
pub(crate) async fn in_memory(
    change: impl FnOnce(&mut QueueSettings),
) -> (Queue, Arc<Script>, ManualClock) {
    let mut settings = QueueSettings::default();
    change(&mut settings);
    let clock = ManualClock::new();
    let queue = Queue::in_memory(&settings, refusals(), clock.surroundings())
        .await
        .unwrap();
    let script = Script::new();
    queue.run(script.clone());
    (queue, script, clock)
}

/// Watches a job until it looks as wanted.
pub(crate) async fn until(queue: &Queue, id: Uuid, wanted: impl Fn(&JobView) -> bool) -> JobView {
    let mut watch = queue.watch(id);
    let looking = async {
        loop {
            let view = queue.status(id).await.unwrap().expect("the job is there");
            if wanted(&view) {
                return view;
            }
            watch.changed().await;
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(view) => view,
        Err(_) => panic!("the job stays {:?}", queue.status(id).await),
    }
}

/// Waits for a job's end.
pub(crate) async fn completed(queue: &Queue, id: Uuid) -> (JobView, StoredResult) {
    let view = until(queue, id, |view| {
        matches!(view.progress, Progress::Completed { .. })
    })
    .await;
    match queue.result(id).await.unwrap() {
        Some(JobResult::Finished(result)) => (view, result),
        other => panic!("no result of a completed job: {other:?}"),
    }
}
