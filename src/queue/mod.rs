//! Durable jobs: handed in, answered in order, their answers kept for a stated time.
//!
//! The promise:
//! * A job is stored on disk before its id is given out. From then on it survives the end of the
//!   process at any moment, whatever ends it.
//! * It is answered at least once and has exactly one result. A job whose process died while it ran
//!   is tried again, alone; one that ran alone at several deaths is failed and kept.
//! * Its result is repeated byte for byte until it expires. Nothing that waits is ever dropped.
//! * Whoever gave an address is told when the job ends, across restarts, with a signature.
//!
//! [`job`] has the states, [`store`] the operations, [`sqlite`] and [`memory`] implement them.
//! [`lifecycle`] opens and closes it all. [`worker`] runs jobs through an [`Answerer`], [`recovery`]
//! deals with what dead processes left, [`suspects`] finds out who killed them, [`retention`] forgets,
//! [`webhook`] tells. [`shares`] sees to it that nobody's slowness holds back others, [`timeline`] is
//! the time that all go by.
//!
//! This room stores the request as received and the answer as sent. It knows no pictures, no model
//! and no HTTP types.

mod answerer;
mod clock;
#[cfg(test)]
mod conformance;
mod data_dir;
mod error;
mod health;
mod job;
mod lifecycle;
mod live;
mod memory;
mod recovery;
mod retention;
mod shares;
mod signature;
mod slot;
mod sqlite;
mod store;
mod suspects;
mod timeline;
mod turns;
mod webhook;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::QueueSettings;
use crate::image_io::fetch::{NameLookup, Poster, SystemLookup};
use clock::to_ms;
use data_dir::DataDir;
use job::State;
use live::Live;
use shares::Shares;
use signature::Signer;
use slot::Pool;
use store::{Admission, Completion, JobStore, Submission};
use timeline::Timeline;

pub use answerer::{Answerer, Answering, JobAnswer, JobLog, JobRequest, Outcome, Refusals};
pub use clock::{Clock, Sleeping, SystemClock};
pub use error::{Damage, QueueError, SubmitError};
pub use health::{Fault, StoreHealth, StoreWork};
pub use job::{
    CancelOutcome, Counts, JobError, JobResult, JobView, LogLevel, LogLine, NewJob, Priority,
    Progress, StoredResult, Submitted,
};
pub use live::JobWatch;
pub use slot::WorkerSlot;
pub use store::StoreError;

/// What the queue takes from the world beside its directory.
#[derive(Clone)]
pub struct Surroundings {
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// How names of webhook hosts become addresses.
    pub lookup: Arc<dyn NameLookup>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            lookup: Arc::new(SystemLookup),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// Longest wait for the store once the queue is closing. A change that takes longer has met a disk that
/// fails or does not answer; an answer that is lost to it is given again after the next start.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How far the queue's own life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Jobs are taken and answered.
    Open,
    /// No further job is begun.
    Draining,
    /// What still runs is dropped.
    Stopped,
}

