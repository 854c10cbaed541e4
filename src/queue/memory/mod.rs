//! Jobs in memory: a [`JobStore`] for tests, and the plainest statement of what a store does.
//!
//! One lock around one list of jobs; every operation is a few lines over it. Nothing survives the
//! process.

mod claims;
mod entry;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::health::StoreHealth;
use super::job::{CancelOutcome, Counts, JobResult, Priority, State, Transition};
use super::store::{
    Admission, Claim, ClaimDelivery, Claimed, ClaimedDelivery, Completion, Finish, HeldWork,
    JobStore, PutBack, Recover, Recovered, Renew, Renewed, Reply, Settle, Settled, StoredStatus,
    Submission,
};
use super::timeline::KeptTime;
use entry::{Job, Lease};

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    jobs: Mutex<Vec<Job>>,
    time: Mutex<KeptTime>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        // A test that panicked while it held the lock has failed already.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_time(&self) -> MutexGuard<'_, KeptTime> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one job, or answers with the default when there is none.
    fn change<T: Default>(&self, id: Uuid, change: impl FnOnce(&mut Job) -> T) -> T {
        let mut jobs = self.lock();
        jobs.iter_mut()
            .find(|job| job.id == id)
            .map(change)
            .unwrap_or_default()
    }

    fn submit_now(&self, new: Submission) -> Admission {
        let mut jobs = self.lock();
        let endpoint = new.job.endpoint.as_str();
        let ahead = |priority: Priority| {
            let in_line = jobs
                .iter()
                .filter(|job| job.waits_for(endpoint) && !job.suspect);
            in_line.filter(|job| job.job.priority <= priority).count() as u64
        };
        let waiting = jobs.iter().filter(|job| job.waits_for(endpoint)).count() as u64;
        if new.job.max_queue_length.is_some_and(|max| waiting > max) {
            return Admission::Full { waiting };
        }
        let position = ahead(new.job.priority);
        jobs.push(Job::new(new));
        Admission::Accepted { position }
    }

    fn recover_now(&self, recover: &Recover) -> Recovered {
        let mut recovered = Recovered::default();
        let is_void = |lease: Lease| {
            lease.is_some_and(|(owner, until)| {
                owner != recover.owner && until <= recover.lease_before_ms
            })
        };
        let mut jobs = self.lock();
        let orphans = jobs
            .iter()
            .filter(|job| job.state == State::Running && is_void(job.lease));
        let mut running: HashMap<Uuid, u32> = HashMap::new();
        for (owner, _) in orphans.filter_map(|job| job.lease) {
            *running.entry(owner).or_default() += 1;
        }
        for job in jobs.iter_mut() {
            if let Some(delivery) = job.end.as_mut().and_then(|end| end.delivery.as_mut())
                && is_void(delivery.lease)
            {
                delivery.lease = None;
            }
            if job.state != State::Running || !is_void(job.lease) {
                if recover.died && running.is_empty() {
                    job.crashes = 0;
                }
                continue;
            }
            let was_alone = job
                .lease
                .is_some_and(|(owner, _)| running.get(&owner) == Some(&1));
            job.crashes += u32::from(was_alone && recover.died);
            job.suspect = true;
            job.job.start_by_ms = None;
            let end = if job.cancel_requested {
                Some(&recover.cancelled)
            } else {
                (was_alone && recover.died && job.crashes >= recover.max_crashes)
                    .then_some(&recover.poisoned)
            };
            if let Some(completion) = end {
                job.make(Transition::Finish);
                job.complete(completion);
                recovered.done.push(job.id);
            } else {
                job.make(Transition::PutBack);
                job.lease = None;
                recovered.back += 1;
            }
        }
        let suspects = jobs
            .iter()
            .filter(|job| job.state == State::Waiting && job.suspect);
        recovered.suspects = suspects.count() as u64;
        recovered
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Reply<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl JobStore for MemoryStore {
    fn submit(&self, new: Submission) -> Reply<'_, Admission> {
        ready(self.submit_now(new))
    }

    fn claim(&self, claim: Claim) -> Reply<'_, Claimed> {
        ready(self.claim_now(&claim))
    }

    fn renew(&self, renew: Renew) -> Reply<'_, Renewed> {
        let mut renewed = Renewed::default();
        for attempt in renew.attempts {
            let is_unwanted = self.change(attempt.id, |job| {
                let is_ours = job.is_of(attempt);
                is_ours.then(|| {
                    job.lease = Some((attempt.owner, renew.lease_until_ms));
                    job.cancel_requested
                })
            });
            match is_unwanted {
                Some(true) => renewed.unwanted.push(attempt.id),
                Some(false) => {}
                None => renewed.lost.push(attempt),
            }
        }
        ready(renewed)
    }

    fn finish(&self, finish: Finish) -> Reply<'_, bool> {
        ready(self.change(finish.attempt.id, |job| {
            let is_done = job.is_of(finish.attempt) && job.make(Transition::Finish);
            if is_done {
                job.log = finish.log;
                job.inference_us = finish.inference_us;
                job.complete(&finish.completion);
            }
            is_done
        }))
    }

    fn put_back(&self, put_back: PutBack) -> Reply<'_, bool> {
        ready(self.change(put_back.attempt.id, |job| {
            let is_back = job.is_of(put_back.attempt) && job.make(Transition::PutBack);
            if is_back {
                job.lease = None;
                job.not_before_ms = put_back.not_before_ms;
                job.failures += u32::from(put_back.failed);
                if put_back.has_begun {
                    job.job.start_by_ms = None;
                }
                job.held = put_back.held;
                job.log = put_back.log;
            }
            is_back
        }))
    }

    fn recover(&self, recover: Recover) -> Reply<'_, Recovered> {
        ready(self.recover_now(&recover))
    }

    fn cancel(&self, id: Uuid, completion: Completion) -> Reply<'_, CancelOutcome> {
        let outcome = self.change(id, |job| {
            if job.is_expired(completion.now_ms) {
                return None;
            }
            Some(match job.state {
                State::Done => CancelOutcome::AlreadyCompleted,
                State::Running => {
                    job.cancel_requested = true;
                    CancelOutcome::Requested
                }
                State::Waiting => {
                    job.make(Transition::Cancel);
                    job.complete(&completion);
                    CancelOutcome::Requested
                }
            })
        });
        ready(outcome.unwrap_or(CancelOutcome::NotFound))
    }

    fn status(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<StoredStatus>> {
        let jobs = self.lock();
        let found = jobs
            .iter()
            .position(|job| job.id == id && !job.is_expired(now_ms));
        ready(
            found
                .and_then(|at| jobs.get(at).map(|job| (at, job)))
                .map(|(at, job)| {
                    let is_ahead = |(other_at, other): &(usize, &Job)| {
                        other.waits_for(&job.job.endpoint) && other.place(*other_at) < job.place(at)
                    };
                    let is_waiting = job.state == State::Waiting;
                    let ahead = jobs.iter().enumerate().filter(is_ahead).count();
                    StoredStatus {
                        endpoint: job.job.endpoint.clone(),
                        state: job.state,
                        ahead: if is_waiting { ahead as u64 } else { 0 },
                        inference_us: job.inference_us,
                        error: job.end.as_ref().and_then(|end| end.error.clone()),
                        log: job.log.clone(),
                    }
                }),
        )
    }

    fn result(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<JobResult>> {
        let jobs = self.lock();
        let found = jobs
            .iter()
            .find(|job| job.id == id && !job.is_expired(now_ms));
        ready(found.map(|job| match &job.end {
            Some(end) => JobResult::Finished(end.result.clone()),
            None => JobResult::NotFinished,
        }))
    }

    fn counts(&self) -> Reply<'_, Counts> {
        let jobs = self.lock();
        let count = |state| jobs.iter().filter(|job| job.state == state).count() as u64;
        ready(Counts {
            waiting: count(State::Waiting),
            running: count(State::Running),
        })
    }

    fn expire(&self, now_ms: i64, limit: u32) -> Reply<'_, bool> {
        let mut jobs = self.lock();
        let mut left = limit;
        jobs.retain(|job| {
            let goes = left > 0 && job.is_expired(now_ms);
            left -= u32::from(goes);
            !goes
        });
        ready(left == 0)
    }

    fn claim_delivery(&self, claim: ClaimDelivery) -> Reply<'_, ClaimedDelivery> {
        ready(self.claim_delivery_now(&claim))
    }

    fn settle_delivery(&self, settle: Settle) -> Reply<'_, bool> {
        ready(self.change(settle.attempt.id, |job| {
            let delivery = job.end.as_mut().map(|end| &mut end.delivery);
            let Some(delivery) = delivery else {
                return false;
            };
            let Some(pending) = delivery.as_mut().filter(|it| it.is_of(settle.attempt)) else {
                return false;
            };
            pending.lease = None;
            match settle.outcome {
                Settled::Again { at_ms, .. } => pending.due_ms = at_ms,
                Settled::Held { receiver } => {
                    pending.held = Some(receiver);
                    pending.holds += 1;
                }
                Settled::Delivered | Settled::Failed { .. } => *delivery = None,
            }
            true
        }))
    }

    fn held(&self) -> Reply<'_, HeldWork> {
        let jobs = self.lock();
        let waiting = jobs.iter().filter(|job| job.state == State::Waiting);
        let sources = waiting.filter_map(|job| job.held.clone());
        let ends = jobs.iter().filter_map(|job| job.end.as_ref());
        let pending = ends.filter_map(|end| end.delivery.as_ref());
        let receivers = pending.filter_map(|pending| pending.held.clone());
        let distinct = |parties: BTreeSet<String>| parties.into_iter().collect();
        ready(HeldWork {
            sources: distinct(sources.collect()),
            receivers: distinct(receivers.collect()),
        })
    }

    fn time(&self) -> Reply<'_, KeptTime> {
        ready(*self.lock_time())
    }

    fn note_time(&self, time: KeptTime) -> Reply<'_, ()> {
        *self.lock_time() = time;
        ready(())
    }

    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    fn close(&self) -> Reply<'_, ()> {
        ready(())
    }
}
