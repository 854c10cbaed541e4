//! The rows of the table about uploads and hosted files.
//!
//! Negotiating asks for a key. Sending to a negotiated address does not: the address carries the
//! permission. Fetching does not either, because an address cannot be guessed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::{MethodRouter, get, post, put};

use super::Access::{Key, KeyOrUploadToken, Open};
use super::{READ, Row, row};
use crate::files::UploadKind;
use crate::server::handlers::files::serve;
use crate::server::handlers::{storage, uploads};
use crate::server::state::Shared;

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    let offer = |path, kind| row(path, Key, "POST", initiate(kind));
    let sent = |path, methods| row(path, KeyOrUploadToken, "POST", methods);
    let posted = |path, methods| row(path, Open, "POST", methods);
    let put_at = |path, methods| row(path, Open, "PUT", methods);
    vec![
        offer("/rest/storage/upload/initiate", UploadKind::Whole),
        offer("/rest/storage/upload/initiate-multipart", UploadKind::Parts),
        row(
            "/rest/storage/auth/token",
            Key,
            "POST",
            post(storage::token),
        ),
        sent("/files/upload", post(uploads::upload)),
        sent("/files/upload/multipart", post(uploads::begin_parts)),
        put_at("/files/upload/{ticket}", put(uploads::put_whole)),
        put_at("/files/upload/{ticket}/{part}", put(uploads::put_part)),
        posted("/files/upload/{ticket}/complete", post(uploads::complete)),
        put_at(
            "/files/{id}/{name}/multipart/{ticket}/{part}",
            put(uploads::put_part_below_file),
        ),
        posted(
            "/files/{id}/{name}/multipart/{ticket}/complete",
            post(uploads::complete_below_file),
        ),
        row("/files/{id}/{name}", Open, READ, get(serve)),
    ]
}

fn initiate(kind: UploadKind) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>, request: Request| async move {
            storage::initiate(&shared, kind, request).await
        },
    )
}
