//! Changes to webhook deliveries: to an owner, and what came of the attempt.

use sqlx::Row;
use uuid::Uuid;

use super::pieces::{self, Of};
use super::rows;
use super::writer::{Change, Unit};
use crate::queue::store::{ClaimDelivery, ClaimedDelivery, Delivery, Settled};

impl Change for ClaimDelivery {
    type Outcome = ClaimedDelivery;

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<ClaimedDelivery, sqlx::Error> {
        let claimed = sqlx::query(
            "UPDATE deliveries SET owner = $1, lease_until_ms = $2, attempts = attempts + 1
             WHERE job = (SELECT job FROM deliveries
                          WHERE state = 'pending' AND owner IS NULL AND due_ms <= $3
                          ORDER BY due_ms LIMIT 1)
             RETURNING job, url, attempts",
        )
        .bind(self.owner.to_string())
        .bind(self.lease_until_ms)
        .bind(self.now_ms)
        .fetch_optional(&mut *unit.connection)
        .await?;
        let Some(row) = claimed else {
            let next_due_ms = sqlx::query_scalar(
                "SELECT MIN(due_ms) FROM deliveries WHERE state = 'pending' AND owner IS NULL",
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
        Ok(ClaimedDelivery::Due(Box::new(Delivery {
            id: rows::id(&result)?,
            url: row.try_get("url")?,
            earlier_attempts: rows::small(&row, "attempts")?.saturating_sub(1),
            expires_ms: result.try_get("expires_ms")?,
            status: rows::status(&result)?,
            body,
        })))
    }
}

/// Notes what came of an attempt.
pub(super) struct Settle {
    pub(super) id: Uuid,
    pub(super) owner: Uuid,
    pub(super) outcome: Settled,
}

impl Change for Settle {
    type Outcome = ();

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<(), sqlx::Error> {
        let (state, due_ms, reason) = match &self.outcome {
            Settled::Delivered => ("delivered", None, None),
            Settled::Failed { reason } => ("failed", None, Some(reason)),
            Settled::Again { at_ms, reason } => ("pending", Some(*at_ms), Some(reason)),
        };
        sqlx::query(
            "UPDATE deliveries SET owner = NULL, lease_until_ms = NULL, state = $3,
                                   due_ms = COALESCE($4, due_ms), last_error = $5
             WHERE job = (SELECT seq FROM jobs WHERE id = $1) AND owner = $2",
        )
        .bind(self.id.to_string())
        .bind(self.owner.to_string())
        .bind(state)
        .bind(due_ms)
        .bind(reason)
        .execute(&mut *unit.connection)
        .await?;
        Ok(())
    }
}
