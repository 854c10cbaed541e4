//! One connection writes, and changes that arrive together share one transaction.
//!
//! SQLite has one writer at a time and syncs the disk once a transaction, so a transaction a change
//! would bound the queue by the disk's syncs. Here changes wait in a channel while the one before
//! them is synced, and then go to disk together. Nobody is made to wait for company: a lone change
//! is committed at once. Nothing is answered before it is on disk.
//!
//! If a shared transaction fails, it is undone and its changes are tried one at a time, so that one
//! bad change spoils nothing but itself. A change therefore must bear being applied again.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::StoreError;

/// Changes in one transaction. More would only make the first of them wait for the last.
const MAX_TOGETHER: usize = 128;

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
        connection: SqliteConnection,
    ) -> (
        Self,
        impl Future<Output = ()> + Send + 'static,
        watch::Receiver<()>,
    ) {
        let (line, entries) = mpsc::channel(MAX_TOGETHER);
        let (commits, committed) = watch::channel(());
        (
            Self { line },
            write(connection, entries, commits),
            committed,
        )
    }

    /// Makes a change; it is on disk when this returns.
    pub(super) async fn make<C: Change>(&self, change: C) -> Result<C::Outcome, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let entry = Waiting {
            change,
            outcome: None,
            reply,
        };
        let closed = || StoreError("it is closed".into());
        self.line
            .send(Box::new(entry))
            .await
            .map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

async fn write(
    mut connection: SqliteConnection,
    mut entries: mpsc::Receiver<Box<dyn Entry>>,
    commits: watch::Sender<()>,
) {
    let mut together = Vec::new();
    while entries.recv_many(&mut together, MAX_TOGETHER).await > 0 {
        match commit(&mut connection, &mut together).await {
            Ok(()) => together.drain(..).for_each(Entry::committed),
            Err(error) if together.len() == 1 => {
                let error = StoreError::from(error);
                together.drain(..).for_each(|entry| entry.failed(&error));
            }
            Err(_) => {
                for entry in together.drain(..) {
                    commit_alone(&mut connection, entry).await;
                }
            }
        }
        commits.send_replace(());
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the queue's file was not closed in order");
    }
}

async fn commit_alone(connection: &mut SqliteConnection, entry: Box<dyn Entry>) {
    let mut alone = [entry];
    let result = commit(connection, &mut alone).await;
    let [entry] = alone;
    match result {
        Ok(()) => entry.committed(),
        Err(error) => entry.failed(&error.into()),
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    entries: &mut [Box<dyn Entry>],
) -> Result<(), sqlx::Error> {
    // Takes the right to write at once, so that no change can fail half way for want of it.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut unit = Unit {
        connection: &mut transaction,
        lines: HashMap::new(),
    };
    for entry in entries {
        // Dropping the transaction undoes it.
        entry.apply(&mut unit).await?;
    }
    transaction.commit().await
}
