//! Claims jobs, has them answered, and records what came of it.
//!
//! As many jobs are worked on at once as there are workers. A job whose picture is still being fetched
//! holds none ([`super::slot`]), and one under suspicion runs alone ([`super::suspects`]).
//!
//! The answer is a future that this file owns. Dropping it is how a running job is stopped, be it
//! cancelled or cut short because the process stops. A panic in it is a failure of ours and takes
//! nothing else down.
//!
//! A worker holds nothing that the store does not know: when the process dies at any point here,
//! the job is found running without an owner, and goes back in line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::answerer::{Answerer, Answering, JobAnswer, JobLog, JobRequest, Outcome};
use super::clock::to_ms;
use super::job::LogLevel;
use super::live::Running;
use super::shares::Ready;
use super::slot::{GivenBack, WorkerSlot};
use super::store::{Claim, Claimed, ClaimedJob, Finish, PutBack, Which};
use super::{Inner, Phase};
use crate::telemetry::panic_text;

/// How long an owner may be silent before its jobs are taken for orphans, by whoever shares the
/// store with it.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Pause before the second attempt; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pause after the store failed. It fails when the disk is full, which does not pass quickly.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Jobs past their start deadline that are refused together.
const REFUSED_TOGETHER: usize = 32;

/// How an attempt ended.
enum End {
    /// With an answer.
    Answered(JobAnswer),
    /// With an answer of the queue's own, without having run to an end.
    Refused(JobAnswer),
    /// Not at all: the process stops.
    Interrupted,
    /// Not at all: it had to make room.
    GivenBack(GivenBack),
}

