//! Request bodies piece by piece, as they arrive: their clock, and their rate while the model works.
//!
//! The clock is an average, not an idle time: after a grace period the body must have arrived at a
//! minimum rate, so one byte a second does not hold a place for long. The rate is a bound for all long
//! bodies together: taking them from the network at full speed keeps whole cores busy, and the calls at
//! work would wait for those.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::error::ApiError;
use super::state::Shared;
use crate::config::HttpSettings;

/// Bytes of a body that are taken as they come.
const SHORT_BODY_BYTES: usize = 1 << 20;

/// Bytes a second of all long bodies while the model works, for each core: a sixteenth of its time, and
/// half a Gbit/s.
const LONG_BODIES_RATE: usize = 64 << 20;

/// Time that bodies may be ahead of that rate, because a timer counts milliseconds.
const BURST: Duration = Duration::from_millis(2);

/// Time for which the model counts as working after its last call: between two calls of one caller it is
/// idle for a moment, and bodies would use each of these.
const STILL_WORKING: Duration = Duration::from_millis(100);

/// A rate limiter for the bytes of all long bodies, as a leaky bucket: what was taken ahead of the rate
/// is waited for.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// Bytes a second.
    rate: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The moment at which the bucket is empty: what was taken until now keeps to the rate then.
    empty_at: Instant,
    /// The moment until which the model counts as working.
    working_until: Instant,
}

impl RateLimiter {
    /// For a machine of so many cores. Nothing was taken yet, and the model never worked.
    pub(crate) fn new(cores: usize) -> Self {
        let now = Instant::now();
        Self {
            rate: cores.saturating_mul(LONG_BODIES_RATE),
            state: Mutex::new(State {
                empty_at: now,
                working_until: now,
            }),
        }
    }

    /// Waits as long as bodies are ahead of their rate with this many more bytes. Cancel-safe.
    async fn throttle(&self, bytes: usize, is_working: bool) {
        let now = Instant::now();
        let empty_at = self.fill(bytes, is_working, now);
        if empty_at > now + BURST {
            tokio::time::sleep_until(empty_at.into()).await;
        }
    }

    /// Adds bytes, and says when the bucket is empty.
    fn fill(&self, bytes: usize, is_working: bool, now: Instant) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if is_working {
            state.working_until = now + STILL_WORKING;
        }
        if state.working_until > now {
            let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            state.empty_at = now.max(state.empty_at) + cost;
        }
        state.empty_at
    }
}

/// A body piece by piece, under the clock but without a cap: that is for whoever takes the pieces.
pub(crate) struct Chunks<'a> {
    body: Body,
    shared: &'a Shared,
    begun: Instant,
    read: usize,
}

impl<'a> Chunks<'a> {
    /// Starts the clock.
    pub(crate) fn of(body: Body, shared: &'a Shared) -> Self {
        Self {
            body,
            shared,
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
            let deadline = self.begun + time_for(self.read, &self.shared.http);
            let frame = match tokio::time::timeout_at(deadline.into(), self.body.frame()).await {
                Err(_) => return Err(ApiError::BodyTooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(ApiError::BodyBroken(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers carry nothing that we read.
            if let Ok(chunk) = frame.into_data() {
                self.read += chunk.len();
                if self.read > SHORT_BODY_BYTES {
                    let is_working = self.shared.is_working();
                    self.shared
                        .long_bodies
                        .throttle(chunk.len(), is_working)
                        .await;
                }
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
    fn long_bodies_share_one_rate_and_save_up_nothing() {
        let limiter = RateLimiter::new(4);
        let rate = 4 * LONG_BODIES_RATE;
        let now = Instant::now() + Duration::from_secs(60);
        let after = |bytes, is_working, now: Instant| {
            let empty_at = limiter.fill(bytes, is_working, now);
            empty_at.saturating_duration_since(now)
        };
        assert_eq!(after(rate, false, now), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(after(rate, true, now), second);
        // Between two calls.
        assert_eq!(after(rate / 2, false, now), second * 3 / 2);
        let later = now + second * 60;
        assert_eq!(after(rate, false, later), Duration::ZERO);
        assert_eq!(after(rate, true, later), second);
    }
}
