//! Jobs in a SQLite file: the durable [`JobStore`], without a server of its own.
//!
//! A write-ahead log with full sync: what was committed survives a power cut. One connection writes
//! ([`writer`]), one tidies up ([`checkpoint`]), two read, and readers never wait for the writer. The statements are such that
//! Postgres takes them too; what is SQLite's own stands in this file, in [`writer`], and where space
//! is given back.
//!
//! The file can be looked into with any SQLite client while the server runs.

mod checkpoint;
mod deliveries;
mod ends;
mod line;
mod rows;
#[cfg(test)]
mod tests;
mod time;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, SqlSafeStr, SqlitePool};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::data_dir::for_owner_only;
use super::job::{CancelOutcome, Counts, JobResult, State, StoredResult};
use super::store::{
    Admission, Claim, ClaimDelivery, Claimed, ClaimedDelivery, Completion, Finish, HeldWork,
    JobStore, PutBack, Recover, Recovered, Renew, Renewed, Reply, Settle, StoreError, StoredStatus,
    Submission,
};
use super::timeline::KeptTime;
use writer::{Change, Writer};

/// The file in the data directory.
const FILE: &str = "queue.sqlite3";

/// Every change ever made to the tables, in order. A change that was released is never altered.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (1, "jobs", include_str!("migrations/0001_jobs.sql")),
    (2, "store", include_str!("migrations/0002_store.sql")),
    (3, "recovery", include_str!("migrations/0003_recovery.sql")),
];

/// Connections that read. A status call takes well under a millisecond.
const READERS: u32 = 2;

/// Bytes at which the write-ahead log is cut back once its content has gone into the file.
const LOG_BYTES: &str = "67108864";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// See the module's header.
pub(super) struct SqliteStore {
    writer: Mutex<Option<Writer>>,
    /// The writer and the keeper of its log. They end by themselves when the writer is dropped.
    tasks: Mutex<JoinSet<()>>,
    readers: SqlitePool,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file in a directory, makes it where it is missing, and brings its tables up to date.
    pub(super) async fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        // SQLite gives the files that it puts beside this one the same permissions.
        for_owner_only()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| StoreError(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .disable_statement_logging();
        let writable = options
            .clone()
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("wal_autocheckpoint", checkpoint::BACKSTOP_PAGES)
            .foreign_keys(true);
        let mut connection = writable.connect().await?;
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            let kind = MigrationType::Simple;
            Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
        });
        Migrator::with_migrations(migrations.to_vec())
            .run(&mut connection)
            .await
            .map_err(|error| StoreError(error.to_string()))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await?;
        let (writer, work, committed) = Writer::new(connection);
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        let connection = writable.connect().await?;
        tasks.spawn(checkpoint::keep_log_short(connection, committed));
        Ok(Self {
            writer: Mutex::new(Some(writer)),
            tasks: Mutex::new(tasks),
            readers,
        })
    }

    fn make<C: Change>(&self, change: C) -> Reply<'_, C::Outcome> {
        let writer = lock(&self.writer).clone();
        Box::pin(async move {
            let writer = writer.ok_or_else(|| StoreError("it is closed".into()))?;
            writer.make(change).await
        })
    }

    async fn read_status(
        &self,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<StoredStatus>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT endpoint, state, inference_us, error, error_type, log,
                    CASE WHEN state <> 'waiting' THEN 0 WHEN suspect THEN
                        (SELECT COUNT(*) FROM jobs AS other
                         WHERE other.state = 'waiting' AND other.endpoint = jobs.endpoint
                           AND (other.suspect = FALSE
                                OR (other.crashes, other.priority, other.seq)
                                   < (jobs.crashes, jobs.priority, jobs.seq)))
                    ELSE
                        (SELECT COUNT(*) FROM jobs AS other
                         WHERE other.state = 'waiting' AND other.endpoint = jobs.endpoint
                           AND other.suspect = FALSE
                           AND (other.priority, other.seq) < (jobs.priority, jobs.seq))
                    END AS ahead
             FROM jobs WHERE id = $1 AND (expires_ms IS NULL OR expires_ms > $2)",
        )
        .bind(id.to_string())
        .bind(now_ms)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            Ok(StoredStatus {
                endpoint: row.try_get("endpoint")?,
                state: rows::state(&row)?,
                ahead: rows::count(&row, "ahead")?,
                inference_us: row.try_get("inference_us")?,
                error: rows::error(&row)?,
                log: rows::log(&row)?,
            })
        })
        .transpose()
    }

    async fn read_result(&self, id: Uuid, now_ms: i64) -> Result<Option<JobResult>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT jobs.state, results.status, results.headers, results.body
             FROM jobs LEFT JOIN results ON results.job = jobs.seq
             WHERE jobs.id = $1 AND (jobs.expires_ms IS NULL OR jobs.expires_ms > $2)",
        )
        .bind(id.to_string())
        .bind(now_ms)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            if rows::state(&row)? != State::Done {
                return Ok(JobResult::NotFinished);
            }
            Ok(JobResult::Finished(StoredResult {
                status: rows::status(&row)?,
                headers: rows::headers(&row)?,
                body: row.try_get::<Vec<u8>, _>("body")?.into(),
            }))
        })
        .transpose()
    }

    /// Whose places work is held for.
    async fn read_held(&self) -> Result<HeldWork, sqlx::Error> {
        let of_jobs = "SELECT DISTINCT held FROM jobs
             WHERE state = 'waiting' AND suspect = FALSE AND held IS NOT NULL";
        let of_deliveries = "SELECT DISTINCT held FROM deliveries
             WHERE state = 'pending' AND owner IS NULL AND held IS NOT NULL";
        Ok(HeldWork {
            sources: sqlx::query_scalar(of_jobs).fetch_all(&self.readers).await?,
            receivers: sqlx::query_scalar(of_deliveries)
                .fetch_all(&self.readers)
                .await?,
        })
    }

    async fn read_counts(&self) -> Result<Counts, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'waiting') AS waiting,
                    (SELECT COUNT(*) FROM jobs WHERE state = 'running') AS running",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(Counts {
            waiting: rows::count(&row, "waiting")?,
            running: rows::count(&row, "running")?,
        })
    }

    async fn finish_writing(&self) {
        drop(lock(&self.writer).take());
        self.readers.close().await;
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        // They end when the last change is made; a panic in them was reported by its callers.
        while tasks.join_next().await.is_some() {}
    }
}

impl JobStore for SqliteStore {
    fn submit(&self, new: Submission) -> Reply<'_, Admission> {
        self.make(new)
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
        Box::pin(async move { Ok(self.read_status(id, now_ms).await?) })
    }

    fn result(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<JobResult>> {
        Box::pin(async move { Ok(self.read_result(id, now_ms).await?) })
    }

    fn counts(&self) -> Reply<'_, Counts> {
        Box::pin(async move { Ok(self.read_counts().await?) })
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
        Box::pin(async move { Ok(self.read_held().await?) })
    }

    fn time(&self) -> Reply<'_, KeptTime> {
        Box::pin(async move { Ok(time::read(&self.readers).await?) })
    }

    fn note_time(&self, time: KeptTime) -> Reply<'_, ()> {
        self.make(time)
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
