//! Reads request bodies, headers and queries; what it refuses is already fal's error.
//!
//! A body has a cap and a clock. The clock is an average, not an idle time: after a grace period
//! the body must have arrived at a minimum rate, so one byte a second does not hold a place for long.
//! Bodies have bounds of their own, and none of work while they arrive: their number, and the memory
//! of all, which is taken as bytes arrive, so a slow caller holds only what was really sent. Of both
//! one caller may hold only a share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::error::ApiError;
use super::face::Reached;
use super::state::Shared;
use crate::config::HttpSettings;
use crate::semaphore::{Caller, Exhausted, FairPermit, FairSemaphore};

/// Longest start deadline that a caller can ask for. A day is beyond any use; the bound keeps
/// arithmetic on foreign numbers small.
const MAX_START_TIMEOUT_S: f64 = 86_400.0;

/// Bytes of an answer that takes no share of the memory.
const SHORT_ANSWER_BYTES: usize = 64 << 10;

/// Bytes for which one permit stands.
const PERMIT_BYTES: usize = 1024;

/// Request bodies that are arriving, and the memory of those that are there and of answers; of both one
/// caller may hold only a share.
#[derive(Debug)]
pub(crate) struct Bodies {
    arriving: FairSemaphore<Caller>,
    memory: FairSemaphore<Caller>,
    /// Permits of the largest request body, which fit into every share.
    one_body: usize,
}

impl Bodies {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        let percent = settings.peers.max_share_percent;
        let memory = settings.max_body_memory_bytes.div_ceil(PERMIT_BYTES);
        let one_body = settings.max_body_bytes.div_ceil(PERMIT_BYTES);
        Self {
            arriving: FairSemaphore::with_percent(settings.peers.max_bodies, percent, 1),
            memory: FairSemaphore::with_percent(memory, percent, one_body),
            one_body,
        }
    }

    /// Takes a long answer's share, which is given back when its reader has it. Short ones are as
    /// little as what a connection takes anyway.
    ///
    /// # Errors
    /// When there is no memory left.
    pub(crate) fn account(&self, caller: Caller, answer: Bytes) -> Result<Bytes, ApiError> {
        if answer.len() <= SHORT_ANSWER_BYTES {
            return Ok(answer);
        }
        // One that is larger than any share counts as the largest that fits into each.
        let permits = answer.len().div_ceil(PERMIT_BYTES).min(self.one_body);
        let held = self.memory.try_acquire(&caller, permits)?;
        Ok(WholeBody::new(answer, held).bytes)
    }
}

/// A share of the memory, given back when it is dropped.
type Held = FairPermit<Caller>;

/// Takes as much as is lacking for `bytes`; never waits.
fn hold(held: &mut Held, bytes: usize) -> Result<(), Exhausted> {
    match bytes.div_ceil(PERMIT_BYTES).saturating_sub(held.permits()) {
        0 => Ok(()),
        lacking => held.try_grow(lacking),
    }
}

/// A whole body, and the share of memory that it holds until it is dropped, and its bytes with every
/// copy of their handle.
#[derive(Debug)]
pub(crate) struct WholeBody {
    pub(crate) bytes: Bytes,
    _held: Arc<Held>,
}

/// Bytes that give their share back when the last handle to them goes, wherever it has got to.
struct Accounted {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl WholeBody {
    fn new(bytes: Bytes, held: Held) -> Self {
        let held = Arc::new(held);
        let bytes = Bytes::from_owner(Accounted {
            bytes,
            _held: Arc::clone(&held),
        });
        Self { bytes, _held: held }
    }
}

/// Reads a body to its end.
///
/// # Errors
/// Too large, too slow, cut off, or too many at once.
pub(crate) async fn read_body(
    body: Body,
    caller: Caller,
    shared: &Shared,
) -> Result<WholeBody, ApiError> {
    let settings = &shared.http;
    let max_bytes = settings.max_body_bytes;
    let mut chunks = Chunks::of(body, settings);
    // What the caller announced is refused before any of it is read.
    if chunks.announced() > max_bytes as u64 {
        return Err(ApiError::BodyTooLarge { max_bytes });
    }
    let _arriving = shared.bodies.arriving.try_acquire(&caller, 1)?;
    let mut held = shared.bodies.memory.try_acquire(&caller, 0)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(ApiError::BodyTooLarge { max_bytes });
        }
        hold(&mut held, bytes.len() + chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(WholeBody::new(bytes.into(), held))
}

/// The declared media type; empty when it is no text.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?;
    Some(value.to_str().unwrap_or_default())
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

/// How long the caller wants to wait for the model to begin, from `X-Fal-Request-Timeout`.
///
/// # Errors
/// When the header is no positive number of seconds.
pub(crate) fn start_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get("x-fal-request-timeout") else {
        return Ok(None);
    };
    let seconds = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0)
        .ok_or(ApiError::BadTimeoutHeader)?;
    Ok(Some(Duration::from_secs_f64(
        seconds.min(MAX_START_TIMEOUT_S),
    )))
}

