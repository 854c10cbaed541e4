//! A queue's file that was emptied, shortened, exchanged or left behind is refused; a healthy one never
//! is, at whatever moment its process died.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};
use tempfile::TempDir;
use uuid::Uuid;

use super::marker::{self, Found};
use super::open::FILE;
use super::*;
use crate::queue::conformance::{finish, job, next, owner, state, submit};
use crate::queue::job::{NewJob, State};

const LOG: &str = "queue.sqlite3-wal";
const MARKER: &str = "queue.sqlite3-marker";

/// A directory with a running store.
async fn running() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    (folder, store)
}

/// What a process that dies now leaves: a copy of the files of a store that nobody writes to.
fn image(folder: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    // The file before its log: a checkpoint in between leaves the log as it is.
    for name in [FILE, LOG, MARKER] {
        let from = folder.join(name);
        if from.exists() {
            fs::copy(from, image.path().join(name)).unwrap();
        }
    }
    image
}

/// Looks into the file as a person would.
async fn connection(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join(FILE));
    options.connect().await.unwrap()
}

/// Waits until the marker is as far as the file.
async fn marked(folder: &Path) {
    let mut connection = connection(folder).await;
    let commits: i64 = sqlx::query_scalar("SELECT commits FROM store")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Found::Mark(mark) = marker::read(&folder.join(MARKER)).unwrap()
            && mark.commits == u64::try_from(commits).unwrap()
        {
            return;
        }
        assert!(Instant::now() < deadline, "the marker stays behind");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A store with ten jobs in its file, and two more in its log if the process died.
async fn filled(died: bool) -> (TempDir, Vec<Uuid>) {
    let (folder, store) = running().await;
    let large = NewJob {
        body: Bytes::from(vec![b'x'; 10_000]),
        ..job()
    };
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(submit(&store, large.clone()).await);
    }
    store.close().await.unwrap();
    if !died {
        return (folder, jobs);
    }
    let store = SqliteStore::open(folder.path()).await.unwrap();
    // Somebody who reads keeps what comes now from being moved out of the log.
    let mut reader = connection(folder.path()).await;
    for statement in ["BEGIN", "SELECT COUNT(*) FROM jobs"] {
        sqlx::query(statement).execute(&mut reader).await.unwrap();
    }
    for _ in 0..2 {
        jobs.push(submit(&store, job()).await);
    }
    marked(folder.path()).await;
    let image = image(folder.path());
    reader.close().await.unwrap();
    store.close().await.unwrap();
    (image, jobs)
}

