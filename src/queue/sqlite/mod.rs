//! Jobs in a SQLite file: the durable [`JobStore`], without a server of its own.
//!
//! A write-ahead log with full sync: what was committed survives a power cut. One connection writes
//! ([`writer`]), one tidies up ([`checkpoint`]), two read, and readers never wait for the writer. The statements are such that
//! Postgres takes them too; what is SQLite's own stands in this file, in [`writer`], and where space
//! is given back.
//!
//! The file can be looked into with any SQLite client while the server runs.

mod change;
mod checkpoint;
mod connector;
#[cfg(test)]
mod damage_tests;
mod deliveries;
mod ends;
mod fault;
#[cfg(all(test, target_os = "linux"))]
mod fault_tests;
mod intact;
mod line;
mod marker;
mod open;
mod pieces;
mod positions;
mod reads;
mod results;
mod rows;
mod submissions;
#[cfg(test)]
mod tests;
mod time;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::error::QueueError;
use super::health::{Health, StoreHealth};
use super::job::{CancelOutcome, Counts, JobResult};
use super::store::{
    Admission, Claim, ClaimDelivery, Claimed, ClaimedDelivery, Completion, Finish, HeldWork,
    JobStore, PutBack, Recover, Recovered, Renew, Renewed, Reply, Settle, StoreError, StoredStatus,
    Submission,
};
use super::timeline::KeptTime;
use change::Change;
use open::Opened;
use positions::SharedLines;
use reads::Reads;
use writer::{Work, Writer};

/// See the module's header.
pub(super) struct SqliteStore {
    writer: Mutex<Option<Writer>>,
    /// The writer and the keeper of its log. They end by themselves when the writer is dropped.
    tasks: Mutex<JoinSet<()>>,
    reads: Reads,
    health: Arc<Health>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file in a directory, makes it where there never was one, and brings its tables up to
    /// date.
    ///
    /// # Errors
    /// When the file cannot be used, or is not the one that was there before, or not all of it.
    pub(super) async fn open(dir: &Path) -> Result<Self, QueueError> {
        let opened = open::open(dir).await?;
        Self::start(opened)
            .await
            .map_err(|source| QueueError::Open {
                path: dir.to_owned(),
                source,
            })
    }

    async fn start(opened: Opened) -> Result<Self, StoreError> {
        let Opened {
            connector,
            connection,
            progress,
            lines,
            marker,
        } = opened;
        let health = Arc::new(Health::default());
        let lines = SharedLines::new(lines);
        let readers = connector.readers().await?;
        let for_checkpoints = Some(connector.writable().await?);
        let work = Work::new(
            connector.clone(),
            readers.clone(),
            lines.clone(),
            Arc::clone(&health),
            progress,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(checkpoint::keep_log_short(
            connector,
            for_checkpoints,
            work.progress(),
            Arc::clone(&health),
        ));
        if let Some(marker) = marker {
            tasks.spawn(marker::keep(marker, work.progress(), lines.clone()));
        }
        let (writer, work) = work.begin(connection);
        tasks.spawn(work);
        Ok(Self {
            writer: Mutex::new(Some(writer)),
            tasks: Mutex::new(tasks),
            reads: Reads::new(readers, lines, Arc::clone(&health)),
            health,
        })
    }

    fn make<C: Change>(&self, change: C) -> Reply<'_, C::Outcome> {
        let writer = lock(&self.writer).clone();
        Box::pin(async move {
            let writer = writer.ok_or_else(StoreError::closed)?;
            writer.make(change).await
        })
    }

    async fn finish_writing(&self) {
        drop(lock(&self.writer).take());
        self.reads.close().await;
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        // They end when the last change is made; a panic in them was reported by its callers.
        while tasks.join_next().await.is_some() {}
    }
}

impl JobStore for SqliteStore {
    fn submit(&self, new: Submission) -> Reply<'_, Admission> {
        let writer = lock(&self.writer).clone();
        Box::pin(async move {
            let writer = writer.ok_or_else(StoreError::closed)?;
            writer.submit(new).await
        })
    }

    fn claim(&self, claim: Claim) -> Reply<'_, Claimed> {
        self.make(claim)
    }

    fn renew(&self, renew: Renew) -> Reply<'_, Renewed> {
        self.make(renew)
    }

    fn finish(&self, finish: Finish) -> Reply<'_, bool> {
        self.make(finish)
    }

    fn put_back(&self, put_back: PutBack) -> Reply<'_, bool> {
        self.make(put_back)
    }

    fn recover(&self, recover: Recover) -> Reply<'_, Recovered> {
        self.make(recover)
    }

    fn cancel(&self, id: Uuid, completion: Completion) -> Reply<'_, CancelOutcome> {
        self.make(ends::Cancel { id, completion })
    }

    fn status(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<StoredStatus>> {
        Box::pin(self.reads.status(id, now_ms))
    }

    fn result(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<JobResult>> {
        Box::pin(self.reads.result(id, now_ms))
    }

    fn counts(&self) -> Reply<'_, Counts> {
        Box::pin(self.reads.counts())
    }

    fn expire(&self, now_ms: i64, limit: u32) -> Reply<'_, bool> {
        self.make(ends::Expire { now_ms, limit })
    }

    fn claim_delivery(&self, claim: ClaimDelivery) -> Reply<'_, ClaimedDelivery> {
        self.make(claim)
    }

    fn settle_delivery(&self, settle: Settle) -> Reply<'_, bool> {
        self.make(settle)
    }

    fn held(&self) -> Reply<'_, HeldWork> {
        Box::pin(self.reads.held())
    }

    fn time(&self) -> Reply<'_, KeptTime> {
        Box::pin(self.reads.time())
    }

    fn note_time(&self, time: KeptTime) -> Reply<'_, ()> {
        self.make(time)
    }

    fn health(&self) -> StoreHealth {
        self.health.now()
    }

    fn close(&self) -> Reply<'_, ()> {
        Box::pin(async move {
            self.finish_writing().await;
            Ok(())
        })
    }
}

/// The values behind these locks are replaced whole, so a panic elsewhere cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