/// A handle to the queue. All clones reach the same one.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn JobStore>,
    settings: QueueSettings,
    refusals: Refusals,
    clock: Arc<Timeline>,
    live: Arc<Live>,
    signer: Arc<Signer>,
    poster: Poster,
    /// None when jobs are kept in memory.
    dir: Option<DataDir>,
    /// This queue, as the owner of what it claims. A new one at every start.
    owner: Uuid,
    /// Changes when there may be a job to claim.
    work: watch::Sender<()>,
    /// Changes when there may be a webhook to deliver.
    deliveries: watch::Sender<()>,
    /// Workers, and who may use them beside whom.
    pool: Arc<Pool>,
    /// Places for webhooks, and memory for large ones, by the receiver's host.
    receivers: Arc<Shares>,
    /// Whether there may be jobs under suspicion.
    suspects: watch::Sender<bool>,
    phase: watch::Sender<Phase>,
    workers: Mutex<JoinSet<()>>,
    keepers: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("store", &self.inner.store)
            .field("phase", &*self.inner.phase.borrow())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Puts a job in line. It is on disk when this returns.
    ///
    /// # Errors
    /// See [`SubmitError`]. After an error the job is not in line.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted, SubmitError> {
        let inner = &self.inner;
        if let Some(free_bytes) = inner.dir.as_ref().and_then(DataDir::free_bytes)
            && free_bytes < inner.settings.disk_floor_bytes
        {
            return Err(SubmitError::NoRoom { free_bytes });
        }
        let id = Uuid::new_v4();
        let submission = Submission {
            id,
            job,
            now_ms: inner.clock.now_ms(),
        };
        match inner.store.submit(submission).await? {
            Admission::Accepted { position } => {
                inner.work.send_replace(());
                Ok(Submitted { id, position })
            }
            Admission::Full { waiting } => Err(SubmitError::Full { waiting }),
        }
    }

    /// Looks at a job; none if there is no such job, or no longer.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn status(&self, id: Uuid) -> Result<Option<JobView>, QueueError> {
        // Taken before the store is asked, so that a job which ends in between does not lose its log.
        let running = self.inner.live.running(id);
        let now_ms = self.inner.clock.now_ms();
        let Some(stored) = self.inner.store.status(id, now_ms).await? else {
            return Ok(None);
        };
        let progress = match stored.state {
            State::Waiting => Progress::InQueue {
                position: stored.ahead,
            },
            State::Running => Progress::InProgress,
            State::Done => Progress::Completed {
                inference_seconds: stored
                    .inference_us
                    .and_then(|us| u64::try_from(us).ok())
                    .map(|us| Duration::from_micros(us).as_secs_f64()),
                error: stored.error,
            },
        };
        let logs = match running {
            Some(running) if stored.state == State::Running => running.log.lines(),
            _ => stored.log,
        };
        Ok(Some(JobView {
            endpoint: stored.endpoint,
            progress,
            logs,
        }))
    }

    /// Fetches a job's answer; none if there is no such job, or no longer.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn result(&self, id: Uuid) -> Result<Option<JobResult>, QueueError> {
        let now_ms = self.inner.clock.now_ms();
        Ok(self.inner.store.result(id, now_ms).await?)
    }

    /// Cancels a job: a waiting one is done at once, a running one is stopped. Both end with the
    /// refusal for cancelled jobs, unless a running one is answered first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel(&self, id: Uuid) -> Result<CancelOutcome, QueueError> {
        let inner = &self.inner;
        let completion = inner.completion(inner.refusals.cancelled.clone());
        let outcome = inner.store.cancel(id, completion).await?;
        if outcome == CancelOutcome::Requested {
            inner.live.cancel(id);
            inner.completed(id);
        }
        Ok(outcome)
    }

    /// The queue's own time in milliseconds, by which start deadlines are set. It runs on evenly,
    /// whatever is done to the calendar, also from one process to the next.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// Watches a job, so that nobody has to ask again and again. See [`JobWatch`].
    #[must_use]
    pub fn watch(&self, id: Uuid) -> JobWatch {
        self.inner.live.watch(id)
    }

    /// Counts the jobs that are not done.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn counts(&self) -> Result<Counts, QueueError> {
        Ok(self.inner.store.counts().await?)
    }

    /// The health of the store, for readiness and metrics.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.health()
    }

    /// Jobs that are worked on now, without those that wait for somebody else's server.
    #[must_use]
    pub fn jobs_inside(&self) -> usize {
        let idle = self.inner.pool.workers.available_permits();
        self.inner.settings.workers.saturating_sub(idle)
    }

    /// The public keys with which receivers check webhooks, as JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.inner.signer.jwks()
    }
}

impl Inner {
    /// The end of a job, now, with this answer. A failure of ours keeps the request, so that a person
    /// can find out what it was about it.
    fn completion(&self, answer: JobAnswer) -> Completion {
        let now_ms = self.clock.now_ms();
        Completion {
            now_ms,
            expires_ms: now_ms.saturating_add(to_ms(self.settings.result_ttl)),
            keeps_request: answer.outcome == Outcome::Retry,
            answer,
        }
    }

    /// Spreads the news that a job is out of the line or done.
    fn completed(&self, id: Uuid) {
        self.live.touch(id);
        self.live.line_moved();
        self.deliveries.send_replace(());
    }

    /// Repeats a change until the store takes it, because a job's end must not be lost to a full
    /// disk. None when the queue is closing and the store has had its time; the next start finds the
    /// job running and abandoned.
    async fn until_stored<T, F>(&self, mut change: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let stored = async {
            loop {
                match change().await {
                    Ok(value) => return value,
                    Err(error) => tracing::error!(%error, "a job's state could not be stored"),
                }
                tokio::time::sleep(worker::STORE_PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            value = stored => Some(value),
            () = self.out_of_patience() => None,
        }
    }

    /// Completes once the queue is closing and whoever calls this has waited for the store long
    /// enough: a store that fails must not hold up the end of the process.
    async fn out_of_patience(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase != Phase::Open).await;
        tokio::time::sleep(STORE_PATIENCE).await;
    }
}

/// The values behind these locks are replaced whole, so a panic elsewhere cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
