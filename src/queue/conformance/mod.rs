//! What every [`JobStore`] does, whatever it keeps its jobs in. A new store earns its place by
//! passing this.
//!
//! Each test is a function over a fresh store, and [`on_every_store`] runs it on all of them. Times
//! are plain numbers: a store has no clock.

mod attempts;
mod deliveries;
mod ends;
mod holds;
mod line;
mod suspects;

use bytes::Bytes;
use uuid::Uuid;

use super::answerer::{JobAnswer, Outcome};
use super::job::{JobError, JobResult, LogLevel, LogLine, NewJob, Priority, State};
use super::store::{
    Admission, Attempt, Claim, Claimed, ClaimedJob, Completion, Finish, JobStore, PutBack, Recover,
    Recovered, Renew, Renewed, Submission, Which,
};

/// Runs tests on a fresh store of each kind.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&crate::queue::memory::MemoryStore::default()).await;
                }
            )*
        }
        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = crate::queue::sqlite::SqliteStore::open(folder.path()).await.unwrap();
                    super::$name(&store).await;
                }
            )*
        }
    };
}
pub(super) use on_every_store;

/// The endpoint of most jobs here.
pub(super) const CAPTION: &str = "caption";

/// An owner that nobody else is.
pub(super) fn owner() -> Uuid {
    Uuid::new_v4()
}

/// The first attempt at a job, or at its delivery.
pub(super) fn first_attempt(id: Uuid, owner: Uuid) -> Attempt {
    let number = 1;
    Attempt { id, owner, number }
}

/// A plain job.
pub(super) fn job() -> NewJob {
    NewJob {
        endpoint: CAPTION.into(),
        content_type: Some("application/json".into()),
        body: Bytes::from_static(b"{\"image_url\":\"\"}"),
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

/// A job of low priority.
pub(super) fn low_job() -> NewJob {
    NewJob {
        priority: Priority::Low,
        ..job()
    }
}

/// An answer with a body that says which.
pub(super) fn answer(text: &str) -> JobAnswer {
    JobAnswer {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::copy_from_slice(text.as_bytes()),
        outcome: Outcome::Finished,
        error: None,
    }
}

/// An end at a time, kept for a thousand milliseconds.
pub(super) fn completion(text: &str, now_ms: i64) -> Completion {
    Completion {
        answer: answer(text),
        now_ms,
        expires_ms: now_ms + 1000,
        keeps_request: false,
    }
}

/// A line of a log.
pub(super) fn line(message: &str) -> LogLine {
    LogLine {
        message: message.into(),
        level: LogLevel::Info,
        timestamp_ms: 7,
    }
}

/// Puts a job in line at a time, whatever its position.
pub(super) async fn submit_at(store: &dyn JobStore, job: NewJob, now_ms: i64) -> Uuid {
    let id = Uuid::new_v4();
    let admission = store.submit(Submission { id, job, now_ms }).await.unwrap();
    assert!(
        matches!(admission, Admission::Accepted { .. }),
        "{admission:?}"
    );
    id
}

/// Puts a job in line at the beginning of time.
pub(super) async fn submit(store: &dyn JobStore, job: NewJob) -> Uuid {
    submit_at(store, job, 0).await
}

/// Puts a job in line and says at which position.
pub(super) async fn position(store: &dyn JobStore, job: NewJob) -> (Uuid, u64) {
    let id = Uuid::new_v4();
    let submission = Submission { id, job, now_ms: 0 };
    match store.submit(submission).await.unwrap() {
        Admission::Accepted { position } => (id, position),
        Admission::Full { waiting } => panic!("{waiting} wait"),
    }
}

/// Claims a job with a lease of a hundred milliseconds.
pub(super) async fn claim(
    store: &dyn JobStore,
    owner: Uuid,
    now_ms: i64,
    which: Which,
) -> Result<Box<ClaimedJob>, Option<i64>> {
    let claim = Claim {
        owner,
        now_ms,
        lease_until_ms: now_ms.saturating_add(100),
        which,
        source: None,
    };
    match store.claim(claim).await.unwrap() {
        Claimed::Job(job) => Ok(job),
        Claimed::Nothing { next_due_ms } => Err(next_due_ms),
    }
}

/// Claims the next job, which must be there.
pub(super) async fn next(store: &dyn JobStore, owner: Uuid, now_ms: i64) -> Box<ClaimedJob> {
    claim(store, owner, now_ms, Which::Next).await.unwrap()
}

/// Any job under suspicion, whoever else waits.
pub(super) const SUSPECT: Which = Which::Suspect {
    most_crashes: u32::MAX,
    goes_last: false,
};

/// Claims the next job under suspicion, which must be there.
pub(super) async fn next_suspect(
    store: &dyn JobStore,
    owner: Uuid,
    now_ms: i64,
) -> Box<ClaimedJob> {
    claim(store, owner, now_ms, SUSPECT).await.unwrap()
}

/// Finishes a job with an answer that says which.
pub(super) async fn finish(
    store: &dyn JobStore,
    attempt: Attempt,
    text: &str,
    now_ms: i64,
) -> bool {
    let finish = Finish {
        attempt,
        completion: completion(text, now_ms),
        inference_us: Some(1500),
        log: Vec::new(),
    };
    store.finish(finish).await.unwrap()
}

/// Puts a job back with a pause.
pub(super) async fn put_back(
    store: &dyn JobStore,
    attempt: Attempt,
    not_before_ms: i64,
    failed: bool,
) -> bool {
    let put_back = PutBack {
        attempt,
        not_before_ms,
        failed,
        has_begun: true,
        held: None,
        log: vec![line("again")],
    };
    store.put_back(put_back).await.unwrap()
}

/// Prolongs leases.
pub(super) async fn renew(
    store: &dyn JobStore,
    attempts: Vec<Attempt>,
    lease_until_ms: i64,
) -> Renewed {
    let renew = Renew {
        attempts,
        lease_until_ms,
    };
    store.renew(renew).await.unwrap()
}

/// The request of a survivor to recover what others left with a lease that ended by a time; jobs are
/// poisoned at the second death.
pub(super) fn recovery(owner: Uuid, lease_before_ms: i64) -> Recover {
    let mut poisoned = completion("poisoned", 50);
    poisoned.answer.status = 500;
    poisoned.answer.error = Some(JobError {
        message: "It died.".into(),
        error_type: "internal_error".into(),
    });
    Recover {
        owner,
        lease_before_ms,
        max_crashes: 2,
        died: true,
        cancelled: completion("cancelled", 50),
        poisoned,
    }
}

/// The state of a job that is there.
pub(super) async fn state(store: &dyn JobStore, id: Uuid) -> State {
    store.status(id, 0).await.unwrap().unwrap().state
}

/// The body of a job's answer.
pub(super) async fn result_text(store: &dyn JobStore, id: Uuid) -> Option<String> {
    match store.result(id, 0).await.unwrap().unwrap() {
        JobResult::NotFinished => None,
        JobResult::Finished(result) => Some(String::from_utf8(result.body.to_vec()).unwrap()),
    }
}
