//! From a directory to an open store: what is in it is held against its marker, brought up to date,
//! and read into memory as far as that is needed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use super::connector::Connector;
use super::fault::discard;
use super::intact::{self, Header};
use super::marker::{self, Found, Mark, Marker};
use super::positions::Lines;
use super::writer::Progress;
use crate::queue::data_dir::for_owner_only;
use crate::queue::error::{Damage, QueueError};
use crate::queue::health::Fault;
use crate::queue::store::StoreError;

/// The file in the data directory.
pub(super) const FILE: &str = "queue.sqlite3";

/// Every change ever made to the tables, in order. A change that was released is never altered.
pub(super) const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "jobs", include_str!("migrations/0001_jobs.sql")),
    (2, "store", include_str!("migrations/0002_store.sql")),
    (3, "recovery", include_str!("migrations/0003_recovery.sql")),
    (
        4,
        "positions",
        include_str!("migrations/0004_positions.sql"),
    ),
    (
        5,
        "long_bodies",
        include_str!("migrations/0005_long_bodies.sql"),
    ),
];

/// Largest file whose whole structure is checked at the start, which takes about a tenth of a second
/// for so much. Of a larger one only what [`intact`] looks at is checked.
const MAX_CHECKED_BYTES: u64 = 64 << 20;

/// A store's file, open.
pub(super) struct Opened {
    pub(super) connector: Connector,
    pub(super) connection: SqliteConnection,
    pub(super) progress: Progress,
    pub(super) lines: Lines,
    /// None when the file cannot have one yet; the next start makes up for it.
    pub(super) marker: Option<Marker>,
}

/// The files of a store.
struct Files {
    file: PathBuf,
    log: PathBuf,
    marker: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        let beside = |ending| dir.join(format!("{FILE}{ending}"));
        Self {
            file: beside(""),
            log: beside("-wal"),
            marker: beside("-marker"),
        }
    }

    fn damaged(&self, damage: Damage, found: Found) -> QueueError {
        let waiting = match found {
            Found::Mark(mark) => mark.waiting,
            Found::Nothing | Found::Unreadable => 0,
        };
        QueueError::Damaged {
            file: self.file.clone(),
            damage,
            waiting,
        }
    }
}

/// Opens the file in a directory, and makes it where there never was one.
pub(super) async fn open(dir: &Path) -> Result<Opened, QueueError> {
    let files = Files::of(dir);
    let unusable = |source| QueueError::DataDir {
        path: dir.to_owned(),
        source,
    };
    let found = marker::read(&files.marker).map_err(unusable)?;
    let damage = intact::look(&files.file, &files.log, &found).map_err(unusable)?;
    if let Some(damage) = damage {
        return Err(files.damaged(damage, found));
    }
    // SQLite gives the files that it puts beside this one the same permissions.
    let made = for_owner_only().create(true).append(true).open(&files.file);
    let bytes = made
        .and_then(|file| file.metadata())
        .map_err(unusable)?
        .len();
    let connector = Connector::new(&files.file);
    let refused = |unread| match unread {
        Unread::Damaged(damage) => files.damaged(damage, found),
        Unread::Failed(source) => QueueError::Open {
            path: dir.to_owned(),
            source,
        },
    };
    let opened = connector.writable().await;
    let mut connection = opened.map_err(|error| refused(error.into()))?;
    let checks = bytes <= MAX_CHECKED_BYTES;
    let content = match read(&mut connection, found, checks).await {
        Ok(content) => content,
        Err(error) => {
            discard(connection).await;
            return Err(refused(error));
        }
    };
    let Content {
        queue,
        progress,
        lines,
    } = content;
    let mark = Mark {
        queue,
        commits: progress.commits,
        jobs: progress.next_seq.saturating_sub(1),
        waiting: lines.total(),
    };
    let marker = if holds(&files.file, queue).map_err(unusable)? {
        Some(Marker::open(&files.marker, found, mark).map_err(unusable)?)
    } else {
        tracing::debug!("the queue gets its marker at the next start");
        None
    };
    Ok(Opened {
        connector,
        connection,
        progress,
        lines,
        marker,
    })
}

/// What is read of a file before it is used.
struct Content {
    queue: u32,
    progress: Progress,
    lines: Lines,
}

/// Reason for which it cannot be read.
enum Unread {
    Damaged(Damage),
    Failed(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        match error.fault() {
            Fault::Damaged => Self::Damaged(Damage::Content(error.to_string())),
            _ => Self::Failed(error),
        }
    }
}

impl From<sqlx::Error> for Unread {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// Checks a file against its marker, brings its tables up to date, and reads what is needed.
async fn read(
    connection: &mut SqliteConnection,
    found: Found,
    checks: bool,
) -> Result<Content, Unread> {
    let mark = match found {
        Found::Mark(mark) => Some(mark),
        Found::Nothing | Found::Unreadable => None,
    };
    let known = queue_of(connection).await?;
    if mark.is_some_and(|mark| mark.queue != known) {
        return Err(Unread::Damaged(Damage::Foreign));
    }
    if checks {
        let said: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await?;
        if said != "ok" {
            return Err(Unread::Damaged(Damage::Content(said)));
        }
    }
    migrate(connection).await?;
    let progress = Progress::load(connection).await?;
    let expected = mark.map_or(0, |mark| mark.commits);
    if let Some(commits) = expected.checked_sub(progress.commits).filter(|it| *it > 0) {
        return Err(Unread::Damaged(Damage::Behind { commits }));
    }
    let lines = Lines::load(connection).await?;
    let queue = match known {
        0 => name(connection).await?,
        known => known,
    };
    if mark.is_none() {
        // A marker says what is in the file itself, so the file must have it first.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut *connection)
            .await?;
    }
    Ok(Content {
        queue,
        progress,
        lines,
    })
}

/// The number that tells a queue from every other one; zero where it has none yet.
async fn queue_of(connection: &mut SqliteConnection) -> Result<u32, sqlx::Error> {
    let version: i32 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(connection)
        .await?;
    Ok(version.cast_unsigned())
}

/// Gives a queue its number.
async fn name(connection: &mut SqliteConnection) -> Result<u32, sqlx::Error> {
    let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
    // Positive, and never zero.
    let queue = u32::from_be_bytes([a & 0x7f, b, c, d | 1]);
    let statement = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {queue}"));
    sqlx::query(statement).execute(connection).await?;
    Ok(queue)
}

/// Whether the file itself, without its log, says which queue it is.
fn holds(file: &Path, queue: u32) -> io::Result<bool> {
    let header = Header::read(&mut File::open(file)?)?;
    Ok(header.is_some_and(|header| header.queue == queue))
}

/// Brings the tables up to date.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        let kind = MigrationType::Simple;
        Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
    });
    let migrator = Migrator::with_migrations(migrations.to_vec());
    let migrated = migrator.run(connection).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::new(Fault::Other, other.to_string()),
    })
}
