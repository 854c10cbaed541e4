//! The answer of a job, repeated exactly: status, headers and body as they were kept.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use uuid::Uuid;

use crate::queue::{JobResult, StoredResult};
use crate::semaphore::Caller;
use crate::server::caller;
use crate::server::error::ApiError;
use crate::server::job_view;
use crate::server::state::Shared;

/// `GET {queue}/fal-ai/florence-2-large/requests/{id}`, and the same with `/response`.
pub(crate) async fn result(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = job_view::id_in(request.uri().path())?;
    let caller = caller::of(request.extensions());
    Ok(job_view::name(id, kept(&shared, id, caller).await))
}

async fn kept(shared: &Shared, id: Uuid, caller: Caller) -> Result<Response, ApiError> {
    let found = shared.queue.result(id).await;
    match found.map_err(|error| ApiError::QueueUnavailable(error.to_string()))? {
        None => Err(ApiError::UnknownJob),
        Some(JobResult::NotFinished) => Err(ApiError::JobInProgress),
        Some(JobResult::Finished(mut stored)) => {
            stored.body = shared.bodies.account(caller, stored.body)?;
            repeat(stored)
        }
    }
}

fn repeat(stored: StoredResult) -> Result<Response, ApiError> {
    let damaged = |what: String| ApiError::Internal(format!("a kept answer has {what}"));
    let mut response = Response::new(Body::from(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status)
        .map_err(|_| damaged(format!("the status {}", stored.status)))?;
    for (name, value) in &stored.headers {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value))
        else {
            return Err(damaged(format!("the header {name:?}")));
        };
        response.headers_mut().append(name, value);
    }
    Ok(response)
}
