//! fal's synchronous call: the input in, the bare output back; and the same as an event stream of
//! one event, which is all that a model without intermediate results has to tell.
//!
//! Dropping these futures, which hyper does when the caller hangs up, closes a running download and
//! takes the call out of the model's line.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;

use crate::server::call::{self, Call, CallAnswer, Subject};
use crate::server::error::ApiError;
use crate::server::state::Shared;
use crate::server::{extract, lifecycle};

/// Media type of event streams.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Answers one call.
pub(crate) async fn run(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    Ok(respond(called(shared, subject, request).await?))
}

/// Answers one call with one event. What goes wrong is an ordinary error.
pub(crate) async fn stream(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    let mut answer = called(shared, subject, request).await?;
    // The output is one line: serde writes none of its own, and strings hold them escaped.
    answer.body = [b"data: ", answer.body.as_slice(), b"\n\n"].concat();
    answer.headers.insert(CONTENT_TYPE, EVENT_STREAM);
    let no_cache = HeaderValue::from_static("no-cache");
    answer.headers.insert(CACHE_CONTROL, no_cache);
    Ok(respond(answer))
}

async fn called(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<CallAnswer, ApiError> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let timeout = extract::start_timeout(&head.headers)?;
    let lifecycle = lifecycle::of_products(&head.headers)?;
    let origin = &extract::reached(&head.extensions)?.origin;
    let body = extract::read_body(body, shared).await?;
    let call = Call {
        subject,
        content_type: extract::content_type(&head.headers),
        body: &body.bytes,
        start_by: timeout.and_then(|timeout| arrived.checked_add(timeout)),
        origin,
        lifecycle,
        gate: None,
    };
    call::answer(shared, call, &|_, _| {}).await
}

fn respond(answer: CallAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}
