//! Changes to webhook deliveries: to an owner, and what came of the attempt.

use sqlx::Row;

use super::change::{Change, Unit};
use super::pieces::{self, Of};
use super::rows;
use crate::queue::store::{Attempt, ClaimDelivery, ClaimedDelivery, Delivery, Settle, Settled};

macro_rules! claim {
    ($choice:literal) => {
        concat!(
            "UPDATE deliveries SET owner = $1, lease_until_ms = $2, attempts = attempts + 1,
                                   held = NULL
             WHERE job = (",
            $choice,
            ") RETURNING job, url, attempts, holds"
        )
    };
}

const CLAIM_DUE: &str = claim!(
    "SELECT job FROM deliveries
     WHERE state = 'pending' AND owner IS NULL AND held IS NULL AND due_ms <= $3
     ORDER BY due_ms LIMIT 1"
);

const CLAIM_DUE_OR_HELD: &str = claim!(
    "SELECT job FROM (
         SELECT * FROM (
             SELECT job, due_ms FROM deliveries
             WHERE state = 'pending' AND owner IS NULL AND held IS NULL AND due_ms <= $3
             ORDER BY due_ms LIMIT 1)
         UNION ALL
         SELECT * FROM (
             SELECT job, due_ms FROM deliveries
             WHERE state = 'pending' AND owner IS NULL AND held = $4 AND due_ms <= $3
             ORDER BY due_ms LIMIT 1)
     ) ORDER BY due_ms LIMIT 1"
);

impl Change for ClaimDelivery {
    type Outcome = ClaimedDelivery;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<ClaimedDelivery, sqlx::Error> {
        let statement = match self.receiver {
            None => CLAIM_DUE,
            Some(_) => CLAIM_DUE_OR_HELD,
        };
        let claiming = sqlx::query(statement)
            .bind(self.owner.to_string())
            .bind(self.lease_until_ms)
            .bind(self.now_ms);
        let claiming = match &self.receiver {
            None => claiming,
            Some(receiver) => claiming.bind(receiver),
        };
        let claimed = claiming.fetch_optional(&mut *unit.connection).await?;
        let Some(row) = claimed else {
            let next_due_ms = sqlx::query_scalar(
                "SELECT MIN(due_ms) FROM deliveries
                 WHERE state = 'pending' AND owner IS NULL AND held IS NULL",
            )
            .fetch_one(&mut *unit.connection)
            .await?;
            return Ok(ClaimedDelivery::Nothing { next_due_ms });
        };
        let seq: i64 = row.try_get("job")?;
        let result = sqlx::query(
            "SELECT jobs.id, jobs.expires_ms, results.status, results.body
             FROM jobs JOIN results ON results.job = jobs.seq WHERE jobs.seq = $1",
        )
        .bind(seq)
        .fetch_one(&mut *unit.connection)
        .await?;
        let first = result.try_get("body")?;
        let body = pieces::whole(unit.connection, Of::Result, seq, first).await?;
        let attempts = rows::small(&row, "attempts")?;
        Ok(ClaimedDelivery::Due(Box::new(Delivery {
            attempt: Attempt {
                id: rows::id(&result)?,
                owner: self.owner,
                number: attempts,
            },
            url: row.try_get("url")?,
            earlier_attempts: attempts
                .saturating_sub(1)
                .saturating_sub(rows::small(&row, "holds")?),
            expires_ms: result.try_get("expires_ms")?,
            status: rows::status(&result)?,
            body,
        })))
    }
}

impl Change for Settle {
    type Outcome = bool;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<bool, sqlx::Error> {
        let (state, due_ms, reason, held) = match &self.outcome {
            Settled::Delivered => ("delivered", None, None, None),
            Settled::Failed { reason } => ("failed", None, Some(reason), None),
            Settled::Again { at_ms, reason } => ("pending", Some(*at_ms), Some(reason), None),
            Settled::Held { receiver } => ("pending", None, None, Some(receiver)),
        };
        let settled = sqlx::query(
            "UPDATE deliveries SET owner = NULL, lease_until_ms = NULL, state = $4,
                                   due_ms = COALESCE($5, due_ms),
                                   last_error = CASE WHEN $7 IS NULL THEN $6 ELSE last_error END,
                                   held = $7, holds = holds + ($7 IS NOT NULL)
             WHERE job = (SELECT seq FROM jobs WHERE id = $1) AND owner = $2 AND attempts = $3",
        )
        .bind(self.attempt.id.to_string())
        .bind(self.attempt.owner.to_string())
        .bind(self.attempt.number)
        .bind(state)
        .bind(due_ms)
        .bind(reason)
        .bind(held)
        .execute(&mut *unit.connection)
        .await?;
        Ok(settled.rows_affected() > 0)
    }
}
