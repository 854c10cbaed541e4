//! The time as it was noted last: one row, from which the next process goes on.

use super::change::{Change, Unit};
use crate::queue::timeline::KeptTime;

impl Change for KeptTime {
    type Outcome = ();

    async fn apply(&self, unit: &mut Unit<'_>) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO noted_time (id, high_ms, ahead_ms, is_open) VALUES (1, $1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET high_ms = $1, ahead_ms = $2, is_open = $3",
        )
        .bind(self.high_ms)
        .bind(self.ahead_ms)
        .bind(self.is_open)
        .execute(&mut *unit.connection)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{SystemTime, UNIX_EPOCH};

    use sqlx::migrate::{Migration, MigrationType, Migrator};
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, SqlSafeStr};

    use super::super::SqliteStore;
    use super::super::open::{FILE, MIGRATIONS};
    use super::*;
    use crate::queue::store::JobStore;

    /// A file as it was before times were noted, with a job that was handed in and ended at these times.
    async fn older_file(dir: &Path, created_ms: i64, finished_ms: i64) {
        let options = SqliteConnectOptions::new()
            .filename(dir.join(FILE))
            .create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let (version, name, sql) = MIGRATIONS[0];
        let kind = MigrationType::Simple;
        let first = Migration::new(version, name.into(), kind, sql.into_sql_str(), false);
        let migrator = Migrator::with_migrations(vec![first]);
        migrator.run(&mut connection).await.unwrap();
        sqlx::query(
            "INSERT INTO jobs (id, endpoint, priority, state, created_ms, finished_ms,
                               not_before_ms, may_retry, keep_payload)
             VALUES ('x', '', 0, 'done', $1, $2, 0, TRUE, TRUE)",
        )
        .bind(created_ms)
        .bind(finished_ms)
        .execute(&mut connection)
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn an_older_file_knows_the_time_of_its_last_event() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(now.as_millis()).unwrap();
        let (hour_ms, year_ms) = (3_600_000, 365 * 86_400_000);
        for (created_ms, finished_ms, high_ms) in [
            (5, 9, 9),
            (now_ms, now_ms + hour_ms, now_ms + hour_ms),
            // A clock that was years ahead once is not gone by.
            (now_ms, now_ms + 70 * year_ms, now_ms),
        ] {
            let folder = tempfile::tempdir().unwrap();
            older_file(folder.path(), created_ms, finished_ms).await;
            let store = SqliteStore::open(folder.path()).await.unwrap();
            let expected = KeptTime {
                high_ms,
                ..KeptTime::default()
            };
            assert_eq!(store.time().await.unwrap(), expected);
        }
    }
}
