//! Jobs on their way into the file, as many at once as one transaction has.
//!
//! Rows go in with few statements, each of which takes several; the sizes are powers of two, so that
//! few texts exist and all of them stay prepared. Numbers and positions come from memory.

use std::sync::{Arc, LazyLock};

use sqlx::AssertSqlSafe;

use super::change::Unit;
use super::pieces::{self, Of};
use super::positions::Place;
use crate::queue::job::Priority;
use crate::queue::store::{Admission, Submission};

/// Statements for 1, 2, 4, 8 and 16 jobs.
const SIZES: usize = 5;

/// Bytes of bodies in one statement. They are copied for it, so large ones go alone.
const MAX_BYTES: usize = 1 << 20;

static STATEMENTS: LazyLock<[Arc<str>; SIZES]> =
    LazyLock::new(|| std::array::from_fn(|power| statement(1 << power).into()));

/// The statement that stores so many jobs and what they ask for.
fn statement(jobs: usize) -> String {
    let rows = |row: &str| vec![row; jobs].join(", ");
    format!(
        "INSERT INTO jobs (seq, id, endpoint, priority, state, created_ms, not_before_ms, start_by_ms,
                           may_retry, keep_payload, webhook) VALUES {};
         INSERT INTO requests (job, content_type, base, lifecycle, body) VALUES {}",
        rows("(?, ?, ?, ?, 'waiting', ?, ?, ?, ?, ?, ?)"),
        rows("(?, ?, ?, ?, ?)"),
    )
}

/// A job that is taken, with its number in the file.
type Taken<'a> = (i64, &'a Submission);

/// Takes jobs in order, each unless too many wait for its endpoint, and stores them.
pub(super) async fn submit(
    unit: &mut Unit<'_>,
    new: &[&Submission],
) -> Result<Vec<Admission>, sqlx::Error> {
    let mut admissions = Vec::with_capacity(new.len());
    let mut taken = Vec::with_capacity(new.len());
    for submission in new {
        let job = &submission.job;
        let waiting = unit.moves.waiting(&job.endpoint);
        let all = waiting.iter().sum();
        if job.max_queue_length.is_some_and(|max| all > max) {
            admissions.push(Admission::Full { waiting: all });
            continue;
        }
        let rank = rank(job.priority);
        let position = waiting.iter().take(rank + 1).sum();
        admissions.push(Admission::Accepted { position });
        let seq = unit.next_seq;
        unit.next_seq += 1;
        taken.push((i64::try_from(seq).unwrap_or(i64::MAX), *submission));
        unit.moves.enter(Place {
            endpoint: job.endpoint.clone(),
            rank,
            seq,
        });
    }
    let mut left = taken.as_slice();
    while !left.is_empty() {
        let power = portion(left);
        let (now, later) = left.split_at(1 << power);
        insert(unit, power, now).await?;
        left = later;
    }
    Ok(admissions)
}

/// The line in which a job stands, and what the file calls it.
fn rank(priority: Priority) -> usize {
    match priority {
        Priority::Normal => 0,
        Priority::Low => 1,
    }
}

/// The size of the next statement, as a power of two; there is at least one job.
fn portion(left: &[Taken<'_>]) -> usize {
    let mut bytes = 0_usize;
    let fitting = left.iter().take_while(|(_, submission)| {
        bytes = bytes.saturating_add(submission.job.body.len());
        bytes <= MAX_BYTES
    });
    let jobs = fitting.count().max(1);
    (jobs.ilog2() as usize).min(SIZES - 1)
}

async fn insert(unit: &mut Unit<'_>, power: usize, taken: &[Taken<'_>]) -> Result<(), sqlx::Error> {
    let text = STATEMENTS.get(power).map(Arc::clone).unwrap_or_default();
    let mut query = sqlx::query(AssertSqlSafe(text));
    for (seq, Submission { id, job, now_ms }) in taken {
        query = query
            .bind(seq)
            .bind(id.to_string())
            .bind(&job.endpoint)
            .bind(rank(job.priority) as i64)
            .bind(now_ms)
            .bind(now_ms)
            .bind(job.start_by_ms)
            .bind(job.may_retry)
            .bind(job.keep_payload)
            .bind(&job.webhook);
    }
    for (seq, Submission { job, .. }) in taken {
        query = query
            .bind(seq)
            .bind(&job.content_type)
            .bind(&job.base)
            .bind(&job.lifecycle)
            .bind(pieces::first(&job.body));
    }
    query.execute(&mut *unit.connection).await?;
    for (seq, Submission { job, .. }) in taken {
        pieces::store_rest(unit.connection, Of::Request, *seq, &job.body).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::queue::conformance::job;
    use crate::queue::job::NewJob;

    fn submission(bytes: usize) -> Submission {
        let body = Bytes::from(vec![b'x'; bytes]);
        let job = NewJob { body, ..job() };
        let (id, now_ms) = (Uuid::new_v4(), 0);
        Submission { id, job, now_ms }
    }

    fn portions(bytes: &[usize]) -> Vec<usize> {
        let all: Vec<_> = bytes.iter().map(|bytes| submission(*bytes)).collect();
        let taken: Vec<_> = all.iter().map(|submission| (0, submission)).collect();
        let mut left = taken.as_slice();
        let mut sizes = Vec::new();
        while !left.is_empty() {
            let size = 1 << portion(left);
            sizes.push(size);
            left = &left[size..];
        }
        sizes
    }

    #[test]
    fn many_small_jobs_take_few_statements() {
        assert_eq!(portions(&[10; 1]), [1]);
        assert_eq!(portions(&[10; 64]), [16; 4]);
        assert_eq!(portions(&[10; 31]), [16, 8, 4, 2, 1]);
    }

    #[test]
    fn large_bodies_go_alone() {
        assert_eq!(portions(&[MAX_BYTES + 1; 3]), [1, 1, 1]);
        assert_eq!(portions(&[MAX_BYTES, 1, MAX_BYTES, 1, 1]), [1, 1, 1, 2]);
        assert_eq!(portions(&[MAX_BYTES / 2; 5]), [2, 2, 1]);
    }
}
