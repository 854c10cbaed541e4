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
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::files::Durability;
use crate::semaphore::Caller;
use crate::server::call::{self, Call, CallAnswer, Subject};
use crate::server::error::ApiError;
use crate::server::state::Shared;
use crate::server::{caller, extract, lifecycle};

/// Media type of event streams.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Answers one call.
pub(crate) async fn run(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = caller::of(request.extensions());
    respond(shared, caller, called(shared, subject, request).await?)
}

/// Answers one call with one event. What goes wrong is an ordinary error.
pub(crate) async fn stream(
    shared: &Shared,
    subject: Subject,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = caller::of(request.extensions());
    let mut answer = called(shared, subject, request).await?;
    answer.headers.insert(CONTENT_TYPE, EVENT_STREAM);
    let no_cache = HeaderValue::from_static("no-cache");
    answer.headers.insert(CACHE_CONTROL, no_cache);
    let mut response = respond(shared, caller, answer)?;
    // The output is one line: serde writes none of its own, and strings hold them escaped. It may be
    // megabytes, so nothing is put before it by moving it.
    let output = std::mem::take(response.body_mut()).into_data_stream();
    let around = |text: &'static str| stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    let event = around("data: ").chain(output).chain(around("\n\n"));
    *response.body_mut() = Body::from_stream(event);
    Ok(response)
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
    // An answer that is not kept needs no better kept picture, unless the caller named a time for it.
    let durability = match lifecycle.lifetime {
        Some(_) => Durability::Synced,
        None => Durability::Unsynced,
    };
    let files_origin = extract::reached(&head.extensions)?.files_origin();
    let caller = caller::of(&head.extensions);
    // Its share of the memory is kept to the end: for the picture that is made of it.
    let mut body = extract::read_body(body, caller, shared).await?;
    // Only now it is work. Whoever is refused here has found room before the body was sent.
    let permit = shared.admit().ok_or(ApiError::Busy)?;
    let call = Call {
        subject,
        content_type: extract::content_type(&head.headers),
        body: std::mem::take(&mut body.bytes),
        caller,
        permit: Some(&permit),
        start_by: timeout.and_then(|timeout| arrived.checked_add(timeout)),
        files_origin: &files_origin,
        lifecycle,
        durability,
        gate: None,
    };
    call::answer(shared, call, &|_, _| {}).await
}

fn respond(shared: &Shared, caller: Caller, answer: CallAnswer) -> Result<Response, ApiError> {
    let body = shared.bodies.account(caller, answer.body)?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}
