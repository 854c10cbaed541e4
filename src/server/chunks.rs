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
const AHEAD: Duration = Duration::from_millis(2);

/// Time for which the model counts as working after its last call: between two calls of one caller it is
/// idle for a moment, and bodies would use each of these.
const STILL_WORKING: Duration = Duration::from_millis(100);

/// The rate of long bodies.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Bytes a second.
    rate: usize,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// The moment until which what was taken of long bodies is paid for.
    paid_until: Instant,
    /// The moment until which the model counts as working.
    working_until: Instant,
}

impl Intake {
    /// For a machine of so many cores. Nothing was taken yet, and the model never worked.
    pub(crate) fn new(cores: usize) -> Self {
        let now = Instant::now();
        Self {
            rate: cores.saturating_mul(LONG_BODIES_RATE),
            times: Mutex::new(Times {
                paid_until: now,
                working_until: now,
            }),
        }
    }

    /// Waits as long as bodies are ahead of their rate with this many more bytes. Cancel-safe.
    async fn take(&self, bytes: usize, is_working: bool) {
        let now = Instant::now();
        let paid_until = self.pay(bytes, is_working, now);
        if paid_until > now + AHEAD {
            tokio::time::sleep_until(paid_until.into()).await;
        }
    }

    fn pay(&self, bytes: usize, is_working: bool, now: Instant) -> Instant {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if is_working {
            times.working_until = now + STILL_WORKING;
        }
        if times.working_until > now {
            let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            times.paid_until = now.max(times.paid_until) + cost;
        }
        times.paid_until
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
                    self.shared.intake.take(chunk.len(), is_working).await;
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
        let intake = Intake::new(4);
        let rate = 4 * LONG_BODIES_RATE;
        let now = Instant::now() + Duration::from_secs(60);
        let after = |bytes, is_working, now: Instant| {
            let paid_until = intake.pay(bytes, is_working, now);
            paid_until.saturating_duration_since(now)
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
