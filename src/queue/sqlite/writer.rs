//! One connection writes, and changes that arrive together share one transaction.
//!
//! SQLite has one writer at a time and syncs the disk once a transaction, so a transaction a change
//! would bound the queue by the disk's syncs. Here changes wait in a channel while the one before
//! them is synced, and then go to disk together. Nobody is made to wait for company: a lone change
//! is committed at once. Nothing is answered before it is on disk.
//!
//! If a shared transaction fails for the sake of one change, it is undone and its changes are tried
//! one at a time, so that one bad change spoils nothing but itself. A change therefore must bear
//! being applied again. If the store is at fault, all of them fail at once.
//!
//! Whatever fails, the connection is thrown away, because nobody can say what state it is in: SQLite
//! undoes some transactions by itself and leaves others open. The next change opens a new one. While
//! the store fails and nobody comes, an empty transaction is tried from time to time.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, SqlitePool};
use tokio::sync::{mpsc, oneshot, watch};

use super::change::{Change, Item, Unit};
use super::connector::Connector;
use super::fault::{discard, fault};
use super::positions::{Lines, Moves, SharedLines};
use super::rows::{self, Invalid};
use crate::queue::health::{Fault, Health, StoreWork};
use crate::queue::store::{Admission, StoreError, Submission};
use crate::telemetry::panic_text;

/// Changes in one transaction. More would only make the first of them wait for the last.
const MAX_TOGETHER: usize = 128;

/// Pause between two empty transactions while the store fails and nobody brings a change.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Time after which a transaction that has not ended counts as a failure of the store. It goes on.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Pauses after attempts to write a file that can only be read: for a status call and for a checkpoint,
/// which may have been begun while that was so.
const READ_ONLY_PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// How far the file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Transactions so far, over all processes.
    pub(super) commits: u64,
    /// Number of the next job.
    pub(super) next_seq: u64,
}

impl Progress {
    /// Reads it from the file.
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::query("SELECT commits, (SELECT MAX(seq) FROM jobs) AS seq FROM store")
            .fetch_one(connection)
            .await?;
        let last: Option<i64> = row.try_get("seq")?;
        let last = u64::try_from(last.unwrap_or_default()).unwrap_or_default();
        Ok(Self {
            commits: rows::count(&row, "commits")?,
            next_seq: last + 1,
        })
    }
}

/// The way to the writing connection. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    line: mpsc::Sender<Item>,
}

impl Writer {
    /// Makes a change; it is on disk when this returns.
    pub(super) async fn make<C: Change>(&self, change: C) -> Result<C::Outcome, StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.send(Item::other(change, reply)).await?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    /// Puts a job in line; it is on disk when this returns.
    pub(super) async fn submit(&self, new: Submission) -> Result<Admission, StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.send(Item::submission(new, reply)).await?;
        outcome.await.map_err(|_| StoreError::closed())?
    }

    async fn send(&self, item: Item) -> Result<(), StoreError> {
        let sent = self.line.send(item).await;
        sent.map_err(|_| StoreError::closed())
    }
}

/// The writing connection.
struct Writing {
    connection: SqliteConnection,
    /// Rows that it has changed so far, as SQLite counts them; less than that for a new one.
    changes: i64,
}

impl Writing {
    fn new(connection: SqliteConnection) -> Self {
        Self {
            connection,
            changes: -1,
        }
    }
}

/// What the writer works with.
pub(super) struct Work {
    connector: Connector,
    /// None after a fault, until the next transaction.
    connection: Option<Writing>,
    /// The connections that read.
    readers: SqlitePool,
    lines: SharedLines,
    health: Arc<Health>,
    progress: watch::Sender<Progress>,
}

impl Work {
    /// The work of a writer that has not begun.
    pub(super) fn new(
        connector: Connector,
        readers: SqlitePool,
        lines: SharedLines,
        health: Arc<Health>,
        progress: Progress,
    ) -> Self {
        Self {
            connector,
            connection: None,
            readers,
            lines,
            health,
            progress: watch::Sender::new(progress),
        }
    }

