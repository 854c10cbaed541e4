//! What is SQLite's own: the file, shared transactions, space given back. The rest is in
//! [`crate::queue::conformance`].

use bytes::Bytes;
use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::open::FILE;
use super::*;
use crate::queue::conformance::{
    claim, completion, finish, first_attempt, job, next, owner, put_back, recovery, result_text,
    state, submit,
};
use crate::queue::job::{NewJob, Priority, State};
use crate::queue::store::{Admission, Which};

async fn open() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    (folder, store)
}

/// Looks into the file as a person would.
async fn look(folder: &TempDir, statement: &'static str) -> i64 {
    let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let row = sqlx::query(statement).fetch_one(&mut connection).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening() {
    let (folder, store) = open().await;
    let done = submit(&store, job()).await;
    let me = owner();
    next(&store, me, 0).await;
    finish(&store, first_attempt(done, me), "kept", 0).await;
    let running = submit(&store, job()).await;
    next(&store, me, 0).await;
    let waiting = submit(&store, job()).await;
    store.close().await.unwrap();
    store.counts().await.unwrap_err();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(result_text(&store, done).await.as_deref(), Some("kept"));
    assert_eq!(state(&store, running).await, State::Running);
    assert_eq!(state(&store, waiting).await, State::Waiting);
}

#[tokio::test]
async fn commits_survive_a_power_cut() {
    let (folder, store) = open().await;
    submit(&store, job()).await;
    assert_eq!(look(&folder, "SELECT COUNT(*) FROM jobs").await, 1);
    let mode = "SELECT journal_mode = 'wal' FROM pragma_journal_mode";
    assert_eq!(look(&folder, mode).await, 1);
    let writer = lock(&store.writer).clone().unwrap();
    // 2 is FULL.
    assert_eq!(writer.make(Pragma("PRAGMA synchronous")).await.unwrap(), 2);
    assert_eq!(writer.make(Pragma("PRAGMA foreign_keys")).await.unwrap(), 1);
}

/// Asks the writing connection about itself.
struct Pragma(&'static str);

impl Change for Pragma {
    type Outcome = i64;

    async fn apply(&self, unit: &mut change::Unit<'_>) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(self.0)
            .fetch_one(&mut *unit.connection)
            .await
    }
}

#[tokio::test]
async fn changes_that_come_together_stand_and_fall_alone() {
    let (_folder, store) = open().await;
    let twin = Uuid::new_v4();
    let ids: Vec<_> = (0..60)
        .map(|number| {
            if number % 20 == 10 {
                twin
            } else {
                Uuid::new_v4()
            }
        })
        .collect();
    let submissions = ids.iter().map(|&id| {
        let (job, now_ms) = (job(), 0);
        store.submit(Submission { id, job, now_ms })
    });
    let admissions = join_all(submissions).await;
    // The second and the third twin are refused by the file, and nobody else.
    let failed: Vec<_> = (0..60).filter(|&at| admissions[at].is_err()).collect();
    assert_eq!(failed, [30, 50]);
    let mut positions: Vec<_> = admissions
        .into_iter()
        .flatten()
        .map(|admission| match admission {
            Admission::Accepted { position } => position,
            Admission::Full { .. } => panic!("nobody set a limit"),
        })
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, (0..58).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_goes_with_the_end_of_its_job_unless_it_may_be_needed() {
    let (folder, store) = open().await;
    let me = owner();
    for (keeps_request, keep_payload, left) in [(false, true, 0), (true, false, 0), (true, true, 1)]
    {
        let id = submit(
            &store,
            NewJob {
                keep_payload,
                ..job()
            },
        )
        .await;
        next(&store, me, 0).await;
        let mut end = completion("x", 0);
        end.keeps_request = keeps_request;
        let finish = Finish {
            attempt: first_attempt(id, me),
            completion: end,
            inference_us: None,
            log: Vec::new(),
        };
        assert!(store.finish(finish).await.unwrap());
        let requests = look(&folder, "SELECT COUNT(*) FROM requests").await;
        assert_eq!(requests, left, "{keeps_request} {keep_payload}");
    }
    while store.expire(i64::MAX, 10).await.unwrap() {}
    for left in [
        "SELECT COUNT(*) FROM jobs",
        "SELECT COUNT(*) FROM requests",
        "SELECT COUNT(*) FROM results",
    ] {
        assert_eq!(look(&folder, left).await, 0, "{left}");
    }
}

#[tokio::test]
async fn the_file_shrinks_when_large_jobs_are_gone() {
    let (folder, store) = open().await;
    let me = owner();
    let large = NewJob {
        body: Bytes::from(vec![b'x'; 4 << 20]),
        ..job()
    };
    for _ in 0..8 {
        submit(&store, large.clone()).await;
    }
    let pages = "SELECT page_count FROM pragma_page_count";
    let before = look(&folder, pages).await;
    for _ in 0..8 {
        let id = next(&store, me, 0).await.request.id;
        finish(&store, first_attempt(id, me), "small", 0).await;
    }
    while store.expire(0, 10).await.unwrap() {}
    let after = look(&folder, pages).await;
    // 32 MiB were written in pages of 4 KiB; 16 MiB may stay for the next jobs.
    assert!(before >= 8192, "{before}");
    assert!(after <= 4096 + 64, "{after} pages of {before} are left");
}

#[tokio::test]
async fn a_damaged_value_is_an_error_and_not_a_panic() {
    let (folder, store) = open().await;
    let id = submit(&store, job()).await;
    look(&folder, "UPDATE jobs SET log = 'no json' RETURNING seq").await;
    let error = store.status(id, 0).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), vec![b'x'; 8192]).unwrap();
    SqliteStore::open(folder.path()).await.unwrap_err();
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, store) = open().await;
    submit(&store, job()).await;
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 2, "the file and its log");
}

