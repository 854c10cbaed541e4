//! Liveness and readiness. Both need no key and take no place inside.
//!
//! Live: the process answers. Ready: the model is loaded, a real prediction went through it, its
//! thread is up, the job store takes changes, and the server is not stopping.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::JSON;
use super::state::Shared;

/// `GET /health/live`
pub(crate) async fn live() -> Response {
    word(StatusCode::OK, r#"{"status":"live"}"#)
}

/// `GET /health/ready`
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_stopping() {
        word(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#)
    } else if !shared.has_model() {
        word(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"starting"}"#)
    } else if let Some(fault) = shared.queue.store_health().fault {
        let body = json!({"status": "store_unavailable", "reason": fault.sentence()});
        word(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
    } else {
        word(StatusCode::OK, r#"{"status":"ready"}"#)
    }
}

fn word(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body.into()).into_response()
}
