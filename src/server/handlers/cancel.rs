//! Cancels a job.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::fal::queue::{QueueWord, Word};
use crate::queue::CancelOutcome;
use crate::server::error::ApiError;
use crate::server::job_view;
use crate::server::state::Shared;

/// `PUT {queue}/fal-ai/florence-2-large/requests/{id}/cancel`
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let id = job_view::id_in(uri.path())?;
    Ok(job_view::name(id, ask(&shared, id).await))
}

async fn ask(shared: &Shared, id: Uuid) -> Result<Response, ApiError> {
    let outcome = shared.queue.cancel(id).await;
    match outcome.map_err(|error| ApiError::QueueUnavailable(error.to_string()))? {
        CancelOutcome::Requested => {
            let status = Word::CancellationRequested;
            Ok((StatusCode::ACCEPTED, Json(QueueWord { status })).into_response())
        }
        CancelOutcome::AlreadyCompleted => Err(ApiError::JobAlreadyDone),
        CancelOutcome::NotFound => Err(ApiError::UnknownJob),
    }
}
