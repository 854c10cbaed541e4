//! The public keys with which receivers of webhooks check that they come from here. Open to all.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::server::error::JSON;
use crate::server::state::Shared;

/// `GET /.well-known/jwks.json`
pub(crate) async fn webhook_keys(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, JSON)], shared.queue.jwks()).into_response()
}
