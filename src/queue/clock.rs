//! The machine's two clocks: the calendar, which anybody may set, and one that only runs on.
//!
//! A value that is passed in, so that tests of deadlines, pauses and expiry do not sleep, and can set
//! the calendar as an operator or a time server would. What the queue makes of the two is
//! [`super::timeline`].

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Completes at some moment.
pub type Sleeping<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Tells the time and waits.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the epoch by the calendar. May jump either way.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since some moment by a clock that nobody sets.
    fn elapsed_ms(&self) -> i64;

    /// Completes once [`Clock::elapsed_ms`] is at least `elapsed_ms`.
    fn sleep_until(&self, elapsed_ms: i64) -> Sleeping<'_>;
}

/// The machine's clocks. Time in which the whole machine sleeps does not count as elapsed.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Clocks of which the one that nobody sets begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        to_ms(since.unwrap_or_default())
    }

    fn elapsed_ms(&self) -> i64 {
        to_ms(self.started.elapsed())
    }

    fn sleep_until(&self, elapsed_ms: i64) -> Sleeping<'_> {
        let left = elapsed_ms.saturating_sub(self.elapsed_ms());
        let left = u64::try_from(left).unwrap_or_default();
        Box::pin(tokio::time::sleep(Duration::from_millis(left)))
    }
}

/// A duration as stored times count it.
pub(super) fn to_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_moment_in_the_past_is_not_waited_for() {
        let clock = SystemClock::new();
        clock.sleep_until(i64::MIN).await;
        clock.sleep_until(clock.elapsed_ms()).await;
    }

    #[tokio::test]
    async fn a_moment_is_not_reached_early() {
        let clock = SystemClock::new();
        let at = clock.elapsed_ms() + 20;
        clock.sleep_until(at).await;
        assert!(clock.elapsed_ms() >= at);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_beyond_all_time_is_waited_for_without_overflow() {
        let clock = SystemClock::new();
        let waiting = clock.sleep_until(i64::MAX);
        let waited = tokio::time::timeout(Duration::from_secs(86_400), waiting).await;
        assert!(waited.is_err());
    }
}
