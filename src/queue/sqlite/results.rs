//! Fetches the answers of jobs.

use bytes::Bytes;
use sqlx::{Connection, Row, SqliteConnection};
use uuid::Uuid;

use super::pieces::{self, Of};
use super::rows;
use crate::queue::job::{JobResult, State, StoredResult};

/// The result of a job that has not expired.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    id: Uuid,
    now_ms: i64,
) -> Result<Option<JobResult>, sqlx::Error> {
    let found = begun(&mut *connection, id, now_ms).await?;
    if !found.as_ref().is_some_and(Begun::may_go_on) {
        return Ok(found.map(|found| found.result));
    }
    // The pieces of a long body are read one by one, while none of them may be deleted.
    let mut unit = connection.begin().await?;
    let mut found = begun(&mut unit, id, now_ms).await?;
    if let Some(Begun { job, result }) = &mut found
        && let JobResult::Finished(stored) = result
    {
        let first = std::mem::take(&mut stored.body).into();
        stored.body = pieces::whole(&mut unit, Of::Result, *job, first).await?;
    }
    unit.commit().await?;
    Ok(found.map(|found| found.result))
}

/// A result with the first piece of its body.
struct Begun {
    job: i64,
    result: JobResult,
}

impl Begun {
    fn may_go_on(&self) -> bool {
        match &self.result {
            JobResult::Finished(stored) => pieces::may_go_on(&stored.body),
            JobResult::NotFinished => false,
        }
    }
}

async fn begun(
    connection: &mut SqliteConnection,
    id: Uuid,
    now_ms: i64,
) -> Result<Option<Begun>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT jobs.seq, jobs.state, results.status, results.headers, results.body
         FROM jobs LEFT JOIN results ON results.job = jobs.seq
         WHERE jobs.id = $1 AND (jobs.expires_ms IS NULL OR jobs.expires_ms > $2)",
    )
    .bind(id.to_string())
    .bind(now_ms)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let job = row.try_get("seq")?;
        if rows::state(&row)? != State::Done {
            let result = JobResult::NotFinished;
            return Ok(Begun { job, result });
        }
        let result = JobResult::Finished(StoredResult {
            status: rows::status(&row)?,
            headers: rows::headers(&row)?,
            body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        });
        Ok(Begun { job, result })
    })
    .transpose()
}
