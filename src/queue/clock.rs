//! The time that the queue goes by: milliseconds since the epoch, and waiting for a moment.
//!
//! A value that is passed in, so that tests of deadlines, pauses and expiry do not sleep. Stored
//! times outlive the process, so they are wall-clock times; how long something took is measured
//! elsewhere, with a clock that nobody can turn back.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest sleep in one piece. The wall clock may be set while somebody waits for a moment.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Completes at some moment.
pub type Sleeping<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64;

    /// Completes once [`Clock::now_ms`] is at least `at_ms`.
    fn sleep_until(&self, at_ms: i64) -> Sleeping<'_>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, at_ms: i64) -> Sleeping<'_> {
        Box::pin(async move {
            loop {
                let left = at_ms.saturating_sub(self.now_ms());
                let Ok(left @ 1..) = u64::try_from(left) else {
                    return;
                };
                tokio::time::sleep(Duration::from_millis(left).min(LONGEST_NAP)).await;
            }
        })
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
        SystemClock.sleep_until(i64::MIN).await;
        SystemClock.sleep_until(SystemClock.now_ms()).await;
    }

    #[tokio::test]
    async fn a_moment_is_not_reached_early() {
        let at = SystemClock.now_ms() + 20;
        SystemClock.sleep_until(at).await;
        assert!(SystemClock.now_ms() >= at);
    }
}
