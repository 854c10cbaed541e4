//! Every middleware, in the order it runs, with the reason for the order.
//!
//! 1. [`observe`]: request id, log span, metrics, the one place where errors are logged. Outermost,
//!    so that every answer has an id and is counted, whatever made it.
//! 2. Panic catch: inside of `observe`, so that a panic is an answer with an id like any other.
//! 3. On model routes the key check ([`super::auth`]), before a byte of the body is read.
//! 4. On model routes [`admit`]: after the key, so that strangers take no place inside.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::error::{ApiError, Blame, Failure, REQUEST_ID};
use super::state::Shared;
use crate::fal::endpoint::Endpoint;

/// How the paths of uploads and files begin.
const FILES: &str = "/files/";

/// Puts the outer layers around all routes.
pub(crate) fn around(router: Router, shared: &Arc<Shared>) -> Router {
    // The last layer added is the first that runs.
    router
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), observe))
}

async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let arrived = Instant::now();
    let id = Uuid::now_v7().to_string();
    let route = route_label(request.uri().path());
    // The query is left out: it may carry a token. So may the path of an upload, and that of a file
    // is known to nobody who was not told.
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        method = %request.method(),
        path = %logged_path(request.uri().path()),
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    let took = arrived.elapsed();
    let status = response.status().as_u16();
    shared.metrics.observe_request(route, status, took);
    span.in_scope(|| {
        log(
            response.extensions().get::<Failure>(),
            status,
            took.as_millis(),
        )
    });
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Levels follow from whose fault it was; see [`Blame`].
fn log(failure: Option<&Failure>, status: u16, took_ms: u128) {
    match failure {
        None => tracing::info!(status, took_ms, "answered"),
        Some(Failure { blame, cause }) => match blame {
            Blame::Caller => tracing::debug!(status, took_ms, %cause, "refused"),
            Blame::Deadline => tracing::info!(status, took_ms, %cause, "too late"),
            Blame::Overload => tracing::info!(status, took_ms, %cause, "too busy"),
            Blame::Unready => tracing::warn!(status, took_ms, %cause, "unable"),
            Blame::Us => tracing::error!(status, took_ms, %cause, "failed"),
        },
    }
}

/// The part of a path that may stand in the log.
fn logged_path(path: &str) -> &str {
    if is_file(path) { FILES } else { path }
}

fn is_file(path: &str) -> bool {
    path.starts_with(FILES)
}

/// A label from a fixed list: an endpoint's name, one of our own paths, or neither.
fn route_label(path: &str) -> &'static str {
    if is_file(path) {
        return "files";
    }
    let last = path.trim_end_matches('/').rsplit('/').next();
    if let Some(endpoint) = last.and_then(Endpoint::named) {
        return endpoint.name;
    }
    ["/health/live", "/health/ready", "/metrics"]
        .into_iter()
        .find(|known| *known == path)
        .unwrap_or("other")
}

fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    ApiError::Internal(format!("a handler panicked: {text}")).into_response()
}

/// Refuses a call when too many are inside, or when the server cannot answer it anyway.
pub(crate) async fn admit(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let _place = shared.admit().ok_or(ApiError::Busy)?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_files_and_uploads_stay_out_of_the_log() {
        for path in [
            "/files/upload/secret",
            "/files/0123/a.png/multipart/secret/1",
        ] {
            assert_eq!((logged_path(path), route_label(path)), ("/files/", "files"));
        }
        assert_eq!(
            logged_path("/fal-ai/florence-2-large/ocr"),
            "/fal-ai/florence-2-large/ocr"
        );
        assert_eq!(route_label("/fal-ai/florence-2-large/ocr/"), "ocr");
    }
}
