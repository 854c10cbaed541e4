//! Moves what was committed from the write-ahead log into the file, beside the writer instead of
//! inside its commits.
//!
//! By itself SQLite does this in the commit that makes the log long, and everybody behind that commit
//! waits. A checkpoint from another connection keeps nobody waiting. It cannot always get to the end
//! of a log that grows meanwhile, so the writer still does it at a size that is rarely reached, and
//! then most of it is done already.
//!
//! When it fails, jobs are still taken: they are safe in the log. So it is counted, its connection is
//! replaced, and it is tried again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::watch;

use super::connector::Connector;
use super::fault::discard;
use crate::queue::health::{Health, StoreWork};

/// Pages in the log at which the writer moves them itself: 64 MiB.
pub(super) const BACKSTOP_PAGES: &str = "16384";

/// Least time between two checkpoints.
const PACE: Duration = Duration::from_millis(500);

/// Moves commits into the file, from time to time, until the writer has ended.
pub(super) async fn keep_log_short<T>(
    connector: Connector,
    mut connection: Option<SqliteConnection>,
    mut committed: watch::Receiver<T>,
    health: Arc<Health>,
) {
    let mut is_failing = false;
    // A failed one is repeated without waiting for the next commit.
    while is_failing || committed.changed().await.is_ok() {
        // One that was opened while the file could only be read would keep what the connections of a process
        // share read-only for as long as it is open, so it is not kept.
        let is_kept = !is_failing && !health.is_failing();
        let moved = match connection.take() {
            Some(connection) => checkpoint(connection).await,
            None => match connector.writable().await {
                Ok(connection) => checkpoint(connection).await,
                Err(error) => Err(error),
            },
        };
        let was_failing = std::mem::replace(&mut is_failing, moved.is_err());
        match moved {
            Ok(used) if is_kept => connection = Some(used),
            Ok(used) => discard(used).await,
            Err(error) => {
                health.count(StoreWork::Checkpoint);
                if !was_failing {
                    tracing::warn!(%error, "the queue's log cannot be moved into its file");
                }
            }
        }
        if committed.has_changed().is_err() {
            break;
        }
        // The pause ends with the writer; what was committed meanwhile stays news.
        let mut later = committed.clone();
        let ended = async { while later.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(PACE, ended).await;
    }
    if let Some(connection) = connection {
        discard(connection).await;
    }
}

/// One checkpoint. Gives the connection back unless it failed.
async fn checkpoint(mut connection: SqliteConnection) -> Result<SqliteConnection, sqlx::Error> {
    let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(&mut connection)
        .await;
    match moved {
        Ok(_) => Ok(connection),
        Err(error) => {
            discard(connection).await;
            Err(error)
        }
    }
}
