//! Liveness and readiness. Both need no key and take no place inside.
//!
//! Live: the process answers. Ready: the model is loaded, a real prediction went through it, its
//! thread is up, and the server is not stopping.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::error::JSON;
use super::state::Shared;

/// `GET /health/live`
pub(crate) async fn live() -> Response {
    word(StatusCode::OK, r#"{"status":"live"}"#)
}

/// `GET /health/ready`
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_ready() {
        word(StatusCode::OK, r#"{"status":"ready"}"#)
    } else if shared.is_stopping() {
        word(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#)
    } else {
        word(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"starting"}"#)
    }
}

fn word(status: StatusCode, body: &'static str) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}
