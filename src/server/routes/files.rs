//! The rows of the table about uploads and hosted files.
//!
//! Negotiating asks for a key. Sending does not: the address carries the permission. Fetching does
//! not either, because an address cannot be guessed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post, put};
use axum::{Router, middleware};

use crate::files::UploadKind;
use crate::server::auth;
use crate::server::error::ApiError;
use crate::server::handlers::files::serve;
use crate::server::handlers::{storage, uploads};
use crate::server::state::Shared;

/// The rows.
pub(super) fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let initiate = |kind| {
        move |State(shared): State<Arc<Shared>>, request: Request| async move {
            storage::initiate(&shared, kind, request).await
        }
    };
    let keyed = |handler| keyed(handler, shared);
    Router::new()
        .route(
            "/rest/storage/upload/initiate",
            keyed(post(initiate(UploadKind::Whole))),
        )
        .route(
            "/rest/storage/upload/initiate-multipart",
            keyed(post(initiate(UploadKind::Parts))),
        )
        .route("/rest/storage/auth/token", keyed(post(storage::token)))
        .route("/files/upload", posting(uploads::upload))
        .route("/files/upload/multipart", posting(uploads::begin_parts))
        .route("/files/upload/{ticket}", putting(uploads::put_whole))
        .route("/files/upload/{ticket}/{part}", putting(uploads::put_part))
        .route(
            "/files/upload/{ticket}/complete",
            posting(uploads::complete),
        )
        .route(
            "/files/{id}/{name}/multipart/{ticket}/{part}",
            putting(uploads::put_part_below_file),
        )
        .route(
            "/files/{id}/{name}/multipart/{ticket}/complete",
            posting(uploads::complete_below_file),
        )
        .route("/files/{id}/{name}", super::reading(get(serve)))
}

fn keyed(route: MethodRouter<Arc<Shared>>, shared: &Arc<Shared>) -> MethodRouter<Arc<Shared>> {
    route
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            auth::require_key,
        ))
        .fallback(|| async { ApiError::MethodNotAllowed { allow: "POST" } })
}

fn posting<H, T>(handler: H) -> MethodRouter<Arc<Shared>>
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    post(handler).fallback(|| async { ApiError::MethodNotAllowed { allow: "POST" } })
}

fn putting<H, T>(handler: H) -> MethodRouter<Arc<Shared>>
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    put(handler).fallback(|| async { ApiError::MethodNotAllowed { allow: "PUT" } })
}
