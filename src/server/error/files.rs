//! The rows of the table that belong to hosted files.

use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use serde_json::Value;

use super::Blame;
use super::verdict::{Verdict, bad_request, busy, internal, too_many_bytes};
use crate::fal::error::RequestErrorType as Type;
use crate::files::FilesError;

/// What a caller sees of a failure around files. Whatever may leave a body unread says `close`.
pub(super) fn verdict(error: &FilesError) -> Verdict {
    match error {
        FilesError::NotFound => Verdict::plain(StatusCode::NOT_FOUND, "File not found"),
        FilesError::NotPermitted => Verdict::plain(
            StatusCode::FORBIDDEN,
            "This upload address is not valid or has expired.",
        )
        .with(CONNECTION, "close"),
        FilesError::TooLarge { max_bytes } => {
            let max_bytes = usize::try_from(*max_bytes).unwrap_or(usize::MAX);
            let fault = too_many_bytes(&[], max_bytes, &Value::Null);
            Verdict::model(StatusCode::PAYLOAD_TOO_LARGE, vec![fault]).with(CONNECTION, "close")
        }
        // Not 429 or 503, which clients try again at once: room comes with time.
        FilesError::Full | FilesError::DiskFull(_) => Verdict::request(
            StatusCode::INSUFFICIENT_STORAGE,
            Blame::Unready,
            Type::InternalError,
            "There is no room for the file. Try again later.",
        )
        .with(CONNECTION, "close"),
        FilesError::TooManyUploads => {
            busy("Too many uploads at once. Try again later.").with(CONNECTION, "close")
        }
        FilesError::InUse => Verdict::request(
            StatusCode::CONFLICT,
            Blame::Caller,
            Type::BadRequest,
            "The file is being written by another request. Try again later.",
        )
        .with(CONNECTION, "close"),
        FilesError::PartNumber => {
            bad_request("The part number is out of range.").with(CONNECTION, "close")
        }
        FilesError::Parts(_) => bad_request("The listed parts are not those that were uploaded."),
        FilesError::Storage(_) | FilesError::Folder { .. } => internal(),
    }
}
