//! Moves what was committed from the write-ahead log into the file, beside the writer instead of
//! inside its commits.
//!
//! By itself SQLite does this in the commit that makes the log long, and everybody behind that commit
//! waits. A checkpoint from another connection keeps nobody waiting. It cannot always get to the end
//! of a log that grows meanwhile, so the writer still does it at a size that is rarely reached, and
//! then most of it is done already.

use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tokio::sync::watch;

/// Pages in the log at which the writer moves them itself: 64 MiB.
pub(super) const BACKSTOP_PAGES: &str = "16384";

/// Least time between two checkpoints.
const PACE: Duration = Duration::from_millis(500);

/// Moves commits into the file, from time to time, until the writer has ended.
pub(super) async fn keep_log_short(
    mut connection: SqliteConnection,
    mut committed: watch::Receiver<()>,
) {
    while committed.changed().await.is_ok() {
        let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut connection)
            .await;
        if let Err(error) = moved {
            // The writer meets the same fault and reports it to somebody who can act on it.
            tracing::debug!(%error, "the log was not moved into the file");
        }
        // The pause ends with the writer; what was committed meanwhile stays news.
        let mut later = committed.clone();
        let ended = async { while later.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(PACE, ended).await;
    }
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a connection was not closed in order");
    }
}
