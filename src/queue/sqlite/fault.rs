//! Errors of the database driver, told apart: those that a change brought upon itself, and those of
//! the store, after which a connection is not used again.

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use crate::queue::health::Fault;
use crate::queue::store::StoreError;

/// The store's fault behind an error; none when the change itself is to blame, as with a value that
/// cannot be stored or read.
pub(super) fn fault(error: &sqlx::Error) -> Option<Fault> {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code();
            let code = code.and_then(|code| code.parse::<u32>().ok());
            of_result_code(code.unwrap_or_default())
        }
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::RowNotFound => None,
        sqlx::Error::Io(_) => Some(Fault::InputOutput),
        sqlx::Error::PoolClosed => Some(Fault::Closed),
        sqlx::Error::PoolTimedOut => Some(Fault::Stalled),
        _ => Some(Fault::Other),
    }
}

/// SQLite's result codes; the low byte is the kind, the rest says more.
fn of_result_code(code: u32) -> Option<Fault> {
    match code & 0xff {
        // TOOBIG, CONSTRAINT, MISMATCH, RANGE
        18 | 19 | 20 | 25 => None,
        // BUSY, LOCKED
        5 | 6 => Some(Fault::Locked),
        // READONLY
        8 => Some(Fault::ReadOnly),
        // IOERR, CANTOPEN
        10 | 14 => Some(Fault::InputOutput),
        // CORRUPT, NOTADB
        11 | 26 => Some(Fault::Damaged),
        // FULL
        13 => Some(Fault::DiskFull),
        _ => Some(Fault::Other),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::new(fault(&error).unwrap_or(Fault::Other), error.to_string())
    }
}

/// Closes a connection that failed, whatever comes of it. What it had begun is undone, and its lock
/// is given back before this returns.
pub(super) async fn discard(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a failed connection was not closed in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_codes_are_read_by_their_kind() {
        // IOERR_FSYNC, CONSTRAINT_PRIMARYKEY, BUSY_SNAPSHOT, READONLY_DBMOVED, CORRUPT_INDEX, FULL
        for (code, expected) in [
            (1034, Some(Fault::InputOutput)),
            (1555, None),
            (517, Some(Fault::Locked)),
            (1032, Some(Fault::ReadOnly)),
            (779, Some(Fault::Damaged)),
            (13, Some(Fault::DiskFull)),
            (0, Some(Fault::Other)),
        ] {
            assert_eq!(of_result_code(code), expected, "{code}");
        }
    }
}
