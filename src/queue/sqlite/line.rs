//! Changes to the line: out of it to an owner, and back. The way in is in [`super::submissions`].

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::change::{Change, Unit};
use super::pieces::{self, Of};
use super::positions::Place;
use super::rows::{self, Invalid};
use crate::queue::answerer::JobRequest;
use crate::queue::store::{Attempt, Claim, Claimed, ClaimedJob, PutBack, Renew, Renewed, Which};

// With several writers, as another database has them, the inner SELECT ends in FOR UPDATE SKIP LOCKED.
const CLAIM_NEXT: &str = "
    UPDATE jobs SET state = 'running', owner = $1, lease_until_ms = $2, starts = starts + 1
    WHERE seq = (SELECT seq FROM jobs
                 WHERE state = 'waiting' AND not_before_ms <= $3
                 ORDER BY priority, seq LIMIT 1)
    RETURNING seq, id, endpoint, start_by_ms, starts, may_retry, failures, cancel_requested, log,
              priority";

const CLAIM_OVERDUE: &str = "
    UPDATE jobs SET state = 'running', owner = $1, lease_until_ms = $2, starts = starts + 1
    WHERE seq = (SELECT seq FROM jobs
                 WHERE state = 'waiting' AND start_by_ms < $3 AND starts = 0
                 ORDER BY start_by_ms, seq LIMIT 1)
    RETURNING seq, id, endpoint, start_by_ms, starts, may_retry, failures, cancel_requested, log,
              priority";

impl Change for Claim {
    type Outcome = Claimed;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Claimed, sqlx::Error> {
        let statement = match self.which {
            Which::Next => CLAIM_NEXT,
            Which::Overdue => CLAIM_OVERDUE,
        };
        let claimed = sqlx::query(statement)
            .bind(self.owner.to_string())
            .bind(self.lease_until_ms)
            .bind(self.now_ms)
            .fetch_optional(&mut *unit.connection)
            .await?;
        let Some(row) = claimed else {
            let next_due_ms = sqlx::query_scalar(
                "SELECT MIN(not_before_ms) FROM jobs WHERE state = 'waiting' AND not_before_ms > $1",
            )
            .bind(self.now_ms)
            .fetch_one(&mut *unit.connection)
            .await?;
            return Ok(Claimed::Nothing { next_due_ms });
        };
        unit.moves.leave(Place::of(&row)?);
        let seq: i64 = row.try_get("seq")?;
        let request =
            sqlx::query("SELECT content_type, base, lifecycle, body FROM requests WHERE job = $1")
                .bind(seq)
                .fetch_one(&mut *unit.connection)
                .await?;
        let mut job = claimed_job(self.owner, &row, &request)?;
        let first = request.try_get("body")?;
        drop(request);
        job.request.body = pieces::whole(unit.connection, Of::Request, seq, first).await?;
        Ok(Claimed::Job(Box::new(job)))
    }
}

/// Everything of a job but its body.
fn claimed_job(
    owner: Uuid,
    job: &SqliteRow,
    request: &SqliteRow,
) -> Result<ClaimedJob, sqlx::Error> {
    let id = rows::id(job)?;
    let starts = rows::small(job, "starts")?;
    let start_by_ms: Option<i64> = job.try_get("start_by_ms")?;
    Ok(ClaimedJob {
        attempt: Attempt {
            id,
            owner,
            number: starts,
        },
        request: JobRequest {
            id,
            endpoint: job.try_get("endpoint")?,
            content_type: request.try_get("content_type")?,
            body: Bytes::new(),
            base: request.try_get("base")?,
            lifecycle: request.try_get("lifecycle")?,
            earlier_attempts: starts.saturating_sub(1),
        },
        start_by_ms: start_by_ms.filter(|_| starts == 1),
        may_retry: job.try_get("may_retry")?,
        failures: rows::small(job, "failures")?,
        cancel_requested: job.try_get("cancel_requested")?,
        log: rows::log(job)?,
    })
}

impl Change for PutBack {
    type Outcome = bool;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<bool, sqlx::Error> {
        let log = serde_json::to_string(&self.log).map_err(Invalid::from)?;
        let back = sqlx::query(
            "UPDATE jobs SET state = 'waiting', owner = NULL, lease_until_ms = NULL,
                             not_before_ms = $4, failures = failures + $5, log = $6
             WHERE id = $1 AND owner = $2 AND starts = $3 AND state = 'running'
             RETURNING endpoint, priority, seq",
        )
        .bind(self.attempt.id.to_string())
        .bind(self.attempt.owner.to_string())
        .bind(self.attempt.number)
        .bind(self.not_before_ms)
        .bind(i64::from(self.failed))
        .bind(log)
        .fetch_optional(&mut *unit.connection)
        .await?;
        let Some(row) = back else {
            return Ok(false);
        };
        unit.moves.enter(Place::of(&row)?);
        Ok(true)
    }
}

impl Change for Renew {
    type Outcome = Renewed;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Renewed, sqlx::Error> {
        let mut renewed = Renewed::default();
        for attempt in &self.attempts {
            let is_unwanted: Option<bool> = sqlx::query_scalar(
                "UPDATE jobs SET lease_until_ms = $4
                 WHERE id = $1 AND owner = $2 AND starts = $3 AND state = 'running'
                 RETURNING cancel_requested",
            )
            .bind(attempt.id.to_string())
            .bind(attempt.owner.to_string())
            .bind(attempt.number)
            .bind(self.lease_until_ms)
            .fetch_optional(&mut *unit.connection)
            .await?;
            match is_unwanted {
                Some(true) => renewed.unwanted.push(attempt.id),
                Some(false) => {}
                None => renewed.lost.push(*attempt),
            }
        }
        Ok(renewed)
    }
}
