//! Changes to the line: into it, out of it to an owner, and back.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::rows::{self, Invalid};
use super::writer::{Change, Unit};
use crate::queue::answerer::JobRequest;
use crate::queue::job::Priority;
use crate::queue::store::{
    Admission, Attempt, Claim, Claimed, ClaimedJob, PutBack, Renew, Renewed, Submission, Which,
};

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
        .bind(job.body.as_ref())
        .execute(&mut *unit.connection)
        .await?;
        unit.lines.insert(job.endpoint.clone(), after);
        Ok(Admission::Accepted { position })
    }
}

/// Jobs that wait for an endpoint, normal ones and low ones; not those under suspicion, which wait
/// behind them all.
async fn waiting(unit: &mut Unit<'_>, endpoint: &str) -> Result<[u64; 2], sqlx::Error> {
    if let Some(counted) = unit.lines.get(endpoint) {
        return Ok(*counted);
    }
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM jobs
                 WHERE state = 'waiting' AND endpoint = $1 AND suspect = FALSE
                   AND priority = 0) AS normal,
                (SELECT COUNT(*) FROM jobs
                 WHERE state = 'waiting' AND endpoint = $1 AND suspect = FALSE
                   AND priority = 1) AS low",
    )
    .bind(endpoint)
    .fetch_one(&mut *unit.connection)
    .await?;
    Ok([rows::count(&row, "normal")?, rows::count(&row, "low")?])
}

// With several writers, as another database has them, the choice ends in FOR UPDATE SKIP LOCKED.
macro_rules! claim {
    ($choice:literal) => {
        concat!(
            "UPDATE jobs SET state = 'running', owner = $1, lease_until_ms = $2,
                             starts = starts + 1, held = NULL
             WHERE seq = (",
            $choice,
            ")
             RETURNING seq, id, endpoint, start_by_ms, starts, may_retry, failures,
                       cancel_requested, log"
        )
    };
}

const CLAIM_NEXT: &str = claim!(
    "SELECT seq FROM jobs
     WHERE state = 'waiting' AND suspect = FALSE AND held IS NULL AND not_before_ms <= $3
     ORDER BY priority, seq LIMIT 1"
);

const CLAIM_NEXT_OR_HELD: &str = claim!(
    "SELECT seq FROM (
         SELECT * FROM (
             SELECT seq, priority FROM jobs
             WHERE state = 'waiting' AND suspect = FALSE AND held IS NULL AND not_before_ms <= $3
             ORDER BY priority, seq LIMIT 1)
         UNION ALL
         SELECT * FROM (
             SELECT seq, priority FROM jobs
             WHERE state = 'waiting' AND suspect = FALSE AND held = $4 AND not_before_ms <= $3
             ORDER BY priority, seq LIMIT 1)
     ) ORDER BY priority, seq LIMIT 1"
);

const CLAIM_OVERDUE: &str = claim!(
    "SELECT seq FROM jobs WHERE state = 'waiting' AND start_by_ms < $3
     ORDER BY start_by_ms, seq LIMIT 1"
);

const CLAIM_SUSPECT: &str = claim!(
    "SELECT seq FROM jobs
     WHERE state = 'waiting' AND suspect = TRUE AND crashes <= $4 AND not_before_ms <= $3
     ORDER BY crashes, priority, seq LIMIT 1"
);

const IS_ANY_DUE: &str = "
    SELECT EXISTS (SELECT 1 FROM jobs
                   WHERE state = 'waiting' AND suspect = FALSE AND held IS NULL
                     AND not_before_ms <= $1)";

const NEXT_DUE: &str = "
    SELECT MIN(not_before_ms) FROM jobs
    WHERE state = 'waiting' AND suspect = FALSE AND held IS NULL AND not_before_ms > $1";

const NEXT_SUSPECT_DUE: &str = "
    SELECT MIN(MAX(not_before_ms, $1)) FROM jobs WHERE state = 'waiting' AND suspect = TRUE";

impl Change for Claim {
    type Outcome = Claimed;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Claimed, sqlx::Error> {
        let statement = match (self.which, &self.source) {
            (Which::Next, None) => CLAIM_NEXT,
            (Which::Next, Some(_)) => CLAIM_NEXT_OR_HELD,
            (Which::Overdue, _) => CLAIM_OVERDUE,
            (Which::Suspect { .. }, _) => CLAIM_SUSPECT,
        };
        let claiming = sqlx::query(statement)
            .bind(self.owner.to_string())
            .bind(self.lease_until_ms)
            .bind(self.now_ms);
        let claiming = match (self.which, &self.source) {
            (Which::Suspect { most_crashes, .. }, _) => claiming.bind(most_crashes),
            (Which::Next, Some(source)) => claiming.bind(source),
            (Which::Next | Which::Overdue, _) => claiming,
        };
        let claimed = if self.must_wait(unit).await? {
            None
        } else {
            claiming.fetch_optional(&mut *unit.connection).await?
        };
        let Some(row) = claimed else {
            let next_due = match self.which {
                Which::Next | Which::Overdue => NEXT_DUE,
                Which::Suspect { .. } => NEXT_SUSPECT_DUE,
            };
            let next_due_ms = sqlx::query_scalar(next_due)
                .bind(self.now_ms)
                .fetch_one(&mut *unit.connection)
                .await?;
            return Ok(Claimed::Nothing { next_due_ms });
        };
        unit.lines.clear();
        let request =
            sqlx::query("SELECT content_type, base, lifecycle, body FROM requests WHERE job = $1")
                .bind(row.try_get::<i64, _>("seq")?)
                .fetch_one(&mut *unit.connection)
                .await?;
        claimed_job(self.owner, &row, &request).map(|job| Claimed::Job(Box::new(job)))
    }
}

impl Claim {
    /// Whether a job under suspicion has to wait for others.
    async fn must_wait(&self, unit: &mut Unit<'_>) -> Result<bool, sqlx::Error> {
        let Which::Suspect {
            goes_last: true, ..
        } = self.which
        else {
            return Ok(false);
        };
        sqlx::query_scalar(IS_ANY_DUE)
            .bind(self.now_ms)
            .fetch_one(&mut *unit.connection)
            .await
    }
}

fn claimed_job(
    owner: Uuid,
    job: &SqliteRow,
    request: &SqliteRow,
) -> Result<ClaimedJob, sqlx::Error> {
    let id = rows::id(job)?;
    let starts = rows::small(job, "starts")?;
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
            body: request.try_get::<Vec<u8>, _>("body")?.into(),
            base: request.try_get("base")?,
            lifecycle: request.try_get("lifecycle")?,
            earlier_attempts: starts.saturating_sub(1),
        },
        start_by_ms: job.try_get("start_by_ms")?,
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
                             not_before_ms = $4, failures = failures + $5, log = $6, held = $7,
                             start_by_ms = CASE WHEN $7 IS NULL THEN NULL ELSE start_by_ms END
             WHERE id = $1 AND owner = $2 AND starts = $3 AND state = 'running'",
        )
        .bind(self.attempt.id.to_string())
        .bind(self.attempt.owner.to_string())
        .bind(self.attempt.number)
        .bind(self.not_before_ms)
        .bind(i64::from(self.failed))
        .bind(log)
        .bind(&self.held)
        .execute(&mut *unit.connection)
        .await?;
        Ok(done.rows_affected() > 0)
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
