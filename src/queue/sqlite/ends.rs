//! The ways in which a job ends, and how it is forgotten.
//!
//! Whatever ends a job stores its result, frees its request and notes whom to tell, in the same
//! transaction as the change of its state.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::change::{Change, Unit};
use super::pieces::{self, Of};
use super::positions::Place;
use super::rows::{self, Invalid};
use crate::queue::job::CancelOutcome;
use crate::queue::store::{Completion, Finish, Recover, Recovered};

/// Pages of the file that stay free for the next jobs: 16 MiB. Giving them back would only make the
/// file shrink and grow.
const SPARE_PAGES: i64 = 4096;

impl Change for Finish {
    type Outcome = bool;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<bool, sqlx::Error> {
        let log = serde_json::to_string(&self.log).map_err(Invalid::from)?;
        let error = self.completion.answer.error.as_ref();
        let job = sqlx::query(
            "UPDATE jobs SET state = 'done', owner = NULL, lease_until_ms = NULL,
                             finished_ms = $4, expires_ms = $5, error = $6, error_type = $7,
                             inference_us = $8, log = $9
             WHERE id = $1 AND owner = $2 AND starts = $3 AND state = 'running'
             RETURNING seq, webhook, keep_payload",
        )
        .bind(self.attempt.id.to_string())
        .bind(self.attempt.owner.to_string())
        .bind(self.attempt.number)
        .bind(self.completion.now_ms)
        .bind(self.completion.expires_ms)
        .bind(error.map(|error| error.message.as_str()))
        .bind(error.map(|error| error.error_type.as_str()))
        .bind(self.inference_us)
        .bind(log)
        .fetch_optional(&mut *unit.connection)
        .await?;
        match job {
            Some(job) => {
                complete(unit.connection, &job, &self.completion).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// Stores what belongs to the end of a job; its own row has changed already.
async fn complete(
    connection: &mut SqliteConnection,
    job: &SqliteRow,
    completion: &Completion,
) -> Result<(), sqlx::Error> {
    let seq: i64 = job.try_get("seq")?;
    let answer = &completion.answer;
    let headers = serde_json::to_string(&answer.headers).map_err(Invalid::from)?;
    let may_keep: bool = job.try_get("keep_payload")?;
    // Sent as one, because each statement that is sent costs two switches of threads.
    sqlx::query(
        "INSERT INTO results (job, status, headers, body) VALUES ($1, $2, $3, $4);
         DELETE FROM requests WHERE job = $1 AND NOT $5;
         INSERT INTO deliveries (job, url, state, due_ms)
             SELECT $1, $6, 'pending', $7 WHERE $6 IS NOT NULL",
    )
    .bind(seq)
    .bind(answer.status)
    .bind(headers)
    .bind(pieces::first(&answer.body))
    .bind(may_keep && completion.keeps_request)
    .bind(job.try_get::<Option<String>, _>("webhook")?)
    .bind(completion.now_ms)
    .execute(&mut *connection)
    .await?;
    pieces::store_rest(connection, Of::Result, seq, &answer.body).await
}

/// Cancels a job.
pub(super) struct Cancel {
    pub(super) id: Uuid,
    pub(super) completion: Completion,
}

impl Change for Cancel {
    type Outcome = CancelOutcome;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<CancelOutcome, sqlx::Error> {
        let error = self.completion.answer.error.as_ref();
        let waiting = sqlx::query(
            "UPDATE jobs SET state = 'done', finished_ms = $2, expires_ms = $3,
                             error = $4, error_type = $5
             WHERE id = $1 AND state = 'waiting'
             RETURNING seq, endpoint, priority, suspect, crashes, webhook, keep_payload",
        )
        .bind(self.id.to_string())
        .bind(self.completion.now_ms)
        .bind(self.completion.expires_ms)
        .bind(error.map(|error| error.message.as_str()))
        .bind(error.map(|error| error.error_type.as_str()))
        .fetch_optional(&mut *unit.connection)
        .await?;
        if let Some(job) = waiting {
            unit.moves.leave(Place::of(&job)?);
            complete(unit.connection, &job, &self.completion).await?;
            return Ok(CancelOutcome::Requested);
        }
        let running = sqlx::query(
            "UPDATE jobs SET cancel_requested = TRUE WHERE id = $1 AND state = 'running'",
        )
        .bind(self.id.to_string())
        .execute(&mut *unit.connection)
        .await?;
        if running.rows_affected() > 0 {
            return Ok(CancelOutcome::Requested);
        }
        let done = sqlx::query("SELECT seq FROM jobs WHERE id = $1 AND expires_ms > $2")
            .bind(self.id.to_string())
            .bind(self.completion.now_ms)
            .fetch_optional(&mut *unit.connection)
            .await?;
        Ok(match done {
            Some(_) => CancelOutcome::AlreadyCompleted,
            None => CancelOutcome::NotFound,
        })
    }
}

impl Change for Recover {
    type Outcome = Recovered;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<Recovered, sqlx::Error> {
        let owner = self.owner.to_string();
        sqlx::query(
            "UPDATE deliveries SET owner = NULL, lease_until_ms = NULL
             WHERE owner IS NOT NULL AND owner <> $1 AND lease_until_ms <= $2",
        )
        .bind(&owner)
        .bind(self.lease_before_ms)
        .execute(&mut *unit.connection)
        .await?;
        let orphans = sqlx::query(
            "SELECT seq, id, crashes, cancel_requested, webhook, keep_payload,
                    COUNT(*) OVER (PARTITION BY owner) = 1 AS was_alone
             FROM jobs WHERE state = 'running' AND owner <> $1 AND lease_until_ms <= $2
             ORDER BY seq",
        )
        .bind(&owner)
        .bind(self.lease_before_ms)
        .fetch_all(&mut *unit.connection)
        .await?;
        if self.died && orphans.is_empty() {
            forgive(unit).await?;
        }
        let mut recovered = Recovered::default();
        for orphan in orphans {
            let was_alone: bool = orphan.try_get("was_alone")?;
            let crashes =
                rows::small(&orphan, "crashes")?.saturating_add(u32::from(was_alone && self.died));
            let end = if orphan.try_get("cancel_requested")? {
                Some(&self.cancelled)
            } else {
                (was_alone && self.died && crashes >= self.max_crashes).then_some(&self.poisoned)
            };
            let place = bury_or_put_back(unit.connection, &orphan, crashes, end).await?;
            if end.is_some() {
                recovered.done.push(rows::id(&orphan)?);
            } else {
                unit.moves.enter(place);
                recovered.back += 1;
            }
        }
        let suspects: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM jobs WHERE state = 'waiting' AND suspect = TRUE",
        )
        .fetch_one(&mut *unit.connection)
        .await?;
        recovered.suspects = suspects.unsigned_abs();
        Ok(recovered)
    }
}

/// Clears the counts of all suspects: nothing ran when the process died, so the cause came from
/// outside, and may have been the same before.
async fn forgive(unit: &mut Unit<'_>) -> Result<(), sqlx::Error> {
    let counted = sqlx::query(
        "SELECT endpoint, priority, suspect, crashes, seq FROM jobs
         WHERE state = 'waiting' AND suspect = TRUE AND crashes > 0",
    )
    .fetch_all(&mut *unit.connection)
    .await?;
    for row in &counted {
        unit.moves.leave(Place::of(row)?);
    }
    let forgiven = sqlx::query(
        "UPDATE jobs SET crashes = 0 WHERE state = 'waiting' AND suspect = TRUE AND crashes > 0
         RETURNING endpoint, priority, suspect, crashes, seq",
    )
    .fetch_all(&mut *unit.connection)
    .await?;
    for row in &forgiven {
        unit.moves.enter(Place::of(row)?);
    }
    Ok(())
}

/// Ends an orphan, or puts it back in line under suspicion; gives the place that it has there.
async fn bury_or_put_back(
    connection: &mut SqliteConnection,
    orphan: &SqliteRow,
    crashes: u32,
    end: Option<&Completion>,
) -> Result<Place, sqlx::Error> {
    let error = end.and_then(|end| end.answer.error.as_ref());
    let row = sqlx::query(
        "UPDATE jobs SET state = $2, owner = NULL, lease_until_ms = NULL, start_by_ms = NULL,
                         suspect = TRUE, crashes = $7,
                         finished_ms = $3, expires_ms = $4, error = $5, error_type = $6
         WHERE seq = $1
         RETURNING endpoint, priority, suspect, crashes, seq",
    )
    .bind(orphan.try_get::<i64, _>("seq")?)
    .bind(if end.is_some() { "done" } else { "waiting" })
    .bind(end.map(|end| end.now_ms))
    .bind(end.map(|end| end.expires_ms))
    .bind(error.map(|error| error.message.as_str()))
    .bind(error.map(|error| error.error_type.as_str()))
    .bind(crashes)
    .fetch_one(&mut *connection)
    .await?;
    if let Some(end) = end {
        complete(connection, orphan, end).await?;
    }
    Place::of(&row)
}

/// Deletes expired jobs.
pub(super) struct Expire {
    pub(super) now_ms: i64,
    pub(super) limit: u32,
}

impl Change for Expire {
    type Outcome = bool;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<bool, sqlx::Error> {
        // What belongs to a job goes with it, by its foreign keys.
        let deleted = sqlx::query(
            "DELETE FROM jobs WHERE seq IN
                 (SELECT seq FROM jobs WHERE state = 'done' AND expires_ms <= $1
                  ORDER BY expires_ms LIMIT $2)",
        )
        .bind(self.now_ms)
        .bind(self.limit)
        .execute(&mut *unit.connection)
        .await?;
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut *unit.connection)
            .await?;
        if free > SPARE_PAGES {
            // 4 MiB at once: each page that moves is written, and others wait meanwhile.
            sqlx::query("PRAGMA incremental_vacuum(1024)")
                .execute(&mut *unit.connection)
                .await?;
        }
        Ok(deleted.rows_affected() >= u64::from(self.limit) || free > SPARE_PAGES)
    }
}