/// What the request means, which the outermost layer has decided.
///
/// # Errors
/// When that layer is missing.
pub(crate) fn reached(extensions: &Extensions) -> Result<&Reached, ApiError> {
    let reached = extensions.get::<Reached>();
    reached.ok_or_else(|| ApiError::Internal("a request passed by the face layer".into()))
}

/// The first value of a parameter of the query, decoded.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter_map(|(key, value)| (key == name).then_some(value));
    values.next().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-fal-request-timeout", text.parse().unwrap());
            start_timeout(&headers)
        };
        for (text, ms) in [
            ("30", 30_000),
            ("45.5", 45_500),
            (" 30.0 ", 30_000),
            ("0.1", 100),
        ] {
            let expected = Duration::from_millis(ms);
            assert_eq!(parse(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["1e300", "inf"] {
            let expected = Duration::from_secs(86_400);
            assert_eq!(parse(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["", "0", "-1", "NaN", "soon", "30s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(start_timeout(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn bodies_share_one_memory_and_give_it_back() {
        let peer = |last: u8| Caller::Peer {
            network: [192, 0, 2, last].into(),
            key: None,
        };
        let bodies = Bodies::new(&HttpSettings {
            max_body_bytes: 3 * PERMIT_BYTES,
            max_body_memory_bytes: 4 * PERMIT_BYTES,
            ..HttpSettings::default()
        });
        let memory = |last| bodies.memory.try_acquire(&peer(last), 0).unwrap();
        let (mut one, mut two) = (memory(1), memory(2));
        hold(&mut one, 1).unwrap();
        hold(&mut one, PERMIT_BYTES).unwrap();
        hold(&mut one, PERMIT_BYTES + 1).unwrap();
        hold(&mut two, 2 * PERMIT_BYTES).unwrap();
        assert_eq!(hold(&mut one, 2 * PERMIT_BYTES + 1), Err(Exhausted::All));
        drop(two);
        // The largest body fits into a share of half.
        hold(&mut one, 3 * PERMIT_BYTES).unwrap();
        assert_eq!(hold(&mut one, 3 * PERMIT_BYTES + 1), Err(Exhausted::Share));
    }

    #[test]
    fn a_share_is_held_as_long_as_any_handle_to_the_bytes() {
        let bodies = Bodies::new(&HttpSettings {
            max_body_bytes: 128 * PERMIT_BYTES,
            max_body_memory_bytes: 128 * PERMIT_BYTES,
            ..HttpSettings::default()
        });
        let free = || bodies.memory.available();
        let mut held = bodies.memory.try_acquire(&Caller::Own, 0).unwrap();
        hold(&mut held, 3 * PERMIT_BYTES).unwrap();
        let body = WholeBody::new(Bytes::from(vec![7; 3 * PERMIT_BYTES]), held);
        let part = body.bytes.slice(5..6);
        drop(body);
        assert_eq!(free(), 125);
        drop(part);
        assert_eq!(free(), 128);
        let answer = |bytes| bodies.account(Caller::Own, Bytes::from(vec![7; bytes]));
        let short = answer(SHORT_ANSWER_BYTES).unwrap();
        assert_eq!((short.len(), free()), (SHORT_ANSWER_BYTES, 128));
        let long = answer(SHORT_ANSWER_BYTES + 1).unwrap();
        assert_eq!(free(), 128 - 65);
        assert!(answer(SHORT_ANSWER_BYTES + 1).is_err());
        drop(long);
        // One that is larger than all of the memory counts as the largest body.
        let largest = answer(129 * PERMIT_BYTES).unwrap();
        assert_eq!((largest.len(), free()), (129 * PERMIT_BYTES, 0));
    }

    #[test]
    fn a_parameter_is_decoded_and_the_first_one_counts() {
        let query =
            Some("logs=1&fal_webhook=https%3A%2F%2Fa.test%2Fx%3Fy%3Dz+w&logs=0&empty=&bare");
        assert_eq!(parameter(query, "logs").as_deref(), Some("1"));
        let url = "https://a.test/x?y=z w";
        assert_eq!(parameter(query, "fal_webhook").as_deref(), Some(url));
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "bare").as_deref(), Some(""));
        assert_eq!(parameter(query, "other"), None);
        assert_eq!(parameter(None, "logs"), None);
    }
}
