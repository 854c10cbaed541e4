//! Durable jobs: handed in, answered in order, their answers kept for a stated time.
//!
//! The promise:
//! * A job is stored on disk before its id is given out. From then on it survives the end of the
//!   process at any moment, whatever ends it.
//! * It is answered at least once and has exactly one result. A job whose process died while it ran
//!   is tried again; one that was running at several deaths is failed and kept.
//! * Its result is repeated byte for byte until it expires. Nothing that waits is ever dropped.
//! * Whoever gave an address is told when the job ends, across restarts, with a signature.
//!
//! [`job`] has the states, [`store`] the operations, [`sqlite`] and [`memory`] implement them.
//! [`worker`] runs jobs through an [`Answerer`], [`recovery`] deals with what dead processes left,
//! [`retention`] forgets, [`webhook`] tells.
//!
//! This room stores the request as received and the answer as sent. It knows no pictures, no model
//! and no HTTP types.

mod answerer;
mod clock;
mod data_dir;
mod job;
mod live;
mod memory;
mod recovery;
mod retention;
mod signature;
mod sqlite;
mod store;
mod webhook;
mod worker;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::QueueSettings;
use crate::image_io::fetch::{FetchSetupError, NameLookup, Poster, SystemLookup};
use clock::to_ms;
use data_dir::DataDir;
use job::State;
use live::Live;
use memory::MemoryStore;
use signature::Signer;
use sqlite::SqliteStore;
use store::{Admission, Completion, JobStore, Submission};

pub use answerer::{Answerer, Answering, JobAnswer, JobLog, JobRequest, Outcome, Refusals};
pub use clock::{Clock, Sleeping, SystemClock};
pub use job::{
    CancelOutcome, Counts, JobError, JobResult, JobView, LogLevel, LogLine, NewJob, Priority,
    Progress, StoredResult, Submitted,
};
pub use live::JobWatch;
pub use store::StoreError;

