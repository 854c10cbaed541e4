//! Looks at what is stored, on connections of their own, which never wait for the writer.

use sqlx::Row;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{SqlitePool, pool::PoolConnection};
use std::sync::Arc;
use uuid::Uuid;

use super::fault::fault;
use super::positions::{Place, SharedLines};
use super::results;
use super::rows;
use crate::queue::health::{Health, StoreWork};
use crate::queue::job::{Counts, JobResult, State};
use crate::queue::store::{HeldWork, StoreError, StoredStatus};
use crate::queue::timeline::KeptTime;

/// The connections that read.
pub(super) struct Reads {
    pool: SqlitePool,
    lines: SharedLines,
    health: Arc<Health>,
}

impl Reads {
    pub(super) fn new(pool: SqlitePool, lines: SharedLines, health: Arc<Health>) -> Self {
        Self {
            pool,
            lines,
            health,
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn status(
        &self,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<StoredStatus>, StoreError> {
        let query = sqlx::query(
            "SELECT endpoint, priority, suspect, crashes, seq, state, inference_us, error, error_type,
                    log
             FROM jobs WHERE id = $1 AND (expires_ms IS NULL OR expires_ms > $2)",
        )
        .bind(id.to_string())
        .bind(now_ms);
        let mut connection = self.connection().await?;
        let row = query.fetch_optional(&mut *connection).await;
        let row = self.judge(connection, row)?;
        Ok(row.map(|row| self.status_of(&row)).transpose()?)
    }

    pub(super) async fn result(
        &self,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<JobResult>, StoreError> {
        let mut connection = self.connection().await?;
        let found = results::read(&mut connection, id, now_ms).await;
        self.judge(connection, found)
    }

    pub(super) async fn counts(&self) -> Result<Counts, StoreError> {
        let query = sqlx::query("SELECT COUNT(*) AS running FROM jobs WHERE state = 'running'");
        let mut connection = self.connection().await?;
        let row = query.fetch_one(&mut *connection).await;
        let row = self.judge(connection, row)?;
        Ok(Counts {
            waiting: self.lines.lock().total(),
            running: rows::count(&row, "running")?,
        })
    }

    /// Whose places held work waits for.
    pub(super) async fn held(&self) -> Result<HeldWork, StoreError> {
        let sources = "SELECT DISTINCT held FROM jobs
             WHERE state = 'waiting' AND suspect = FALSE AND held IS NOT NULL";
        let receivers = "SELECT DISTINCT held FROM deliveries
             WHERE state = 'pending' AND owner IS NULL AND held IS NOT NULL";
        Ok(HeldWork {
            sources: self.texts(sources).await?,
            receivers: self.texts(receivers).await?,
        })
    }

    async fn texts(&self, query: &'static str) -> Result<Vec<String>, StoreError> {
        let mut connection = self.connection().await?;
        let found = sqlx::query_scalar(query).fetch_all(&mut *connection).await;
        self.judge(connection, found)
    }

    /// The noted time.
    pub(super) async fn time(&self) -> Result<KeptTime, StoreError> {
        let query = sqlx::query("SELECT high_ms, ahead_ms, is_open FROM noted_time");
        let mut connection = self.connection().await?;
        let row = query.fetch_optional(&mut *connection).await;
        let row = self.judge(connection, row)?;
        let time = row.map(|row| time(&row)).transpose()?;
        Ok(time.unwrap_or_default())
    }

    async fn connection(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        let acquired = self.pool.acquire().await;
        acquired
            .inspect_err(|error| self.note(error))
            .map_err(Into::into)
    }

    /// Throws a connection away that failed, so that the next look opens a new one.
    fn judge<T>(
        &self,
        mut connection: PoolConnection<Sqlite>,
        result: Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        result
            .inspect_err(|error| {
                self.note(error);
                if fault(error).is_some() {
                    connection.close_on_drop();
                }
            })
            .map_err(Into::into)
    }

    fn status_of(&self, row: &SqliteRow) -> Result<StoredStatus, sqlx::Error> {
        let state = rows::state(row)?;
        let place = Place::of(row)?;
        // A moment younger than the row: whoever left meanwhile is not counted.
        let ahead = match state {
            State::Waiting => self.lines.lock().ahead(&place),
            State::Running | State::Done => 0,
        };
        Ok(StoredStatus {
            endpoint: place.endpoint,
            state,
            ahead,
            inference_us: row.try_get("inference_us")?,
            error: rows::error(row)?,
            log: rows::log(row)?,
        })
    }

    fn note(&self, error: &sqlx::Error) {
        if fault(error).is_some() {
            self.health.count(StoreWork::Read);
        }
    }
}

fn time(row: &SqliteRow) -> Result<KeptTime, sqlx::Error> {
    Ok(KeptTime {
        high_ms: row.try_get("high_ms")?,
        ahead_ms: row.try_get("ahead_ms")?,
        is_open: row.try_get("is_open")?,
    })
}
