//! Changes on their way to disk, each with somebody who waits for its outcome.
//!
//! Most changes are statements of their own. Submissions are not: those of one transaction go into
//! the file together, because a busy server takes many at once and each statement costs two switches
//! of threads.

use std::future::Future;
use std::pin::Pin;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::positions::Moves;
use super::submissions::submit;
use crate::queue::store::{Admission, StoreError, Submission};

/// What a change finds: an open transaction, and what is known of it.
pub(super) struct Unit<'c> {
    /// In a transaction.
    pub(super) connection: &'c mut SqliteConnection,
    /// Who stepped into line and out of it; to be told of every such step.
    pub(super) moves: Moves,
    /// Number of the next job. No job ever had it or a higher one.
    pub(super) next_seq: u64,
}

/// One change to the store.
pub(super) trait Change: Send + Sync + 'static {
    /// What it answers.
    type Outcome: Send + Sync + 'static;

    /// Makes the change inside the open transaction. It may be called again after the transaction
    /// was undone.
    fn apply(
        &self,
        unit: &mut Unit<'_>,
    ) -> impl Future<Output = Result<Self::Outcome, sqlx::Error>> + Send;
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
type Applying<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// What can be done with a change of any kind.
pub(super) trait Entry: Send + Sync {
    fn apply<'a>(&'a mut self, unit: &'a mut Unit<'_>) -> Applying<'a>;
    /// It is on disk.
    fn committed(self: Box<Self>);
    /// It is not.
    fn failed(self: Box<Self>, error: &StoreError);
}

/// A change, its outcome once it is made, and who waits for it.
pub(super) struct Waiting<C, T> {
    change: C,
    outcome: Option<T>,
    reply: Reply<T>,
}

impl<C, T> Waiting<C, T> {
    fn committed(self) {
        if let Some(outcome) = self.outcome {
            // Whoever asked may have left; the change stands.
            let _ = self.reply.send(Ok(outcome));
        }
    }

    fn failed(self, error: &StoreError) {
        let _ = self.reply.send(Err(error.clone()));
    }
}

impl<C: Change> Entry for Waiting<C, C::Outcome> {
    fn apply<'a>(&'a mut self, unit: &'a mut Unit<'_>) -> Applying<'a> {
        Box::pin(async move {
            self.outcome = Some(self.change.apply(unit).await?);
            Ok(())
        })
    }

    fn committed(self: Box<Self>) {
        (*self).committed();
    }

    fn failed(self: Box<Self>, error: &StoreError) {
        (*self).failed(error);
    }
}

/// A change that waits for its transaction.
pub(super) enum Item {
    Submission(Box<Waiting<Submission, Admission>>),
    Other(Box<dyn Entry>),
}

impl Item {
    /// A submission with where to send its outcome.
    pub(super) fn submission(change: Submission, reply: Reply<Admission>) -> Self {
        let outcome = None;
        Self::Submission(Box::new(Waiting {
            change,
            outcome,
            reply,
        }))
    }

    /// Any other change with where to send its outcome.
    pub(super) fn other<C: Change>(change: C, reply: Reply<C::Outcome>) -> Self {
        let outcome = None;
        Self::Other(Box::new(Waiting {
            change,
            outcome,
            reply,
        }))
    }

    /// Makes changes inside the open transaction: the submissions first, then the others in order.
    pub(super) async fn apply_all(
        items: &mut [Self],
        unit: &mut Unit<'_>,
    ) -> Result<(), sqlx::Error> {
        let submissions: Vec<_> = items.iter().filter_map(Self::as_submission).collect();
        let mut admissions = submit(unit, &submissions).await?.into_iter();
        for item in items {
            match item {
                Self::Submission(waiting) => waiting.outcome = admissions.next(),
                Self::Other(entry) => entry.apply(unit).await?,
            }
        }
        Ok(())
    }

    fn as_submission(&self) -> Option<&Submission> {
        match self {
            Self::Submission(waiting) => Some(&waiting.change),
            Self::Other(_) => None,
        }
    }

    /// Tells whoever waits that it is on disk.
    pub(super) fn committed(self) {
        match self {
            Self::Submission(waiting) => waiting.committed(),
            Self::Other(entry) => entry.committed(),
        }
    }

    /// Tells whoever waits that it is not.
    pub(super) fn failed(self, error: &StoreError) {
        match self {
            Self::Submission(waiting) => waiting.failed(error),
            Self::Other(entry) => entry.failed(error),
        }
    }
}