/// Claims and answers jobs until the queue stops. Several of these run at once, so that claims that
/// come together share a commit.
pub(super) async fn work(inner: Arc<Inner>, answerer: Arc<dyn Answerer>) {
    let mut news = inner.work.subscribe();
    let mut phase = inner.phase.subscribe();
    let mut under_way = JoinSet::new();
    while *phase.borrow_and_update() == Phase::Open {
        while under_way.try_join_next().is_some() {}
        let slot = tokio::select! {
            slot = inner.pool.enter() => slot,
            _ = phase.changed() => continue,
        };
        let Some(slot) = slot else { break };
        // Seen before the store is asked: whoever comes after that wakes the wait below.
        news.borrow_and_update();
        let held = inner.pool.sources.ready();
        let claimed = tokio::select! {
            biased;
            claimed = claim(&inner, Which::Next, held.as_ref()) => claimed,
            () = inner.out_of_patience() => break,
        };
        match claimed {
            Ok(Claimed::Job(job)) => {
                let (inner, answerer) = (Arc::clone(&inner), Arc::clone(&answerer));
                under_way.spawn(async move { attempt(&inner, &*answerer, *job, slot).await });
            }
            Ok(Claimed::Nothing { next_due_ms }) => {
                // Somebody else may need the worker meanwhile.
                drop(slot);
                if let Some(held) = held {
                    inner.pool.sources.release(&held);
                    continue;
                }
                let due = inner.clock.sleep_until(next_due_ms.unwrap_or(i64::MAX));
                tokio::select! {
                    _ = news.changed() => {}
                    _ = phase.changed() => {}
                    () = due => {}
                }
            }
            Err(error) => {
                drop(slot);
                tracing::error!(%error, "no job can be claimed");
                tokio::select! {
                    _ = phase.changed() => {}
                    () = tokio::time::sleep(STORE_PAUSE) => {}
                }
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// Asks the store for a job; `held` is a source whose held jobs may be had too.
pub(super) async fn claim(
    inner: &Inner,
    which: Which,
    held: Option<&Ready>,
) -> Result<Claimed, super::StoreError> {
    let now_ms = inner.clock.now_ms();
    let claim = Claim {
        owner: inner.owner,
        now_ms,
        lease_until_ms: now_ms.saturating_add(to_ms(LEASE)),
        which,
        source: held.map(|held| held.party.clone()),
    };
    inner.store.claim(claim).await
}

/// Refuses every job whose start deadline has passed while it waited. Many at once, so that a long
/// line of them does not hold up whatever else is kept.
pub(super) async fn refuse_overdue(inner: &Arc<Inner>) -> Result<(), super::StoreError> {
    while refuse_one_overdue(inner).await? {
        let others = (0..REFUSED_TOGETHER).map(|_| refuse_one_overdue(inner));
        for refused in join_all(others).await {
            refused?;
        }
    }
    Ok(())
}

async fn refuse_one_overdue(inner: &Arc<Inner>) -> Result<bool, super::StoreError> {
    let Claimed::Job(job) = claim(inner, Which::Overdue, None).await? else {
        return Ok(false);
    };
    let end = End::Refused(inner.refusals.start_deadline.clone());
    conclude(inner, &job, job.log.clone(), end, None).await;
    Ok(true)
}

/// One attempt at a job, from the claim to the record.
pub(super) async fn attempt(
    inner: &Arc<Inner>,
    answerer: &dyn Answerer,
    mut job: ClaimedJob,
    slot: WorkerSlot,
) {
    let id = job.request.id;
    let (clock, live) = (Arc::clone(&inner.clock), Arc::clone(&inner.live));
    let log = JobLog::new(id, job.log.clone(), clock, live);
    let cancel = Arc::new(Notify::new());
    let running = Running {
        attempt: job.attempt,
        log: log.clone(),
        cancel: Arc::clone(&cancel),
    };
    let entered = inner.live.enter(running);
    inner.live.touch(id);
    inner.live.line_moved();

    let is_late = job.start_by_ms.is_some_and(|by| by < inner.clock.now_ms());
    let begun = Instant::now();
    let end = if job.cancel_requested {
        End::Refused(inner.refusals.cancelled.clone())
    } else if is_late {
        End::Refused(inner.refusals.start_deadline.clone())
    } else {
        // The store has the body; here nobody needs it any more.
        let body = std::mem::take(&mut job.request.body);
        let request = JobRequest {
            body,
            ..job.request.clone()
        };
        let answering = answerer.answer(request, &log, &slot);
        tokio::select! {
            end = run(inner, answering, &log, &cancel) => end,
            why = slot.given_back() => End::GivenBack(why),
        }
    };
    conclude(inner, &job, log.lines(), end, Some(begun.elapsed())).await;
    // First out of the list, then the news: whoever looks now looks into the store.
    drop(entered);
    inner.live.touch(id);
    // Only now may somebody be alone.
    drop(slot);
}

/// Waits for the answer, or for a reason to drop it.
async fn run(inner: &Inner, mut answering: Answering<'_>, log: &JobLog, cancel: &Notify) -> End {
    let mut phase = inner.phase.subscribe();
    let answered = std::future::poll_fn(|context| {
        // The future is not used again after a panic.
        match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    let stopped = async {
        // The sender lives as long as `inner`.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    };
    tokio::select! {
        biased;
        answered = answered => match answered {
            Ok(answer) => End::Answered(answer),
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "answering a job panicked");
                log.push(LogLevel::Error, "The server failed while answering.");
                End::Answered(inner.refusals.panicked.clone())
            }
        },
        () = cancel.notified() => {
            log.push(LogLevel::Info, "Cancelled.");
            End::Refused(inner.refusals.cancelled.clone())
        }
        () = stopped => End::Interrupted,
    }
}

/// Records how an attempt ended: with the job's result, or with its way back into the line.
async fn conclude(
    inner: &Arc<Inner>,
    job: &ClaimedJob,
    mut log: Vec<super::LogLine>,
    end: End,
    took: Option<Duration>,
) {
    let id = job.request.id;
    let (answer, took) = match end {
        End::Interrupted => return put_back(inner, way_back(inner, job, log)).await,
        End::GivenBack(why) => return give_back(inner, job, why).await,
        End::Refused(answer) => (answer, None),
        End::Answered(answer) => (answer, took),
    };
    let wants_retry = answer.outcome == Outcome::Retry && job.may_retry;
    if wants_retry && job.failures + 1 < inner.settings.max_attempts {
        let pause = pause_after(job.failures);
        log.push(super::LogLine {
            message: format!("Trying again in {} s.", pause.as_secs()),
            level: LogLevel::Warn,
            timestamp_ms: inner.clock.wall_ms(),
        });
        let back = way_back(inner, job, log);
        let not_before_ms = back.not_before_ms.saturating_add(to_ms(pause));
        let back = PutBack {
            not_before_ms,
            failed: true,
            ..back
        };
        return put_back(inner, back).await;
    }
    let finish = Finish {
        attempt: job.attempt,
        completion: inner.completion(answer),
        inference_us: took.map(|took| i64::try_from(took.as_micros()).unwrap_or(i64::MAX)),
        log,
    };
    let stored = inner.until_stored(|| inner.store.finish(finish.clone()));
    match stored.await {
        Some(true) => inner.completed(id),
        Some(false) => tracing::warn!(%id, "a job was taken over before its answer was stored"),
        None => {}
    }
}

/// Puts a job back in line as if it had not been claimed, to be held there if its source is busy.
async fn give_back(inner: &Arc<Inner>, job: &ClaimedJob, why: GivenBack) {
    let held = match why {
        GivenBack::SourceBusy(host) => Some(host),
        GivenBack::GaveWay => None,
    };
    let back = PutBack {
        has_begun: false,
        held: held.clone(),
        ..way_back(inner, job, job.log.clone())
    };
    put_back(inner, back).await;
    if let Some(host) = held {
        inner.pool.sources.hold(host);
    }
}

/// The way back at once of a job that has begun and did not fail.
fn way_back(inner: &Inner, job: &ClaimedJob, log: Vec<super::LogLine>) -> PutBack {
    PutBack {
        attempt: job.attempt,
        not_before_ms: inner.clock.now_ms(),
        failed: false,
        has_begun: true,
        held: None,
        log,
    }
}

/// Puts a job back in line.
async fn put_back(inner: &Arc<Inner>, back: PutBack) {
    inner
        .until_stored(|| inner.store.put_back(back.clone()))
        .await;
    inner.work.send_replace(());
}

/// The pause after this many earlier failures and one more.
fn pause_after(earlier_failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(earlier_failures).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds = |failures| pause_after(failures).as_secs();
        assert_eq!([0, 1, 2, 5, 6, 9].map(seconds), [1, 2, 4, 32, 60, 60]);
        assert_eq!(seconds(4_000), 60);
    }
}
