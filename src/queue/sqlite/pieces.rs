//! Long bodies, written and read in pieces.
//!
//! A value on its way into the file or out of it is copied three times, by the driver and by SQLite.
//! For a body of tens of megabytes that would be the largest part of what a job costs. So a body's
//! first mebibyte stands in the row of its request or result, as the whole of most bodies does, and the
//! rest in rows of one mebibyte each, which are deleted with that row.

use bytes::Bytes;
use sqlx::SqliteConnection;

/// Bytes of every piece but the last.
const PIECE_BYTES: usize = 1 << 20;

/// Whose body it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// What was asked.
    Request,
    /// What is answered.
    Result,
}

impl Of {
    fn insert(self) -> &'static str {
        match self {
            Self::Request => "INSERT INTO request_pieces (job, number, bytes) VALUES ($1, $2, $3)",
            Self::Result => "INSERT INTO result_pieces (job, number, bytes) VALUES ($1, $2, $3)",
        }
    }

    fn length(self) -> &'static str {
        match self {
            Self::Request => "SELECT SUM(LENGTH(bytes)) FROM request_pieces WHERE job = $1",
            Self::Result => "SELECT SUM(LENGTH(bytes)) FROM result_pieces WHERE job = $1",
        }
    }

    fn select(self) -> &'static str {
        match self {
            Self::Request => "SELECT bytes FROM request_pieces WHERE job = $1 AND number = $2",
            Self::Result => "SELECT bytes FROM result_pieces WHERE job = $1 AND number = $2",
        }
    }
}

/// The piece that stands in the row of the request or result itself.
pub(super) fn first(body: &[u8]) -> &[u8] {
    body.get(..PIECE_BYTES).unwrap_or(body)
}

/// Whether there may be more than this first piece.
pub(super) fn may_go_on(first: &[u8]) -> bool {
    first.len() == PIECE_BYTES
}

/// Stores what follows the first piece.
pub(super) async fn store_rest(
    connection: &mut SqliteConnection,
    of: Of,
    job: i64,
    body: &[u8],
) -> Result<(), sqlx::Error> {
    for (number, piece) in (0_i64..).zip(body.chunks(PIECE_BYTES)).skip(1) {
        sqlx::query(of.insert())
            .bind(job)
            .bind(number)
            .bind(piece)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The whole body that begins with this piece. To be called in the transaction in which that was read.
pub(super) async fn whole(
    connection: &mut SqliteConnection,
    of: Of,
    job: i64,
    first: Vec<u8>,
) -> Result<Bytes, sqlx::Error> {
    if !may_go_on(&first) {
        return Ok(first.into());
    }
    let length: Option<i64> = sqlx::query_scalar(of.length())
        .bind(job)
        .fetch_one(&mut *connection)
        .await?;
    let mut body = first;
    body.reserve_exact(usize::try_from(length.unwrap_or(0)).unwrap_or(0));
    for number in 1_i64.. {
        let piece: Option<Vec<u8>> = sqlx::query_scalar(of.select())
            .bind(job)
            .bind(number)
            .fetch_optional(&mut *connection)
            .await?;
        match piece {
            Some(piece) => body.extend_from_slice(&piece),
            None => break,
        }
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{Connection, Row};

    use super::*;
    use crate::queue::conformance::{completion, job, next, owner, submit};
    use crate::queue::job::{JobResult, NewJob};
    use crate::queue::sqlite::SqliteStore;
    use crate::queue::sqlite::open::FILE;
    use crate::queue::store::{ClaimDelivery, ClaimedDelivery, Finish, JobStore};

    /// Bytes that differ from piece to piece.
    fn body(length: usize) -> Bytes {
        (0..length).map(|at| (at / 4099) as u8).collect()
    }

    async fn look(folder: &std::path::Path, statement: &'static str) -> i64 {
        let options = SqliteConnectOptions::new().filename(folder.join(FILE));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let row = sqlx::query(statement).fetch_one(&mut connection).await;
        row.unwrap().get(0)
    }

    async fn delivered(store: &SqliteStore) -> Bytes {
        let claim = ClaimDelivery {
            owner: owner(),
            now_ms: 0,
            lease_until_ms: 100,
            receiver: None,
        };
        match store.claim_delivery(claim).await.unwrap() {
            ClaimedDelivery::Due(delivery) => delivery.body,
            ClaimedDelivery::Nothing { .. } => panic!("nothing is due"),
        }
    }

    #[tokio::test]
    async fn bodies_of_any_length_come_back_whole_and_leave_no_piece() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let (requests, results) = (
            "SELECT COUNT(*) FROM request_pieces",
            "SELECT COUNT(*) FROM result_pieces",
        );
        for (length, pieces) in [
            (0, 0),
            (PIECE_BYTES - 1, 0),
            (PIECE_BYTES, 0),
            (PIECE_BYTES + 1, 1),
            (2 * PIECE_BYTES, 1),
            (3 * PIECE_BYTES + 7, 3),
        ] {
            let body = body(length);
            let asked = NewJob {
                body: body.clone(),
                webhook: Some("https://receiver.test".into()),
                ..job()
            };
            let (id, me) = (submit(&store, asked).await, owner());
            assert_eq!(look(folder.path(), requests).await, pieces, "{length}");
            let claimed = next(&store, me, 0).await;
            assert!(claimed.request.body == body, "{length}");
            let attempt = claimed.attempt;
            let mut completion = completion("", 0);
            completion.answer.body = body.clone();
            let finish = Finish {
                attempt,
                completion,
                inference_us: None,
                log: Vec::new(),
            };
            assert!(store.finish(finish).await.unwrap());
            assert_eq!(look(folder.path(), requests).await, 0, "{length}");
            assert_eq!(look(folder.path(), results).await, pieces, "{length}");
            let Some(JobResult::Finished(result)) = store.result(id, 0).await.unwrap() else {
                panic!("{length}: no result");
            };
            assert!(result.body == body, "{length}");
            assert!(delivered(&store).await == body, "{length}");
            while store.expire(2000, 10).await.unwrap() {}
            assert_eq!(look(folder.path(), results).await, 0, "{length}");
        }
    }

    #[tokio::test]
    async fn a_body_that_an_earlier_version_stored_whole_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        submit(&store, job()).await;
        let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        for length in [PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            sqlx::query("UPDATE requests SET body = $1")
                .bind(body(length).to_vec())
                .execute(&mut connection)
                .await
                .unwrap();
            let me = owner();
            let claimed = next(&store, me, 0).await;
            assert!(claimed.request.body == body(length), "{length}");
            sqlx::query("UPDATE jobs SET state = 'waiting', owner = NULL")
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }
}
