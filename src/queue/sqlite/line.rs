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
                       cancel_requested, log, priority, suspect, crashes"
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
     ORDER BY crashes, seq LIMIT 1"
);

const REQUEST: &str = "SELECT content_type, base, lifecycle, body FROM requests WHERE job = $1";

/// Without the body, which nobody will read: an empty first piece has none behind it.
const REQUEST_OF_REFUSED: &str =
    "SELECT content_type, base, lifecycle, x'' AS body FROM requests WHERE job = $1";

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
        unit.moves.leave(Place::of(&row)?);
        let seq: i64 = row.try_get("seq")?;
        let request = if self.which == Which::Overdue {
            REQUEST_OF_REFUSED
        } else {
            REQUEST
        };
        let request = sqlx::query(request)
            .bind(seq)
            .fetch_one(&mut *unit.connection)
            .await?;
        let mut job = claimed_job(self.owner, &row, &request)?;
        let first: Vec<u8> = request.try_get("body")?;
        drop(request);
        job.request.body = pieces::whole(unit.connection, Of::Request, seq, first).await?;
        Ok(Claimed::Job(Box::new(job)))
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

/// Everything of a job but its body.
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
            body: Bytes::new(),
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
        let log = serde_json::to_string(&self.log).map_err(Invalid::from)?;
        let back = sqlx::query(
            "UPDATE jobs SET state = 'waiting', owner = NULL, lease_until_ms = NULL,
                             not_before_ms = $4, failures = failures + $5, log = $6, held = $7,
                             start_by_ms = CASE WHEN $8 THEN NULL ELSE start_by_ms END
             WHERE id = $1 AND owner = $2 AND starts = $3 AND state = 'running'
             RETURNING endpoint, priority, suspect, crashes, seq",
        )
        .bind(self.attempt.id.to_string())
        .bind(self.attempt.owner.to_string())
        .bind(self.attempt.number)
        .bind(self.not_before_ms)
        .bind(i64::from(self.failed))
        .bind(log)
        .bind(&self.held)
        .bind(self.has_begun)
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
