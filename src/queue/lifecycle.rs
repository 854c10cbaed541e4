//! From opening the queue to closing it: what is started, in which order, and what ends it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::answerer::{Answerer, Refusals};
use super::data_dir::DataDir;
use super::memory::MemoryStore;
use super::shares::Shares;
use super::signature::Signer;
use super::slot::Pool;
use super::sqlite::SqliteStore;
use super::store::JobStore;
use super::timeline::Timeline;
use super::turns::Turns;
use super::{
    Inner, Phase, Queue, QueueError, Surroundings, lock, recovery, retention, suspects, webhook,
    worker,
};
use crate::config::QueueSettings;
use crate::image_io::fetch::Poster;

/// Time for background work to end once it has been told to.
const STOP_GRACE: Duration = Duration::from_secs(5);

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
        let kept = store.time().await?;
        let clock = Arc::new(Timeline::resume(clock, kept));
        let (work, deliveries) = (watch::Sender::new(()), watch::Sender::new(()));
        let pool = Pool {
            workers: Arc::new(Semaphore::new(settings.workers)),
            turns: Turns::new(),
            sources: Shares::new(settings.fetches, settings.fetches_per_source, work.clone()),
        };
        let receivers = Shares::with_memory(
            settings.webhooks.saturating_mul(2),
            settings.webhooks_per_receiver,
            settings.webhook_memory_bytes,
            deliveries.clone(),
        );
        let inner = Arc::new(Inner {
            store,
            settings: settings.clone(),
            refusals: refusals.with_outcomes(),
            clock,
            live: Arc::default(),
            signer: Arc::new(signer),
            poster: Poster::new(&settings.allowed_webhooks, lookup)?,
            dir,
            owner: Uuid::new_v4(),
            work,
            deliveries,
            pool: Arc::new(pool),
            receivers,
            suspects: watch::Sender::new(false),
            phase: watch::Sender::new(Phase::Open),
            workers: Mutex::default(),
            keepers: Mutex::default(),
        });
        // The directory is locked, so whoever owned what still runs is dead, whatever its lease says.
        let recovered = recovery::recover(&inner, i64::MAX, kept.is_open).await;
        recovered.map_err(|source| match &inner.dir {
            Some(dir) => QueueError::Open {
                path: dir.path().to_owned(),
                source,
            },
            None => source.into(),
        })?;
        let noted = recovery::note_time(&inner, true).await?;
        let held = inner.store.held().await?;
        held.sources
            .into_iter()
            .for_each(|source| inner.pool.sources.hold(source));
        held.receivers
            .into_iter()
            .for_each(|receiver| inner.receivers.hold(receiver));
        let mut keepers = lock(&inner.keepers);
        keepers.spawn(recovery::keep(Arc::clone(&inner), noted));
        keepers.spawn(retention::retain(Arc::clone(&inner)));
        keepers.spawn(webhook::deliver(Arc::clone(&inner)));
        drop(keepers);
        Ok(Self { inner })
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
        let started_ms = self.inner.clock.now_ms();
        workers.spawn(suspects::run(Arc::clone(&self.inner), answerer, started_ms));
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
        let closing = async {
            let noted = recovery::note_time(inner, false).await;
            // Closed in any case: a disk that takes no time lets go of the file all the same.
            noted.and(inner.store.close().await)
        };
        match tokio::time::timeout(STOP_GRACE, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the queue could not be closed in order"),
            Err(_) => {
                tracing::error!("the queue's disk does not answer; its file is left as it is")
            }
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
