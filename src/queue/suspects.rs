//! Jobs under suspicion: those that were running when the process died. Each runs alone, so that the
//! next death tells whose fault it was.
//!
//! The rule:
//! * Every death makes all jobs that ran then suspects. It counts against one only if that one ran
//!   alone, no other job running or being fetched beside it. At the count of `max_crashes` it is failed.
//! * A suspect runs after everything else that is due. So that a steady stream of jobs does not keep it
//!   waiting for ever, one has its turn every [`PATIENCE`] at the latest: nobody begins meanwhile, those
//!   who work end, those who only wait for a source give way. Of several the one with the fewest
//!   crashes comes first, one after the other.
//! * A suspect does not begin right after a start: `suspect_delay` must have passed, four times as much
//!   after each death that counts ([`delay`]). If the process dies while no job runs, nothing of ours
//!   was its cause, and the counts of all suspects begin anew.
//!
//! The last is why deaths from outside fail nobody. Kills that follow right on the start meet the
//! delay, when no suspect runs, and clear the counts. Kills at any fixed time after the start hit a
//! suspect that takes less than twelve delays twice at most: for the third time it waits sixteen times as
//! long, and is either hit in that time, which clears it, or done before. A slower one can be hit three
//! times. A job is failed wrongly only if somebody kills the process three times in a row exactly while
//! this job runs, in three windows that lie one, four and sixteen delays after the starts; whoever waits
//! for that can, and nothing that outlives a SIGKILL tells that from a job that kills. A job that kills
//! costs `max_crashes` deaths, or one more if it began among others.
//!
//! A job that ends in any way but with the process is no suspect any more, because it is done; one that
//! fails by a fault of ours and is tried again stays one.

use std::sync::Arc;
use std::time::Duration;

use super::answerer::Answerer;
use super::clock::to_ms;
use super::store::{Claimed, Which};
use super::turns::Turn;
use super::worker::{attempt, claim};
use super::{Inner, Phase};

/// Longest wait of all suspects for a turn of one of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest delay after a start.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Pause between two looks whether a suspect may run.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The time after a start in which a suspect with this many crashes does not begin.
fn delay(base: Duration, crashes: u32) -> Duration {
    let factor = 4_u32.saturating_pow(crashes);
    base.saturating_mul(factor).min(LONGEST_DELAY)
}

/// The crashes that a suspect may have to begin this long after the start; none if no suspect may.
fn most_crashes(base: Duration, up_ms: i64, max_crashes: u32) -> Option<u32> {
    let may_begin = |crashes: &u32| to_ms(delay(base, *crashes)) <= up_ms;
    (0..max_crashes.max(1)).take_while(may_begin).last()
}

/// What came of a look.
enum Look {
    /// One ran; there may be others.
    Ran,
    /// None may run now.
    Later,
    /// There is none.
    None,
}

/// Runs suspects, one after the other and each alone, until the queue stops. Jobs are run since
/// `started_ms`.
pub(super) async fn run(inner: Arc<Inner>, answerer: Arc<dyn Answerer>, started_ms: i64) {
    let mut news = inner.suspects.subscribe();
    let mut phase = inner.phase.subscribe();
    let mut waiting_since_ms = started_ms;
    while *phase.borrow_and_update() == Phase::Open {
        if !*news.borrow_and_update() {
            tokio::select! {
                _ = news.changed() => {}
                _ = phase.changed() => {}
            }
            waiting_since_ms = inner.clock.now_ms();
            continue;
        }
        let now_ms = inner.clock.now_ms();
        let settings = &inner.settings;
        let up_ms = now_ms.saturating_sub(started_ms);
        let may = most_crashes(settings.suspect_delay, up_ms, settings.max_crashes);
        let is_impatient = now_ms.saturating_sub(waiting_since_ms) >= to_ms(PATIENCE);
        let looked = match may {
            None => Look::Later,
            Some(_) if is_impatient => {
                waiting_since_ms = now_ms;
                let turn = tokio::select! {
                    turn = inner.pool.turns.alone() => turn,
                    _ = phase.changed() => continue,
                };
                look(&inner, &*answerer, turn, may, false).await
            }
            Some(_) => match inner.pool.turns.try_alone() {
                Some(turn) => look(&inner, &*answerer, turn, may, true).await,
                None => Look::Later,
            },
        };
        match looked {
            Look::Ran => waiting_since_ms = inner.clock.now_ms(),
            // What was found since stays.
            Look::None if matches!(news.has_changed(), Ok(false)) => {
                inner.suspects.send_replace(false);
            }
            Look::None => {}
            Look::Later => {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    _ = phase.changed() => {}
                }
            }
        }
    }
}

async fn look(
    inner: &Arc<Inner>,
    answerer: &dyn Answerer,
    turn: Turn,
    most_crashes: Option<u32>,
    goes_last: bool,
) -> Look {
    let which = Which::Suspect {
        most_crashes: most_crashes.unwrap_or_default(),
        goes_last,
    };
    match claim(inner, which, None).await {
        Ok(Claimed::Job(job)) => {
            let id = job.request.id;
            tracing::info!(%id, "a job under suspicion of having crashed the server runs alone");
            if let Some(slot) = inner.pool.enter_alone(turn).await {
                attempt(inner, answerer, *job, slot).await;
            }
            Look::Ran
        }
        Ok(Claimed::Nothing { next_due_ms: None }) => Look::None,
        Ok(Claimed::Nothing { .. }) => Look::Later,
        Err(error) => {
            tracing::error!(%error, "no job under suspicion can be claimed");
            Look::Later
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crash_makes_the_delay_four_times_as_long_up_to_a_minute() {
        let seconds = |crashes| delay(Duration::from_secs(1), crashes).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 1000].map(seconds), [1, 4, 16, 60, 60, 60]);
    }

    #[test]
    fn the_longer_the_process_lives_the_more_suspects_may_begin() {
        let second = Duration::from_secs(1);
        let most = |up_ms| most_crashes(second, up_ms, 3);
        assert_eq!([0, 999].map(most), [None, None]);
        assert_eq!([1000, 3999].map(most), [Some(0), Some(0)]);
        assert_eq!([4000, 15_999].map(most), [Some(1), Some(1)]);
        assert_eq!([16_000, i64::MAX].map(most), [Some(2), Some(2)]);
        assert_eq!(most_crashes(Duration::ZERO, 0, 3), Some(2));
        assert_eq!(most_crashes(second, 1000, 1), Some(0));
    }
}
