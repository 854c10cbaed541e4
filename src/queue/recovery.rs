//! Jobs whose owner is gone, and jobs whose time is up: at start and on a timer.
//!
//! A process that dies leaves its jobs marked as running. The next one on the same directory finds
//! them and puts them back in line, under suspicion ([`super::suspects`]); a job that ran alone at too
//! many deaths is taken for their cause and done. On the timer, leases are prolonged, so that others
//! who share the store can tell the living from the dead, jobs past their start deadline are refused
//! without waiting for a worker, and the time is noted.

use std::sync::Arc;
use std::time::Duration;

use super::clock::to_ms;
use super::store::{Recover, Renew, StoreError};
use super::timeline::KeptTime;
use super::worker::{LEASE, refuse_overdue};
use super::{Inner, Phase};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often leases are prolonged: often enough that two missed turns do no harm.
const RENEWAL: Duration = Duration::from_secs(LEASE.as_secs() / 3);

/// Deals with everything that other owners left running with a lease that ended by then. `died` says
/// whether the process before did, which only the first one to ask knows.
pub(super) async fn recover(
    inner: &Inner,
    lease_before_ms: i64,
    died: bool,
) -> Result<(), StoreError> {
    let recover = Recover {
        owner: inner.owner,
        lease_before_ms,
        max_crashes: inner.settings.max_crashes,
        died,
        cancelled: inner.completion(inner.refusals.cancelled.clone()),
        poisoned: inner.completion(inner.refusals.poisoned.clone()),
    };
    let recovered = inner.store.recover(recover).await?;
    if recovered.back > 0 {
        tracing::warn!(
            jobs = recovered.back,
            "interrupted jobs are back in line, under suspicion of having crashed the server"
        );
        inner.work.send_replace(());
    }
    if recovered.suspects > 0 {
        inner.suspects.send_replace(true);
    }
    for id in recovered.done {
        tracing::warn!(%id, "a job that was interrupted is not tried again");
        inner.completed(id);
    }
    Ok(())
}

/// Stores the time, so that the next process goes on from it, and whether this one is still at work.
pub(super) async fn note_time(inner: &Inner, is_open: bool) -> Result<KeptTime, StoreError> {
    let time = KeptTime {
        is_open,
        ..inner.clock.kept()
    };
    inner.store.note_time(time).await?;
    Ok(time)
}

/// Keeps leases, deadlines and the time, which was noted before, until the queue stops.
pub(super) async fn keep(inner: Arc<Inner>, mut noted: KeptTime) {
    let mut phase = inner.phase.subscribe();
    let mut renewal_ms = inner.clock.now_ms();
    loop {
        let now_ms = inner.clock.now_ms();
        let is_renewal = now_ms >= renewal_ms;
        if is_renewal {
            renewal_ms = now_ms.saturating_add(to_ms(RENEWAL));
        }
        if let Err(error) = turn(&inner, now_ms, is_renewal).await {
            tracing::error!(%error, "leases and deadlines could not be kept");
        }
        if noted.is_outdated_by(inner.clock.kept()) {
            match note_time(&inner, true).await {
                Ok(time) => noted = time,
                Err(error) => tracing::error!(%error, "the time could not be stored"),
            }
        }
        let next = inner.clock.sleep_until(now_ms.saturating_add(to_ms(TICK)));
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
            () = next => {}
        }
    }
}

async fn turn(inner: &Arc<Inner>, now_ms: i64, is_renewal: bool) -> Result<(), StoreError> {
    if is_renewal {
        // Before the store is asked: what is asked for after that is in its answer next time.
        inner.live.forget_unwanted();
        let until = now_ms.saturating_add(to_ms(LEASE));
        let renew = Renew {
            attempts: inner.live.attempts(),
            lease_until_ms: until,
        };
        let renewed = inner.store.renew(renew).await?;
        for id in renewed.unwanted {
            inner.live.cancel(id);
        }
        for attempt in renewed.lost {
            inner.live.stop(attempt);
        }
        recover(inner, now_ms, false).await?;
    }
    refuse_overdue(inner).await
}
