//! Reads request bodies and headers; what it refuses is already fal's error.
//!
//! A body has a cap and a clock. The clock is an average, not an idle time: after a grace period
//! the body must have arrived at a minimum rate, so one byte a second does not hold a place inside.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;

use super::error::ApiError;
use crate::config::HttpSettings;
use crate::fal::{input, json};

/// Longest start deadline that a caller can ask for. A day is beyond any use; the bound keeps
/// arithmetic on foreign numbers small.
const MAX_START_TIMEOUT_S: f64 = 86_400.0;

/// Reads a JSON body by the rules of fal's validator.
///
/// # Errors
/// Too large, too slow, cut off, not JSON, or not declared as JSON.
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    settings: &HttpSettings,
) -> Result<Value, ApiError> {
    let bytes = read_body(body, settings).await?;
    if !bytes.is_empty() && !is_declared_json(headers.get(CONTENT_TYPE)) {
        // The validator takes an undeclared body as text, and a text is no object.
        let text = Value::String(String::from_utf8_lossy(&bytes).into_owned());
        return Err(ApiError::Invalid(vec![input::not_an_object(&[], &text)]));
    }
    json::parse(&bytes).map_err(|fault| ApiError::Invalid(vec![fault]))
}

async fn read_body(body: Body, settings: &HttpSettings) -> Result<Vec<u8>, ApiError> {
    let max_bytes = settings.max_body_bytes;
    let mut chunks = Chunks::of(body, settings);
    // What the caller announced is refused before any of it is read.
    if chunks.announced() > max_bytes as u64 {
        return Err(ApiError::BodyTooLarge { max_bytes });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(ApiError::BodyTooLarge { max_bytes });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A body piece by piece, under the clock but without a cap: that is for whoever takes the pieces.
pub(crate) struct Chunks<'a> {
    body: Body,
    settings: &'a HttpSettings,
    begun: Instant,
    read: usize,
}

impl<'a> Chunks<'a> {
    /// Starts the clock.
    pub(crate) fn of(body: Body, settings: &'a HttpSettings) -> Self {
        Self {
            body,
            settings,
            begun: Instant::now(),
            read: 0,
        }
    }

    /// Bytes that the caller has promised; zero for a body of unknown length.
    pub(crate) fn announced(&self) -> u64 {
        self.body.size_hint().lower()
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// Too slow, or cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let deadline = self.begun + time_for(self.read, self.settings);
            let frame = match tokio::time::timeout_at(deadline.into(), self.body.frame()).await {
                Err(_) => return Err(ApiError::BodyTooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(ApiError::BodyBroken(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers carry nothing that we read.
            if let Ok(chunk) = frame.into_data() {
                self.read += chunk.len();
                return Ok(Some(chunk));
            }
        }
    }
}

/// How long a body may have taken by the time this many bytes are there.
fn time_for(bytes: usize, settings: &HttpSettings) -> Duration {
    let rate = settings.min_body_rate_bytes.max(1);
    let whole_seconds = u64::try_from(bytes / rate).unwrap_or(u64::MAX);
    settings
        .body_grace
        .saturating_add(Duration::from_secs(whole_seconds))
}

/// `application/json`, anything ending in `+json`, or no declaration at all.
fn is_declared_json(content_type: Option<&HeaderValue>) -> bool {
    let Some(value) = content_type else {
        return true;
    };
    let essence = value.to_str().unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// The moment by which the model must have begun, from `X-Fal-Request-Timeout`.
///
/// # Errors
/// When the header is no positive number of seconds.
pub(crate) fn start_deadline(
    headers: &HeaderMap,
    arrived: Instant,
) -> Result<Option<Instant>, ApiError> {
    let Some(value) = headers.get("x-fal-request-timeout") else {
        return Ok(None);
    };
    let seconds = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0)
        .ok_or(ApiError::BadTimeoutHeader)?;
    let timeout = Duration::from_secs_f64(seconds.min(MAX_START_TIMEOUT_S));
    Ok(arrived.checked_add(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_declared_in_many_ways() {
        let declared = |text: &str| is_declared_json(Some(&text.parse().unwrap()));
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
            "application/json;",
        ] {
            assert!(declared(text), "{text}");
        }
        for text in [
            "",
            "text/plain",
            "text/json",
            "application/jsonp",
            "json",
            "application/",
        ] {
            assert!(!declared(text), "{text}");
        }
        assert!(is_declared_json(None));
    }

    #[test]
    fn the_body_clock_grows_with_what_arrived() {
        let settings = HttpSettings {
            body_grace: Duration::from_secs(30),
            min_body_rate_bytes: 64 << 10,
            ..HttpSettings::default()
        };
        assert_eq!(time_for(0, &settings), Duration::from_secs(30));
        assert_eq!(time_for(64 << 10, &settings), Duration::from_secs(31));
        assert_eq!(time_for(32 << 20, &settings), Duration::from_secs(542));
    }

    #[test]
    fn start_deadlines_are_positive_seconds_within_a_day() {
        let now = Instant::now();
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-fal-request-timeout", text.parse().unwrap());
            start_deadline(&headers, now)
        };
        for (text, ms) in [
            ("30", 30_000),
            ("45.5", 45_500),
            (" 30.0 ", 30_000),
            ("0.1", 100),
        ] {
            let expected = now + Duration::from_millis(ms);
            assert_eq!(parse(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["1e300", "inf"] {
            let expected = now + Duration::from_secs(86_400);
            assert_eq!(parse(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["", "0", "-1", "NaN", "soon", "30s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(start_deadline(&HeaderMap::new(), now).unwrap().is_none());
    }
}
