//! Changes to the line: into it, out of it to an owner, and back.

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::pieces::{self, Of};
use super::rows::{self, Invalid};
use super::writer::{Change, Unit};
use crate::queue::answerer::JobRequest;
use crate::queue::job::Priority;
use crate::queue::store::{Admission, Claim, Claimed, ClaimedJob, PutBack, Submission, Which};

impl Change for Submission {
    type Outcome = Admission;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Admission, sqlx::Error> {
        let job = &self.job;
        let [normal, low] = waiting(unit, &job.endpoint).await?;
        let all = normal + low;
        if job.max_queue_length.is_some_and(|max| all > max) {
            return Ok(Admission::Full { waiting: all });
        }
        let (priority, position, after) = match job.priority {
            Priority::Normal => (0, normal, [normal + 1, low]),
            Priority::Low => (1, all, [normal, low + 1]),
        };
        let seq: i64 = sqlx::query_scalar(
            "INSERT INTO jobs (id, endpoint, priority, state, created_ms, not_before_ms, start_by_ms,
                               may_retry, keep_payload, webhook)
             VALUES ($1, $2, $3, 'waiting', $4, $4, $5, $6, $7, $8)
             RETURNING seq",
        )
        .bind(self.id.to_string())
        .bind(&job.endpoint)
        .bind(priority)
        .bind(self.now_ms)
        .bind(job.start_by_ms)
        .bind(job.may_retry)
        .bind(job.keep_payload)
        .bind(&job.webhook)
        .fetch_one(&mut *unit.connection)
        .await?;
        sqlx::query(
            "INSERT INTO requests (job, content_type, base, lifecycle, body)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(seq)
        .bind(&job.content_type)
        .bind(&job.base)
        .bind(&job.lifecycle)
        .bind(pieces::first(&job.body))
        .execute(&mut *unit.connection)
        .await?;
        pieces::store_rest(unit.connection, Of::Request, seq, &job.body).await?;
        unit.lines.insert(job.endpoint.clone(), after);
        Ok(Admission::Accepted { position })
    }
}

/// Jobs that wait for an endpoint: normal ones and low ones.
async fn waiting(unit: &mut Unit<'_>, endpoint: &str) -> Result<[u64; 2], sqlx::Error> {
    if let Some(counted) = unit.lines.get(endpoint) {
        return Ok(*counted);
    }
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM jobs
                 WHERE state = 'waiting' AND endpoint = $1 AND priority = 0) AS normal,
                (SELECT COUNT(*) FROM jobs
                 WHERE state = 'waiting' AND endpoint = $1 AND priority = 1) AS low",
    )
    .bind(endpoint)
    .fetch_one(&mut *unit.connection)
    .await?;
    Ok([rows::count(&row, "normal")?, rows::count(&row, "low")?])
}

// With several writers, as another database has them, the inner SELECT ends in FOR UPDATE SKIP LOCKED.
const CLAIM_NEXT: &str = "
    UPDATE jobs SET state = 'running', owner = $1, lease_until_ms = $2, starts = starts + 1
    WHERE seq = (SELECT seq FROM jobs
                 WHERE state = 'waiting' AND not_before_ms <= $3
                 ORDER BY priority, seq LIMIT 1)
    RETURNING seq, id, endpoint, start_by_ms, starts, may_retry, failures, cancel_requested, log";

const CLAIM_OVERDUE: &str = "
    UPDATE jobs SET state = 'running', owner = $1, lease_until_ms = $2, starts = starts + 1
    WHERE seq = (SELECT seq FROM jobs
                 WHERE state = 'waiting' AND start_by_ms < $3 AND starts = 0
                 ORDER BY start_by_ms, seq LIMIT 1)
    RETURNING seq, id, endpoint, start_by_ms, starts, may_retry, failures, cancel_requested, log";

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
        unit.lines.clear();
        let seq: i64 = row.try_get("seq")?;
        let request =
            sqlx::query("SELECT content_type, base, lifecycle, body FROM requests WHERE job = $1")
                .bind(seq)
                .fetch_one(&mut *unit.connection)
                .await?;
        let mut job = claimed_job(&row, &request)?;
        let first = request.try_get("body")?;
        drop(request);
        job.request.body = pieces::whole(unit.connection, Of::Request, seq, first).await?;
        Ok(Claimed::Job(Box::new(job)))
    }
}

/// Everything of a job but its body.
fn claimed_job(job: &SqliteRow, request: &SqliteRow) -> Result<ClaimedJob, sqlx::Error> {
    let starts = rows::small(job, "starts")?;
    let start_by_ms: Option<i64> = job.try_get("start_by_ms")?;
    Ok(ClaimedJob {
        request: JobRequest {
            id: rows::id(job)?,
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
        unit.lines.clear();
        let log = serde_json::to_string(&self.log).map_err(Invalid::from)?;
        let done = sqlx::query(
            "UPDATE jobs SET state = 'waiting', owner = NULL, lease_until_ms = NULL,
                             not_before_ms = $3, failures = failures + $4, log = $5
             WHERE id = $1 AND owner = $2 AND state = 'running'",
        )
        .bind(self.id.to_string())
        .bind(self.owner.to_string())
        .bind(self.not_before_ms)
        .bind(i64::from(self.failed))
        .bind(log)
        .execute(&mut *unit.connection)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}

/// Prolongs the leases of an owner's jobs.
pub(super) struct Renew {
    pub(super) owner: Uuid,
    pub(super) lease_until_ms: i64,
}

impl Change for Renew {
    type Outcome = Vec<Uuid>;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Vec<Uuid>, sqlx::Error> {
        let renewed = sqlx::query(
            "UPDATE jobs SET lease_until_ms = $2 WHERE state = 'running' AND owner = $1
             RETURNING id, cancel_requested",
        )
        .bind(self.owner.to_string())
        .bind(self.lease_until_ms)
        .fetch_all(&mut *unit.connection)
        .await?;
        let mut unwanted = Vec::new();
        for row in renewed {
            if row.try_get("cancel_requested")? {
                unwanted.push(rows::id(&row)?);
            }
        }
        Ok(unwanted)
    }
}
