//! One model call, from the bytes of its body to the parts of its answer.
//!
//! Synchronous calls and jobs from the queue both come through here, so that the two cannot drift
//! apart. Who waits for the answer, and how it reaches them, is not known here.

use std::time::Instant;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use super::error::{ApiError, BILLABLE_UNITS, JSON};
use super::extract;
use super::state::Shared;
use crate::fal::endpoint::Endpoint;
use crate::fal::input::{self, Input};
use crate::files::Lifecycle;
use crate::pipeline::{Answered, ImageHost};
use crate::queue::LogLevel;

/// Hears what happens while a call is answered, in words for the caller.
pub(crate) type Listener<'a> = &'a (dyn Fn(LogLevel, String) + Sync);

/// A call as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The endpoint.
    pub(crate) endpoint: &'static Endpoint,
    /// The body's declared media type.
    pub(crate) content_type: Option<&'a str>,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Latest moment for the model to begin.
    pub(crate) start_by: Option<Instant>,
    /// Scheme and authority by which the caller knows this server.
    pub(crate) origin: &'a str,
    /// How long the drawn picture lives, and for whom.
    pub(crate) lifecycle: Lifecycle,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Answers one call.
///
/// Cancel-safe: dropping the future closes a running download and leaves the model's line.
///
/// # Errors
/// Whatever the table of errors has about bodies, fields, pictures and the model.
pub(crate) async fn answer(
    shared: &Shared,
    call: Call<'_>,
    listener: Listener<'_>,
) -> Result<CallAnswer, ApiError> {
    let value = extract::parse_json(call.content_type, call.body)?;
    let input = input::read(call.endpoint, value).map_err(ApiError::Invalid)?;
    let pipeline = shared.pipeline().ok_or(ApiError::NotReady)?;
    listener(LogLevel::Info, beginning(call.endpoint, &input));
    let host = ImageHost {
        files: &shared.files,
        base: call.origin,
        lifecycle: call.lifecycle,
    };
    let answering = pipeline.answer_endpoint(call.endpoint, &input, call.start_by, Some(host));
    let answered = match answering.await {
        Ok(answered) => answered,
        Err(error) => {
            let input = Box::new(input);
            let task = None;
            return Err(ApiError::Pipeline { error, input, task });
        }
    };
    shared.metrics.observe_stages(&answered.timings);
    for line in account(&answered) {
        tracing::debug!("{line}");
        listener(LogLevel::Info, line);
    }
    let body = serde_json::to_vec(&answered.output)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(BILLABLE_UNITS, HeaderValue::from_static("1"));
    Ok(CallAnswer {
        status: StatusCode::OK,
        headers,
        body,
    })
}

/// Says what is about to be done. Of an address only scheme and host are named: the rest may hold a
/// signature.
fn beginning(endpoint: &Endpoint, input: &Input) -> String {
    let url = &input.image_url;
    let source = match Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "data" => {
            format!("a data: URI of {} characters", url.len())
        }
        Ok(parsed) => match parsed.host_str() {
            Some(host) => format!("{}://{host}", parsed.scheme()),
            None => "an address without a host".to_owned(),
        },
        Err(_) => "something that is no address".to_owned(),
    };
    format!("Task {}, picture from {source}.", endpoint.name)
}

/// Says what was done and how long it took.
fn account(answered: &Answered) -> [String; 4] {
    let times = &answered.timings;
    let stages = &times.stages;
    [
        format!(
            "Picture of {} x {} pixels, loaded in {:.1} ms, prepared in {:.1} ms.",
            answered.width, answered.height, times.picture_ms, times.preprocess_ms
        ),
        format!(
            "Model answered with {} tokens in {:.1} ms: vision {:.1}, encoder {:.1}, prefill {:.1}, decode {:.1}.",
            answered.token_ids.len(),
            times.predict_ms,
            stages.vision_ms,
            stages.encoder_ms,
            stages.prefill_ms,
            stages.decode_ms
        ),
        format!("Answer read in {:.1} ms.", times.postprocess_ms),
        format!("Picture drawn in {:.1} ms.", times.draw_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_names_the_host_of_a_picture_and_nothing_else_of_its_address() {
        let said = |image_url: &str| {
            let input = Input {
                image_url: image_url.into(),
                text_input: None,
                region: None,
                scores: false,
                sync_mode: false,
            };
            let endpoint = Endpoint::named("caption").unwrap();
            let line = beginning(endpoint, &input);
            let source = line.strip_prefix("Task caption, picture from ").unwrap();
            source.strip_suffix('.').unwrap().to_owned()
        };
        for (image_url, source) in [
            (
                "https://u:p@a.test:8443/secret?sig=secret#x",
                "https://a.test",
            ),
            ("data:image/png;base64,AAAA", "a data: URI of 26 characters"),
            ("secret", "something that is no address"),
            ("secret:secret", "an address without a host"),
        ] {
            assert_eq!(said(image_url), source);
        }
    }
}