/// The position of every waiting job as a count over the file, by its id.
async fn counted(folder: &TempDir) -> Vec<(Uuid, u64)> {
    let options = SqliteConnectOptions::new().filename(folder.path().join(FILE));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let rows = sqlx::query(
        "WITH line AS (
             SELECT id, endpoint, suspect, seq,
                    CASE WHEN suspect THEN crashes ELSE priority END AS rank
             FROM jobs WHERE state = 'waiting')
         SELECT id, (SELECT COUNT(*) FROM line AS other
                     WHERE other.endpoint = line.endpoint
                       AND (other.suspect, other.rank, other.seq)
                           < (line.suspect, line.rank, line.seq)) AS ahead
         FROM line",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let position = |row| (rows::id(row).unwrap(), rows::count(row, "ahead").unwrap());
    rows.iter().map(position).collect()
}

#[tokio::test]
async fn positions_in_memory_are_those_of_the_file() {
    let (folder, store) = open().await;
    let mut draw = 1_u64;
    // A generator without a library: the order only has to be without order.
    let mut draw = move |below: u64| {
        draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1);
        (draw >> 33) % below
    };
    let (me, mut claimed) = (owner(), Vec::new());
    for round in 0..300 {
        match draw(8) {
            0..=3 => {
                let endpoint = ["caption", "ocr"][draw(2) as usize].into();
                let priority = [Priority::Normal, Priority::Low][draw(2) as usize];
                submit(
                    &store,
                    NewJob {
                        endpoint,
                        priority,
                        ..job()
                    },
                )
                .await;
            }
            4 => claimed.extend(claim(&store, me, 0, Which::Next).await),
            5 => {
                if let Some(job) = claimed.pop() {
                    put_back(&store, job.attempt, 0, false).await;
                }
            }
            6 => {
                let waiting = counted(&folder).await;
                if let Some((id, _)) = waiting.get(draw(9) as usize) {
                    store.cancel(*id, completion("c", 0)).await.unwrap();
                }
            }
            _ => {
                if draw(4) == 0 {
                    store.recover(recovery(owner(), i64::MAX)).await.unwrap();
                    claimed.clear();
                } else if let Some(job) = claimed.pop() {
                    finish(&store, job.attempt, "x", 0).await;
                }
            }
        }
        for (id, ahead) in counted(&folder).await {
            let status = store.status(id, 0).await.unwrap().unwrap();
            assert_eq!(status.ahead, ahead, "{id} in round {round}");
        }
    }
    let before = counted(&folder).await;
    assert!(before.len() > 20, "{} wait", before.len());
    store.close().await.unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    for (id, ahead) in before {
        let status = store.status(id, 0).await.unwrap().unwrap();
        assert_eq!(status.ahead, ahead, "{id} after opening again");
    }
}
