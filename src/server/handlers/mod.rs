//! What answers the routes, one file per call.

use axum::body::Body;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;

use super::error::{ApiError, JSON};

pub(crate) mod cancel;
pub(crate) mod files;
pub(crate) mod proxy;
pub(crate) mod result;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod storage;
pub(crate) mod submit;
pub(crate) mod tokens;
pub(crate) mod uploads;
pub(crate) mod webhook_keys;

/// A successful answer in JSON.
fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(value).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// A segment of a path, counted from zero. Nothing in our paths needs an escape, so one that has
/// any is simply unknown.
fn segment(uri: &Uri, index: usize) -> &str {
    uri.path().split('/').nth(index + 1).unwrap_or_default()
}