fn cut(file: &Path, to: impl FnOnce(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(to(bytes)).unwrap();
}

async fn refusal(folder: &Path) -> String {
    let before = fs::read(folder.join(FILE)).ok();
    let error = SqliteStore::open(folder).await.unwrap_err();
    assert!(matches!(error, QueueError::Damaged { .. }), "{error}");
    let text = error.to_string();
    let path = folder.join(FILE);
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(
        text.contains("restore it") && text.contains("remove "),
        "{text}"
    );
    // Refused again at the next try: nothing was mended in passing.
    let again = SqliteStore::open(folder).await.unwrap_err();
    assert!(matches!(again, QueueError::Damaged { .. }), "{again}");
    assert_eq!(before.is_some(), path.exists());
    text
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_way_out() {
    let (other, _) = filled(false).await;
    type Damaging<'a> = &'a dyn Fn(&Path);
    let foreign = |dir: &Path| {
        fs::copy(other.path().join(FILE), dir.join(FILE)).unwrap();
    };
    let cases: [(&str, Damaging<'_>); 6] = [
        ("is empty", &|dir| cut(&dir.join(FILE), |_| 0)),
        ("is cut short", &|dir| cut(&dir.join(FILE), |all| all / 2)),
        ("is cut short", &|dir| {
            cut(&dir.join(FILE), |all| all - 4096)
        }),
        ("is missing", &|dir| {
            fs::remove_file(dir.join(FILE)).unwrap()
        }),
        ("belongs to another queue", &foreign),
        ("is not a queue's file", &|dir| {
            fs::write(dir.join(FILE), [b'x'; 8192]).unwrap();
        }),
    ];
    for died in [false, true] {
        for (expected, damage) in &cases {
            let (folder, jobs) = filled(died).await;
            damage(folder.path());
            let text = refusal(folder.path()).await;
            assert!(text.contains(expected), "{died} {expected}: {text}");
            let waiting = format!("{} jobs waited", jobs.len());
            assert!(text.contains(&waiting), "{died} {expected}: {text}");
        }
    }
}

#[tokio::test]
async fn a_lost_log_is_noticed_by_what_is_missing() {
    for damage in [
        (|dir: &Path| fs::remove_file(dir.join(LOG)).unwrap()) as fn(&Path),
        |dir| cut(&dir.join(LOG), |_| 0),
        |dir| cut(&dir.join(LOG), |_| 32),
        |dir| cut(&dir.join(LOG), |all| all / 2),
        |dir| cut(&dir.join(LOG), |all| all - 1),
    ] {
        let (folder, jobs) = filled(true).await;
        damage(folder.path());
        let text = refusal(folder.path()).await;
        assert!(text.contains("lacks its last"), "{text}");
        // As the sentence says.
        fs::remove_file(folder.path().join(MARKER)).unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap();
        for id in &jobs[..10] {
            assert_eq!(state(&store, *id).await, State::Waiting);
        }
    }
}

#[tokio::test]
async fn an_older_copy_is_noticed_and_taken_when_asked_to() {
    let (folder, store) = running().await;
    submit(&store, job()).await;
    store.close().await.unwrap();
    let copy = image(folder.path());
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let lost = submit(&store, job()).await;
    store.close().await.unwrap();
    fs::copy(copy.path().join(FILE), folder.path().join(FILE)).unwrap();
    let text = refusal(folder.path()).await;
    assert!(text.contains("lacks its last 1 changes"), "{text}");
    fs::remove_file(folder.path().join(MARKER)).unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.status(lost, 0).await.unwrap(), None);
    assert_eq!(store.counts().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn removing_all_that_is_named_begins_anew() {
    let (folder, _) = filled(true).await;
    cut(&folder.path().join(FILE), |_| 0);
    refusal(folder.path()).await;
    for name in [FILE, LOG, MARKER, "queue.sqlite3-shm"] {
        let _ = fs::remove_file(folder.path().join(name));
    }
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.counts().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn a_damaged_structure_is_refused() {
    let (folder, _) = filled(false).await;
    let mut bytes = fs::read(folder.path().join(FILE)).unwrap();
    // The second half of the file, but for its beginning and end, is noise.
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    fs::write(folder.path().join(FILE), bytes).unwrap();
    let text = refusal(folder.path()).await;
    assert!(text.contains("is damaged"), "{text}");
}

#[tokio::test]
async fn a_healthy_file_is_opened_whenever_its_process_died() {
    let (folder, store) = running().await;
    let me = owner();
    let mut draw = 3_u64;
    let mut draw = move |below: u64| {
        draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1);
        (draw >> 33) % below
    };
    for round in 0..60_u64 {
        for _ in 0..draw(6) {
            let body = Bytes::from(vec![b'x'; draw(200_000) as usize]);
            submit(&store, NewJob { body, ..job() }).await;
        }
        for _ in 0..draw(6) {
            if store.counts().await.unwrap().waiting > 0 {
                let attempt = next(&store, me, 0).await.attempt;
                finish(&store, attempt, "x", 0).await;
            }
        }
        // What has ended is forgotten, and the file shrinks and grows again.
        if round % 7 == 6 {
            while store.expire(i64::MAX, 10).await.unwrap() {}
        }
        let image = image(folder.path());
        let copy = SqliteStore::open(image.path()).await.unwrap();
        let counts = store.counts().await.unwrap();
        assert_eq!(copy.counts().await.unwrap(), counts, "{round}");
        copy.close().await.unwrap();
        SqliteStore::open(image.path()).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_of_the_first_version_opens_and_gets_its_marker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .auto_vacuum(sqlx::sqlite::SqliteAutoVacuum::Incremental)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let mut connection = options.connect().await.unwrap();
    let sql = include_str!("migrations/0001_jobs.sql");
    let kind = MigrationType::Simple;
    let first = Migration::new(1, "jobs".into(), kind, sql.into_sql_str(), false);
    let migrator = Migrator::with_migrations(vec![first]);
    migrator.run(&mut connection).await.unwrap();
    let (waiting, running) = (Uuid::new_v4(), Uuid::new_v4());
    for (id, state, starts) in [(waiting, "waiting", 0), (running, "running", 1)] {
        sqlx::query(
            "INSERT INTO jobs (id, endpoint, priority, state, created_ms, not_before_ms, may_retry,
                               keep_payload, starts, owner, lease_until_ms)
             VALUES ($1, 'caption', 0, $2, 0, 0, TRUE, TRUE, $3, 'x', 0)",
        )
        .bind(id.to_string())
        .bind(state)
        .bind(starts)
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query("INSERT INTO requests (job, base, body) VALUES (last_insert_rowid(), '', '')")
            .execute(&mut connection)
            .await
            .unwrap();
    }
    // Its process died, so that all of it is in the log.
    let image = image(folder.path());
    drop(connection);
    let store = SqliteStore::open(image.path()).await.unwrap();
    assert_eq!(state(&store, waiting).await, State::Waiting);
    assert_eq!(state(&store, running).await, State::Running);
    assert!(image.path().join(MARKER).exists());
    assert_eq!(next(&store, owner(), 0).await.request.id, waiting);
    store.close().await.unwrap();
    cut(&image.path().join(FILE), |_| 0);
    refusal(image.path()).await;
}
