//! fal's synchronous call: the input in, the bare output back.
//!
//! Dropping this future, which hyper does when the caller hangs up, closes a running download and
//! takes the call out of the model's line.

use std::time::Instant;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::response::Response;

use super::json;
use crate::fal::endpoint::Endpoint;
use crate::fal::input;
use crate::pipeline::ImageHost;
use crate::server::base::base_of;
use crate::server::error::{ApiError, BILLABLE_UNITS};
use crate::server::state::Shared;
use crate::server::{extract, lifecycle};

/// Answers one call.
pub(crate) async fn run(
    shared: &Shared,
    endpoint: &Endpoint,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let start_by = extract::start_deadline(&head.headers, arrived)?;
    let lifecycle = lifecycle::of_products(&head.headers)?;
    let value = extract::read_json(&head.headers, body, &shared.http).await?;
    let input = input::read(endpoint, value).map_err(ApiError::Invalid)?;
    let pipeline = shared.pipeline().ok_or(ApiError::NotReady)?;
    // A caller who names no host gets no address, and an answer all the same.
    let base = base_of(&head.headers).ok();
    let files = shared.files().ok();
    let host = base.as_deref().zip(files).map(|(base, files)| ImageHost {
        files,
        base,
        lifecycle,
    });
    let answer = pipeline.answer_endpoint(endpoint, &input, start_by, host);
    let answered = match answer.await {
        Ok(answered) => answered,
        Err(error) => {
            let input = Box::new(input);
            return Err(ApiError::Pipeline { error, input });
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
    let mut response = json(&answered.output)?;
    let headers = response.headers_mut();
    headers.insert(BILLABLE_UNITS, HeaderValue::from_static("1"));
    Ok(response)
}
