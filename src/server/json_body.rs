//! Reads a whole body as JSON, by the rules of fal's validator.
//!
//! Reading takes time in proportion to the body, and more of it than a thread that serves everybody
//! has to spare. So only short bodies are read where they arrived; longer ones on threads of their own,
//! and of these no more at a time than there are cores.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::caller;
use super::error::ApiError;
use super::extract::{content_type, read_body};
use super::state::Shared;
use crate::fal::input;
use crate::fal::json::{self, Json};

/// Bytes of a body that is read where it arrived: that takes a tenth of a millisecond.
const INLINE_BYTES: usize = 64 << 10;

/// Bounds how many long bodies are read, and long answers written, at a time.
#[derive(Debug)]
pub(crate) struct Readers(Arc<Semaphore>);

impl Readers {
    /// As many as there are cores.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Makes something of a body of this many bytes, or a body of about as many.
    ///
    /// # Errors
    /// What `read` says; or it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= INLINE_BYTES {
            return read();
        }
        let inside = |error: String| ApiError::Internal(format!("reading a body failed: {error}"));
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.map_err(|error| inside(error.to_string()))?;
        // The permit travels with the work, so that a caller who leaves does not free it early.
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read()
        });
        reading.await.map_err(|error| inside(error.to_string()))?
    }
}

/// Reads the body of a request.
///
/// # Errors
/// As [`read_body`] and [`parse`].
pub(crate) async fn read_json(request: Request, shared: &Shared) -> Result<Value, ApiError> {
    let (head, body) = request.into_parts();
    read_json_of(&head, body, shared).await
}

/// Reads the body of the request that has this head.
///
/// # Errors
/// As [`read_body`] and [`parse`].
pub(crate) async fn read_json_of(
    head: &Parts,
    body: axum::body::Body,
    shared: &Shared,
) -> Result<Value, ApiError> {
    let body = read_body(body, caller::of(&head.extensions), shared).await?;
    let is_json = is_json(content_type(&head.headers));
    let bytes = body.bytes.clone();
    let read = move || Ok(parse(is_json, &bytes)?.value);
    shared.readers.run(body.bytes.len(), read).await
}

/// Reads a whole body.
///
/// # Errors
/// Not JSON, or not declared as JSON.
pub(crate) fn parse(is_json: bool, body: &Bytes) -> Result<Json, ApiError> {
    if !body.is_empty() && !is_json {
        // The validator takes an undeclared body as text, and a text is no object.
        let fault = input::not_an_object_but_text(body);
        return Err(ApiError::Invalid(vec![fault]));
    }
    json::parse(body).map_err(|fault| ApiError::Invalid(vec![fault]))
}

/// Whether a media type is `application/json`, anything ending in `+json`, or not declared at all.
pub(crate) fn is_json(content_type: Option<&str>) -> bool {
    let Some(declared) = content_type else {
        return true;
    };
    let essence = declared.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_declared_in_many_ways() {
        let declared = |text: &str| is_json(Some(text));
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
            "application/json;",
        ] {
            assert!(declared(text), "{text}");
        }
        for text in [
            "",
            "text/plain",
            "text/json",
            "application/jsonp",
            "json",
            "application/",
        ] {
            assert!(!declared(text), "{text}");
        }
        assert!(is_json(None));
    }

    #[tokio::test]
    async fn long_bodies_are_read_elsewhere_and_panics_there_are_errors() {
        let readers = Readers::new();
        let here = std::thread::current().id();
        let thread = || Ok(std::thread::current().id());
        assert_eq!(readers.run(INLINE_BYTES, thread).await.unwrap(), here);
        assert_ne!(readers.run(INLINE_BYTES + 1, thread).await.unwrap(), here);
        let panicking = || -> Result<(), ApiError> { panic!("secret") };
        let error = readers.run(INLINE_BYTES + 1, panicking).await.unwrap_err();
        assert!(matches!(error, ApiError::Internal(_)));
        assert_eq!(
            readers.0.available_permits(),
            Readers::new().0.available_permits()
        );
    }
}
