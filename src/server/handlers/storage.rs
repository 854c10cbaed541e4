//! fal's storage calls: where a file may be sent, and a token for sending many.
//!
//! The address that is handed out carries the permission, because clients send the bytes without a
//! key. Where the bytes then arrive is [`super::uploads`]. `storage_type` in the query, which names
//! one of fal's own stores, is read over: there is one.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::json;
use crate::fal::storage::{InitiateInput, InitiateOutput, TokenOutput, read};
use crate::files::{NewFile, UploadKind};
use crate::server::error::ApiError;
use crate::server::state::Shared;
use crate::server::{extract, json_body, lifecycle};

/// `POST /rest/storage/upload/initiate` and `…/initiate-multipart`
pub(crate) async fn initiate(
    shared: &Shared,
    kind: UploadKind,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let base = extract::reached(&head.extensions)?.files_origin();
    let lifecycle = lifecycle::of_upload(&head.headers)?;
    let value = json_body::read_json_of(&head, body, shared).await?;
    let InitiateInput {
        content_type,
        file_name,
    } = read(value).map_err(ApiError::BadShape)?;
    let file = NewFile {
        name: file_name.as_deref().unwrap_or_default(),
        content_type: content_type.as_deref(),
        lifecycle,
    };
    let offer = shared.files.offer(&file, kind)?;
    json(&InitiateOutput {
        upload_url: format!("{base}/files/upload/{}", offer.ticket),
        file_url: format!("{base}{}", offer.path),
    })
}

/// `POST /rest/storage/auth/token`
pub(crate) async fn token(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let base_url = extract::reached(request.extensions())?.files_origin();
    let (token, lifetime) = shared.files.token();
    // The calendar's date is for its holder; its life is measured by another clock.
    let expires_at = DateTime::<Utc>::from(SystemTime::now())
        .checked_add_signed(TimeDelta::from_std(lifetime).unwrap_or_default())
        // An offset of +00:00: older clients cannot read a final Z.
        .map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, false))
        .ok_or_else(|| ApiError::Internal("the clock is beyond all calendars".into()))?;
    json(&TokenOutput {
        token,
        token_type: "Bearer",
        base_url,
        expires_at,
    })
}