    /// A channel that changes with every commit and closes when this work has ended.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A way to this work, and what it does, which ends when the last clone of that way is dropped.
    pub(super) fn begin(
        self,
        connection: SqliteConnection,
    ) -> (Writer, impl Future<Output = ()> + Send + 'static) {
        let (line, items) = mpsc::channel(MAX_TOGETHER);
        let connection = Some(Writing::new(connection));
        let work = Self { connection, ..self };
        (Writer { line }, work.run(items))
    }

    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        let mut together = Vec::new();
        loop {
            let received = tokio::select! {
                biased;
                received = items.recv_many(&mut together, MAX_TOGETHER) => received,
                () = tokio::time::sleep(PROBE_PAUSE), if self.health.is_failing() => {
                    // What came of it is in the health.
                    let _ = self.commit(&mut []).await;
                    continue;
                }
            };
            if received == 0 {
                break;
            }
            self.settle(std::mem::take(&mut together)).await;
        }
        if let Some(writing) = self.connection {
            discard(writing.connection).await;
        }
    }

    /// Brings changes to disk together, or else one by one, and tells those who wait for them.
    async fn settle(&mut self, mut together: Vec<Item>) {
        let Err(error) = self.commit(&mut together).await else {
            return together.into_iter().for_each(Item::committed);
        };
        // On a full disk a small change may fit where a large one does not.
        let may_differ = |error: &_| matches!(fault(error), None | Some(Fault::DiskFull));
        let mut failure = (!may_differ(&error) || together.len() == 1).then(|| error.into());
        for item in together {
            if let Some(failure) = &failure {
                item.failed(failure);
                continue;
            }
            let mut alone = [item];
            let result = self.commit(&mut alone).await;
            let [item] = alone;
            let Err(error) = result else {
                item.committed();
                continue;
            };
            let is_last = !may_differ(&error);
            let error = error.into();
            item.failed(&error);
            failure = is_last.then_some(error);
        }
    }

    /// One transaction, and what it says about the store's health. Without a change it is a probe.
    async fn commit(&mut self, items: &mut [Item]) -> Result<(), sqlx::Error> {
        let health = Arc::clone(&self.health);
        let stalled = async {
            tokio::time::sleep(STALLED_AFTER).await;
            if health.fail(Fault::Stalled) {
                tracing::error!("the job store's disk does not answer");
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            biased;
            result = self.attempt_repeatedly(items) => result,
            () = stalled => Ok(()),
        };
        match &result {
            Ok(()) => {
                if let Some(fault) = self.health.mend() {
                    tracing::info!(?fault, "the job store takes changes again");
                }
            }
            Err(error) => {
                if let Some(fault) = fault(error) {
                    self.health.count(StoreWork::Write);
                    if self.health.fail(fault) {
                        tracing::error!(?fault, %error, "the job store takes no changes");
                    }
                }
            }
        }
        result
    }

    /// SQLite opens a file for reading where it may not write, and what connections of a process share
    /// stays so until the last of them is closed. So a file that cannot be written is tried again once
    /// everybody has let go of it.
    async fn attempt_repeatedly(&mut self, items: &mut [Item]) -> Result<(), sqlx::Error> {
        for pause in READ_ONLY_PAUSES {
            let result = self.attempt(items).await;
            match &result {
                Err(error) if fault(error) == Some(Fault::ReadOnly) => {}
                _ => return result,
            }
            while let Some(reader) = self.readers.try_acquire() {
                // Whoever reads next opens a new one.
                let _ = reader.close().await;
            }
            tokio::time::sleep(pause).await;
        }
        self.attempt(items).await
    }

    async fn attempt(&mut self, items: &mut [Item]) -> Result<(), sqlx::Error> {
        let mut writing = match self.connection.take() {
            Some(writing) => writing,
            None => Writing::new(self.connect().await?),
        };
        let before = *self.progress.borrow();
        let moves = Moves::on(&self.lines);
        // While the store fails, only what was written shows that it takes changes again.
        let is_probe = items.is_empty() || self.health.is_failing();
        let work = transaction(&mut writing, items, before, moves, is_probe);
        match unless_it_panics(work).await {
            Ok((moves, progress)) => {
                moves.committed();
                if progress != before {
                    self.progress.send_replace(progress);
                }
                self.connection = Some(writing);
                Ok(())
            }
            Err(error) => {
                discard(writing.connection).await;
                Err(error)
            }
        }
    }

    /// A new connection, after a fault. A transaction that was reported as failed may be on disk all
    /// the same, so everything that is known of the file is held against it.
    async fn connect(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        let mut connection = self.connector.writable().await?;
        let known = *self.progress.borrow();
        let looked = async {
            let found = Progress::load(&mut connection).await?;
            if found.commits != known.commits {
                let lines = Lines::load(&mut connection).await?;
                *self.lines.lock() = lines;
            }
            Ok(Progress {
                commits: found.commits,
                // A number that was given out once is not given out again.
                next_seq: found.next_seq.max(known.next_seq),
            })
        };
        match looked.await {
            Ok(progress) => {
                self.progress.send_replace(progress);
                Ok(connection)
            }
            Err(error) => {
                discard(connection).await;
                Err(error)
            }
        }
    }
}

/// One transaction: what it moved in the lines, and how far the file is then. One that changes nothing,
/// as a claim that found no job, writes and syncs nothing, unless it is a probe.
async fn transaction(
    writing: &mut Writing,
    items: &mut [Item],
    before: Progress,
    moves: Moves,
    is_probe: bool,
) -> Result<(Moves, Progress), sqlx::Error> {
    // Takes the right to write at once, so that no change can fail half way for want of it.
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut writing.connection)
        .await?;
    let mut unit = Unit {
        connection: &mut writing.connection,
        moves,
        next_seq: before.next_seq,
    };
    Item::apply_all(items, &mut unit).await?;
    let Unit {
        moves, next_seq, ..
    } = unit;
    let commits = before.commits + 1;
    let changes: i64 = sqlx::query_scalar(
        "UPDATE store SET commits = ?1 WHERE ?2 OR total_changes() > ?3;
         COMMIT;
         SELECT total_changes()",
    )
    .bind(i64::try_from(commits).unwrap_or(i64::MAX))
    .bind(is_probe)
    .bind(writing.changes)
    .fetch_one(&mut writing.connection)
    .await?;
    let has_written = changes > std::mem::replace(&mut writing.changes, changes);
    let commits = if has_written { commits } else { before.commits };
    Ok((moves, Progress { commits, next_seq }))
}

/// The work's result; a panic in it is an error that belongs to the change.
async fn unless_it_panics<T>(
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        // The future is not used again after a panic, nor is its connection.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(panic) => {
                let panic = panic_text(&*panic);
                tracing::error!(panic, "a change to the job store panicked");
                Poll::Ready(Err(Invalid::new(panic).into()))
            }
        }
    })
    .await
}