/// Time for background work to end once it has been told to.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process works there.
    #[error("another server uses the data directory {}; stop it, or choose another with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file with the signing key is damaged.
    #[error("the webhook key {} cannot be read; move it away to have a new one made", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Webhooks cannot be sent as asked.
    #[error(transparent)]
    Webhooks(#[from] FetchSetupError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// More jobs wait for the endpoint than the caller's own limit allows.
    #[error("{waiting} jobs wait for the endpoint")]
    Full {
        /// Jobs that wait for it.
        waiting: u64,
    },
    /// The disk is nearly full.
    #[error("only {free_bytes} bytes are free on the disk of the data directory")]
    NoRoom {
        /// Bytes left.
        free_bytes: u64,
    },
    /// The store failed, or the queue is closed.
    #[error(transparent)]
    Storage(#[from] StoreError),
}

/// What the queue takes from the world beside its directory.
#[derive(Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How names of webhook hosts become addresses.
    pub lookup: Arc<dyn NameLookup>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            lookup: Arc::new(SystemLookup),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

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
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    signer: Signer,
    poster: Poster,
    /// None when jobs are kept in memory.
    dir: Option<DataDir>,
    /// This queue, as the owner of what it claims. A new one at every start.
    owner: Uuid,
    /// Changes when there may be a job to claim.
    work: watch::Sender<()>,
    /// Changes when there may be a webhook to deliver.
    deliveries: watch::Sender<()>,
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
    /// Opens the queue in a directory, which is made where it is missing and locked until
    /// [`Queue::close`] or the end of the process. Jobs that another process left running are back in
    /// line when this returns, and webhooks go out from then on; jobs run after [`Queue::run`].
    ///
    /// # Errors
    /// See [`QueueError`]; each is one sentence that says what to do.
    pub async fn open(
        dir: &Path,
        settings: &QueueSettings,
        refusals: Refusals,
    ) -> Result<Self, QueueError> {
        Self::open_in(dir, settings, refusals, Surroundings::default()).await
    }

    /// The same in other surroundings.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub async fn open_in(
        dir: &Path,
        settings: &QueueSettings,
        refusals: Refusals,
        surroundings: Surroundings,
    ) -> Result<Self, QueueError> {
        let dir = DataDir::open(dir)?;
        let signer = Signer::load_or_make(dir.path())?;
        let store = SqliteStore::open(dir.path()).await?;
        let parts = (Arc::new(store) as Arc<dyn JobStore>, signer, Some(dir));
        Self::start(parts, settings, refusals, surroundings).await
    }

    /// A queue that forgets everything with the process.
    ///
    /// # Errors
    /// When webhooks cannot be sent as asked.
    pub async fn in_memory(
        settings: &QueueSettings,
        refusals: Refusals,
        surroundings: Surroundings,
    ) -> Result<Self, QueueError> {
        let store = Arc::new(MemoryStore::default());
        let parts = (store as Arc<dyn JobStore>, Signer::passing()?, None);
        Self::start(parts, settings, refusals, surroundings).await
    }

    async fn start(
        (store, signer, dir): (Arc<dyn JobStore>, Signer, Option<DataDir>),
        settings: &QueueSettings,
        refusals: Refusals,
        surroundings: Surroundings,
    ) -> Result<Self, QueueError> {
        let Surroundings { clock, lookup } = surroundings;
        let inner = Arc::new(Inner {
            store,
            settings: settings.clone(),
            refusals,
            clock,
            live: Arc::default(),
            signer,
            poster: Poster::new(&settings.allowed_webhooks, lookup)?,
            dir,
            owner: Uuid::new_v4(),
            work: watch::Sender::new(()),
            deliveries: watch::Sender::new(()),
            phase: watch::Sender::new(Phase::Open),
            workers: Mutex::default(),
            keepers: Mutex::default(),
        });
        // The directory is locked, so whoever owned what still runs is dead, whatever its lease says.
        recovery::recover(&inner, i64::MAX).await?;
        let mut keepers = lock(&inner.keepers);
        keepers.spawn(recovery::keep(Arc::clone(&inner)));
        keepers.spawn(retention::retain(Arc::clone(&inner)));
        keepers.spawn(webhook::deliver(Arc::clone(&inner)));
        drop(keepers);
        Ok(Self { inner })
    }

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

    /// The public keys with which receivers check webhooks, as JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.inner.signer.jwks()
    }

    /// Starts the workers. Called when the model is ready; on a queue that is closing it does nothing.
    pub fn run(&self, answerer: Arc<dyn Answerer>) {
        if *self.inner.phase.borrow() != Phase::Open {
            return;
        }
        let mut workers = lock(&self.inner.workers);
        for _ in 0..self.inner.settings.workers {
            workers.spawn(worker::work(Arc::clone(&self.inner), Arc::clone(&answerer)));
        }
    }

    /// Begins no further job. Everything else goes on until [`Queue::close`].
    pub fn drain(&self) {
        self.inner.phase.send_if_modified(|phase| {
            let is_open = *phase == Phase::Open;
            if is_open {
                *phase = Phase::Draining;
            }
            is_open
        });
    }

    /// Begins no further job, lets those that run end for at most `grace`, drops the rest, and lets
    /// go of the directory. What was dropped or still waits is there at the next start.
    pub async fn close(&self, grace: Duration) {
        let inner = &self.inner;
        inner.phase.send_replace(Phase::Draining);
        let mut workers = std::mem::take(&mut *lock(&inner.workers));
        let mut keepers = std::mem::take(&mut *lock(&inner.keepers));
        let is_drained = ended_within(grace, &mut workers).await;
        inner.phase.send_replace(Phase::Stopped);
        let is_stopped = (is_drained || ended_within(STOP_GRACE, &mut workers).await)
            & ended_within(STOP_GRACE, &mut keepers).await;
        if !is_stopped {
            tracing::warn!("the queue's work did not end in time and is cut off");
        }
        workers.shutdown().await;
        keepers.shutdown().await;
        if let Err(error) = inner.store.close().await {
            tracing::error!(%error, "the queue could not be closed in order");
        }
        if let Some(dir) = &inner.dir {
            dir.release();
        }
    }
}

async fn ended_within(grace: Duration, tasks: &mut JoinSet<()>) -> bool {
    let ended = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(grace, ended).await.is_ok()
}

impl Inner {
    /// The end of a job, now, with this answer.
    fn completion(&self, answer: JobAnswer) -> Completion {
        let now_ms = self.clock.now_ms();
        Completion {
            now_ms,
            expires_ms: now_ms.saturating_add(to_ms(self.settings.result_ttl)),
            keeps_request: answer.status >= FIRST_FAULT_OF_OURS,
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
    /// disk. None when the queue stopped meanwhile; the next start finds the job running and
    /// abandoned.
    async fn until_stored<T, F>(&self, mut change: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut phase = self.phase.subscribe();
        loop {
            match change().await {
                Ok(value) => return Some(value),
                Err(error) => tracing::error!(%error, "a job's state could not be stored"),
            }
            tokio::select! {
                _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return None,
                () = tokio::time::sleep(worker::STORE_PAUSE) => {}
            }
        }
    }
}

/// Answers from this number on are failures of ours.
const FIRST_FAULT_OF_OURS: u16 = 500;

/// The values behind these locks are replaced whole, so a panic elsewhere cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
