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

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};

use super::connector::Connector;
use super::fault::{discard, fault};
use super::rows::Invalid;
use crate::queue::health::{Fault, Health, StoreWork};
use crate::queue::store::StoreError;
use crate::telemetry::panic_text;

/// Changes in one transaction. More would only make the first of them wait for the last.
const MAX_TOGETHER: usize = 128;

/// Pause between two empty transactions while the store fails and nobody brings a change.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Time after which a transaction that has not ended counts as a failure of the store. It goes on.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// A change on its way in, and everything that is known of the open transaction.
pub(super) struct Unit<'c> {
    /// In a transaction.
    pub(super) connection: &'c mut SqliteConnection,
    /// Jobs in line by endpoint, normal and low, as this transaction sees them. Counted once for
    /// the first submission and kept up to date by the following ones; whatever else changes the
    /// line clears it.
    pub(super) lines: HashMap<String, [u64; 2]>,
}

/// One change to the store.
pub(super) trait Change: Send + Sync + 'static {
    /// What it answers.
    type Outcome: Send + 'static;

    /// Makes the change inside the open transaction. It may be called again after the transaction
    /// was undone.
    fn apply(
        &self,
        unit: &mut Unit<'_>,
    ) -> impl Future<Output = Result<Self::Outcome, sqlx::Error>> + Send;
}

type Applying<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// A change with somebody who waits for its outcome.
trait Entry: Send {
    fn apply<'a>(&'a mut self, unit: &'a mut Unit<'_>) -> Applying<'a>;
    /// It is on disk.
    fn committed(self: Box<Self>);
    /// It is not.
    fn failed(self: Box<Self>, error: &StoreError);
}

struct Waiting<C: Change> {
    change: C,
    outcome: Option<C::Outcome>,
    reply: oneshot::Sender<Result<C::Outcome, StoreError>>,
}

impl<C: Change> Entry for Waiting<C> {
    fn apply<'a>(&'a mut self, unit: &'a mut Unit<'_>) -> Applying<'a> {
        Box::pin(async move {
            self.outcome = Some(self.change.apply(unit).await?);
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Whoever asked may have left; the change stands.
            let _ = self.reply.send(Ok(outcome));
        }
    }

    fn failed(self: Box<Self>, error: &StoreError) {
        let _ = self.reply.send(Err(error.clone()));
    }
}

/// The way to the writing connection. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    line: mpsc::Sender<Box<dyn Entry>>,
}

impl Writer {
    /// A writer; the work that it does, which ends when the last clone is dropped; and a channel that
    /// changes with every commit and closes when that work has ended.
    pub(super) fn new(
        connector: Connector,
        connection: SqliteConnection,
        health: Arc<Health>,
    ) -> (
        Self,
        impl Future<Output = ()> + Send + 'static,
        watch::Receiver<()>,
    ) {
        let (line, entries) = mpsc::channel(MAX_TOGETHER);
        let (commits, committed) = watch::channel(());
        let work = Work {
            connector,
            connection: Some(connection),
            health,
            commits,
        };
        (Self { line }, work.run(entries), committed)
    }

    /// Makes a change; it is on disk when this returns.
    pub(super) async fn make<C: Change>(&self, change: C) -> Result<C::Outcome, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let entry = Waiting {
            change,
            outcome: None,
            reply,
        };
        let sent = self.line.send(Box::new(entry)).await;
        sent.map_err(|_| StoreError::closed())?;
        outcome.await.map_err(|_| StoreError::closed())?
    }
}

/// What the writer works with.
struct Work {
    connector: Connector,
    /// None after a fault, until the next transaction.
    connection: Option<SqliteConnection>,
    health: Arc<Health>,
    commits: watch::Sender<()>,
}

impl Work {
    async fn run(mut self, mut entries: mpsc::Receiver<Box<dyn Entry>>) {
        let mut together = Vec::new();
        loop {
            let received = tokio::select! {
                biased;
                received = entries.recv_many(&mut together, MAX_TOGETHER) => received,
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
        if let Some(connection) = self.connection {
            discard(connection).await;
        }
    }

    /// Brings changes to disk together, or else one by one, and tells those who wait for them.
    async fn settle(&mut self, mut together: Vec<Box<dyn Entry>>) {
        let Err(error) = self.commit(&mut together).await else {
            return together.into_iter().for_each(Entry::committed);
        };
        // On a full disk a small change may fit where a large one does not.
        let may_differ = matches!(fault(&error), None | Some(Fault::DiskFull));
        let mut failure = (!may_differ || together.len() == 1).then(|| error.into());
        for entry in together {
            if let Some(failure) = &failure {
                entry.failed(failure);
                continue;
            }
            let mut alone = [entry];
            let result = self.commit(&mut alone).await;
            let [entry] = alone;
            let Err(error) = result else {
                entry.committed();
                continue;
            };
            let may_differ = matches!(fault(&error), None | Some(Fault::DiskFull));
            let error = error.into();
            entry.failed(&error);
            failure = (!may_differ).then_some(error);
        }
    }

    /// One transaction, and what it says about the store's health. Without a change it is a probe.
    async fn commit(&mut self, entries: &mut [Box<dyn Entry>]) -> Result<(), sqlx::Error> {
        let health = Arc::clone(&self.health);
        let watch = async {
            tokio::time::sleep(STALLED_AFTER).await;
            if health.fail(Fault::Stalled) {
                tracing::error!("the job store's disk does not answer");
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            biased;
            result = self.attempt(entries) => result,
            () = watch => Ok(()),
        };
        match &result {
            Ok(()) => {
                if let Some(fault) = self.health.mend() {
                    tracing::info!(?fault, "the job store takes changes again");
                }
                self.commits.send_replace(());
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

    async fn attempt(&mut self, entries: &mut [Box<dyn Entry>]) -> Result<(), sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connector.writable().await?,
        };
        let result = unless_it_panics(transaction(&mut connection, entries)).await;
        match result {
            Ok(()) => self.connection = Some(connection),
            Err(_) => discard(connection).await,
        }
        result
    }
}

async fn transaction(
    connection: &mut SqliteConnection,
    entries: &mut [Box<dyn Entry>],
) -> Result<(), sqlx::Error> {
    // Takes the right to write at once, so that no change can fail half way for want of it.
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut *connection)
        .await?;
    let mut unit = Unit {
        connection: &mut *connection,
        lines: HashMap::new(),
    };
    for entry in entries {
        entry.apply(&mut unit).await?;
    }
    // Something is always written, so that an empty transaction tells whether the disk takes it.
    sqlx::query("UPDATE store SET commits = commits + 1; COMMIT")
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// The work's result; a panic in it is an error that belongs to the change.
async fn unless_it_panics(
    work: impl Future<Output = Result<(), sqlx::Error>>,
) -> Result<(), sqlx::Error> {
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
