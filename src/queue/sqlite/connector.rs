//! Connections to the file, and what each kind is set to.
//!
//! Connections are thrown away after a fault, so every one is made here, with the same settings.

use std::path::Path;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqlitePool};

use super::checkpoint;

/// Connections that read. A status call takes well under a millisecond.
const READERS: u32 = 2;

/// Bytes at which the write-ahead log is cut back once its content has gone into the file.
const LOG_BYTES: &str = "67108864";

/// See the module's header.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    writable: SqliteConnectOptions,
    readable: SqliteConnectOptions,
}

impl Connector {
    /// Connects to a file, which must be there.
    pub(super) fn new(file: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .disable_statement_logging();
        let writable = options
            .clone()
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("wal_autocheckpoint", checkpoint::BACKSTOP_PAGES)
            .foreign_keys(true);
        Self {
            writable,
            readable: options.read_only(true),
        }
    }

    /// A connection that may write.
    pub(super) async fn writable(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.writable.connect().await
    }

    /// The connections that read.
    pub(super) async fn readers(&self) -> Result<SqlitePool, sqlx::Error> {
        let pool = SqlitePoolOptions::new().max_connections(READERS);
        pool.connect_with(self.readable.clone()).await
    }
}
