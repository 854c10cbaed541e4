//! From columns to the room's own types. What stands in the file may have been written by another
//! version or by a person, so nothing is taken on trust.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::queue::job::{JobError, LogLine, State};

/// A stored value that cannot be what it should be.
#[derive(Debug, thiserror::Error)]
#[error("a stored value is damaged: {0}")]
pub(super) struct Invalid(String);

impl Invalid {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<serde_json::Error> for Invalid {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Invalid> for sqlx::Error {
    fn from(error: Invalid) -> Self {
        Self::Decode(Box::new(error))
    }
}

fn invalid(column: &str) -> sqlx::Error {
    Invalid(column.to_owned()).into()
}

pub(super) fn id(row: &SqliteRow) -> Result<Uuid, sqlx::Error> {
    Uuid::parse_str(row.try_get("id")?).map_err(|_| invalid("id"))
}

pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| invalid(column))
}

pub(super) fn small(row: &SqliteRow, column: &str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| invalid(column))
}

pub(super) fn status(row: &SqliteRow) -> Result<u16, sqlx::Error> {
    u16::try_from(row.try_get::<i64, _>("status")?).map_err(|_| invalid("status"))
}

pub(super) fn state(row: &SqliteRow) -> Result<State, sqlx::Error> {
    match row.try_get("state")? {
        "waiting" => Ok(State::Waiting),
        "running" => Ok(State::Running),
        "done" => Ok(State::Done),
        _ => Err(invalid("state")),
    }
}

pub(super) fn log(row: &SqliteRow) -> Result<Vec<LogLine>, sqlx::Error> {
    Ok(serde_json::from_str(row.try_get("log")?).map_err(Invalid::from)?)
}

pub(super) fn headers(row: &SqliteRow) -> Result<Vec<(String, String)>, sqlx::Error> {
    Ok(serde_json::from_str(row.try_get("headers")?).map_err(Invalid::from)?)
}

pub(super) fn error(row: &SqliteRow) -> Result<Option<JobError>, sqlx::Error> {
    let message: Option<String> = row.try_get("error")?;
    let error_type: Option<String> = row.try_get("error_type")?;
    Ok(message
        .zip(error_type)
        .map(|(message, error_type)| JobError {
            message,
            error_type,
        }))
}
