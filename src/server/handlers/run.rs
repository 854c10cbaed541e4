//! fal's synchronous call: the input in, the bare output back.
//!
//! Dropping this future, which hyper does when the caller hangs up, closes a running download and
//! takes the call out of the model's line.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

use crate::fal::endpoint::Endpoint;
use crate::fal::input;
use crate::server::error::{ApiError, BILLABLE_UNITS, JSON};
use crate::server::extract;
use crate::server::state::Shared;

/// Answers one call.
pub(crate) async fn run(
    shared: &Shared,
    endpoint: &Endpoint,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let start_by = extract::start_deadline(&head.headers, arrived)?;
    let value = extract::read_json(&head.headers, body, &shared.http).await?;
    let input = input::read(endpoint, value).map_err(ApiError::Invalid)?;
    let pipeline = shared.pipeline().ok_or(ApiError::NotReady)?;
    let answered = match pipeline.answer_endpoint(endpoint, &input, start_by).await {
        Ok(answered) => answered,
        Err(error) => {
            let input = Box::new(input);
            let task = None;
            return Err(ApiError::Pipeline { error, input, task });
        }
    };
    shared.metrics.observe_stages(&answered.timings);
    tracing::debug!(
        width = answered.width,
        height = answered.height,
        tokens = answered.token_ids.len(),
        predict_ms = answered.timings.predict_ms,
        "answered"
    );
    let body = serde_json::to_vec(&answered.output)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(BILLABLE_UNITS, HeaderValue::from_static("1"));
    Ok(response)
}
