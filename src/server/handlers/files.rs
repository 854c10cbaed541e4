//! Serves hosted files: what callers uploaded, and drawn pictures.
//!
//! Uploaded bytes are foreign and stand on our own address, so a browser must neither run them nor
//! guess what they are: only a few picture types are shown, everything else is a download without a
//! type, and every answer carries a policy under which nothing would run. No key is asked for,
//! unless whoever made the file said so.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::segment;
use crate::files::{Access, FilesError, HostedFile, MediaType};
use crate::server::error::ApiError;
use crate::server::state::Shared;

/// Pages of other origins may show these pictures; that is what they are for.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// `GET /files/{id}/{name}`
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, name) = (segment(request.uri(), 1), segment(request.uri(), 2));
    let file = shared.files.get(id, name).await?;
    let (headers, query) = (request.headers(), request.uri().query());
    let now = Instant::now();
    let permitted = || shared.keys.check(headers, query, &shared.tokens, now);
    match file.access {
        Access::Allow => {}
        Access::Hide => {
            permitted().map_err(|_| FilesError::NotFound)?;
        }
        Access::Forbid => {
            permitted()?;
        }
    }
    let is_known = file.etag.as_deref().is_some_and(|etag| {
        let known = request.headers().get(IF_NONE_MATCH);
        let known = known.and_then(|value| value.to_str().ok()).unwrap_or("");
        known.split(',').any(|it| it.trim() == etag)
    });
    answer(file, is_known)
}

fn answer(file: HostedFile, is_known: bool) -> Result<Response, ApiError> {
    // File names are made of letters, digits, dots, hyphens and underscores.
    let disposition = match file.media {
        MediaType::Other => format!("attachment; filename=\"{}\"", file.name),
        _ => format!("inline; filename=\"{}\"", file.name),
    };
    let audience = match file.access {
        Access::Allow => "public",
        Access::Hide | Access::Forbid => "private",
    };
    let caching = format!("{audience}, max-age={}", file.expires_in.as_secs());
    let text = |text: String| {
        HeaderValue::try_from(text).map_err(|error| ApiError::Internal(error.to_string()))
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, text(caching)?);
    if let Some(etag) = file.etag {
        headers.insert(ETAG, text(etag)?);
    }
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(CONTENT_DISPOSITION, text(disposition)?);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(file.media.content_type()),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(file.bytes));
    *response.body_mut() = Body::from_stream(file.chunks);
    Ok(response)
}
