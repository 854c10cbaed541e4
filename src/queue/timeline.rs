//! The queue's own time: it runs on evenly and never goes back, whatever is done to the calendar.
//!
//! Every stored time and every wait goes by it: start deadlines, pauses, leases, due webhooks, expiry.
//! * While the process lives, it moves with the clock that nobody sets. A calendar that is set, either
//!   way, changes no wait.
//! * How far it is ahead of the calendar is stored, and so is the latest time that was seen
//!   ([`KeptTime`]). The next process goes on from there: the time that passed meanwhile is what the
//!   calendar says, and none if the calendar went back. So the calendar is trusted forwards only, and
//!   a due time is late by at most the time since the last note, which is taken every
//!   [`NOTE_EVERY`] and when the calendar was set.
//!
//! The queue's time is the calendar's until somebody sets that back. It is never shown: what callers
//! and receivers see is the calendar ([`Timeline::wall_ms`]).

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Sleeping, to_ms};

/// How often the time is stored, at least.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How far the calendar may drift from the queue's time before that is stored. Slow corrections by a
/// time server stay below it for long.
const DRIFT: Duration = Duration::from_secs(1);

/// What must outlive the process for the queue's time to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptTime {
    /// The latest time seen, in milliseconds.
    pub(super) high_ms: i64,
    /// How far the queue's time is ahead of the calendar, in milliseconds; negative when behind.
    pub(super) ahead_ms: i64,
    /// Whether whoever noted it was at work. Found by the next process, it says that the one before
    /// died.
    pub(super) is_open: bool,
}

impl KeptTime {
    /// Whether a later reading must be stored in this one's place.
    pub(super) fn is_outdated_by(self, later: Self) -> bool {
        let drift = later.ahead_ms.abs_diff(self.ahead_ms);
        drift > to_ms(DRIFT).unsigned_abs()
            || later.high_ms >= self.high_ms.saturating_add(to_ms(NOTE_EVERY))
    }
}

/// See the module's header.
pub(super) struct Timeline {
    clock: Arc<dyn Clock>,
    /// The queue's time when the clock that nobody sets began.
    base_ms: i64,
}

impl Timeline {
    /// Goes on from what the process before kept.
    pub(super) fn resume(clock: Arc<dyn Clock>, kept: KeptTime) -> Self {
        let by_calendar = clock.wall_ms().saturating_add(kept.ahead_ms);
        let now_ms = by_calendar.max(kept.high_ms);
        let base_ms = now_ms.saturating_sub(clock.elapsed_ms());
        Self { clock, base_ms }
    }

    /// The time of a queue that never was before.
    #[cfg(test)]
    pub(super) fn fresh() -> Self {
        let clock = super::clock::SystemClock::new();
        Self::resume(Arc::new(clock), KeptTime::default())
    }

    /// The queue's time in milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.base_ms.saturating_add(self.clock.elapsed_ms())
    }

    /// The calendar in milliseconds since the epoch, to be shown.
    pub(super) fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// Completes once [`Timeline::now_ms`] is at least `at_ms`.
    pub(super) fn sleep_until(&self, at_ms: i64) -> Sleeping<'_> {
        self.clock.sleep_until(at_ms.saturating_sub(self.base_ms))
    }

    /// What to store now.
    pub(super) fn kept(&self) -> KeptTime {
        let now_ms = self.now_ms();
        KeptTime {
            high_ms: now_ms,
            ahead_ms: now_ms.saturating_sub(self.wall_ms()),
            is_open: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// A machine whose calendar and running time a test moves.
    #[derive(Default)]
    struct Machine {
        clocks: Mutex<(i64, i64)>,
    }

    impl Machine {
        fn at(wall_ms: i64) -> Arc<Self> {
            Arc::new(Self {
                clocks: Mutex::new((wall_ms, 77)),
            })
        }

        fn runs(&self, ms: i64) {
            let mut clocks = self.clocks.lock().unwrap();
            clocks.0 += ms;
            clocks.1 += ms;
        }

        fn is_set(&self, by_ms: i64) {
            self.clocks.lock().unwrap().0 += by_ms;
        }

        fn resume(self: &Arc<Self>, kept: KeptTime) -> Timeline {
            Timeline::resume(Arc::<Self>::clone(self), kept)
        }
    }

    impl Clock for Machine {
        fn wall_ms(&self) -> i64 {
            self.clocks.lock().unwrap().0
        }

        fn elapsed_ms(&self) -> i64 {
            self.clocks.lock().unwrap().1
        }

        fn sleep_until(&self, _: i64) -> Sleeping<'_> {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn the_calendar_set_either_way_changes_no_wait() {
        let machine = Machine::at(10 * HOUR_MS);
        let time = machine.resume(KeptTime::default());
        assert_eq!(time.now_ms(), 10 * HOUR_MS);
        for by_ms in [-HOUR_MS, 3 * HOUR_MS, -9 * HOUR_MS] {
            let before = time.now_ms();
            machine.is_set(by_ms);
            assert_eq!(time.now_ms(), before);
            machine.runs(5);
            assert_eq!(time.now_ms(), before + 5);
        }
        assert_eq!(time.wall_ms(), 3 * HOUR_MS + 15);
    }

    #[test]
    fn a_calendar_set_back_while_running_is_the_same_after_a_restart() {
        let machine = Machine::at(10 * HOUR_MS);
        let time = machine.resume(KeptTime::default());
        machine.is_set(-HOUR_MS);
        machine.runs(1000);
        let kept = time.kept();
        let before = time.now_ms();
        machine.runs(500);
        assert_eq!(machine.resume(kept).now_ms(), before + 500);
    }

    #[test]
    fn a_calendar_set_forwards_while_running_skips_nothing_after_a_restart() {
        let machine = Machine::at(10 * HOUR_MS);
        let time = machine.resume(KeptTime::default());
        machine.is_set(HOUR_MS);
        let kept = time.kept();
        machine.runs(500);
        assert_eq!(machine.resume(kept).now_ms(), time.now_ms());
    }

    #[test]
    fn a_calendar_set_back_between_processes_stands_still_and_then_counts() {
        let machine = Machine::at(10 * HOUR_MS);
        let kept = machine.resume(KeptTime::default()).kept();
        machine.is_set(-HOUR_MS);
        machine.runs(500);
        let next = machine.resume(kept);
        assert_eq!(next.now_ms(), 10 * HOUR_MS);
        // From then on the time between processes counts again, though the calendar is still behind.
        let kept = next.kept();
        machine.runs(500);
        assert_eq!(machine.resume(kept).now_ms(), 10 * HOUR_MS + 500);
    }

    #[test]
    fn a_calendar_set_forwards_between_processes_is_believed() {
        let machine = Machine::at(10 * HOUR_MS);
        let kept = machine.resume(KeptTime::default()).kept();
        machine.is_set(HOUR_MS);
        assert_eq!(machine.resume(kept).now_ms(), 11 * HOUR_MS);
    }

    #[test]
    fn the_time_is_noted_every_minute_and_when_the_calendar_was_set() {
        let machine = Machine::at(10 * HOUR_MS);
        let time = machine.resume(KeptTime::default());
        let noted = time.kept();
        machine.runs(59_999);
        machine.is_set(1000);
        assert!(!noted.is_outdated_by(time.kept()));
        machine.runs(1);
        assert!(noted.is_outdated_by(time.kept()));
        let noted = time.kept();
        for by_ms in [1001, -2002] {
            machine.is_set(by_ms);
            assert!(noted.is_outdated_by(time.kept()), "{by_ms}");
        }
    }
}
