//! Who is next: among jobs, and among deliveries.

use super::MemoryStore;
use super::entry::{Job, Pending};
use crate::queue::answerer::JobRequest;
use crate::queue::job::{State, Transition};
use crate::queue::store::{
    Attempt, Claim, ClaimDelivery, Claimed, ClaimedDelivery, ClaimedJob, Delivery, Which,
};
use bytes::Bytes;

/// Whether work that may be held for a party's place is in line, when that party's turn has come.
fn is_in_line(held: Option<&String>, turn: Option<&String>) -> bool {
    held.is_none() || held == turn
}

impl MemoryStore {
    pub(super) fn claim_now(&self, claim: &Claim) -> Claimed {
        let mut jobs = self.lock();
        let mut waiting: Vec<_> = jobs
            .iter_mut()
            .filter(|job| job.state == State::Waiting)
            .collect();
        // Stable: within a rank the order of arrival stays.
        waiting.sort_by_key(|job| job.place(0));
        let is_ordinary = |job: &Job, turn| !job.suspect && is_in_line(job.held.as_ref(), turn);
        let is_due = |job: &Job| job.not_before_ms <= claim.now_ms;
        let any_due = waiting
            .iter()
            .any(|job| is_ordinary(job, None) && is_due(job));
        let is_wanted = |job: &Job| match claim.which {
            Which::Next => is_ordinary(job, claim.source.as_ref()) && is_due(job),
            Which::Overdue => job.job.start_by_ms.is_some_and(|by| by < claim.now_ms),
            Which::Suspect {
                most_crashes,
                goes_last,
            } => {
                let has_turn = !(goes_last && any_due);
                job.suspect && job.crashes <= most_crashes && is_due(job) && has_turn
            }
        };
        let due = waiting.iter().filter_map(|job| match claim.which {
            Which::Next | Which::Overdue => {
                (is_ordinary(job, None) && !is_due(job)).then_some(job.not_before_ms)
            }
            Which::Suspect { .. } => job.suspect.then(|| job.not_before_ms.max(claim.now_ms)),
        });
        let next_due_ms = due.min();
        match waiting.into_iter().find(|job| is_wanted(job)) {
            Some(job) => Claimed::Job(Box::new(claimed(job, claim))),
            None => Claimed::Nothing { next_due_ms },
        }
    }

    pub(super) fn claim_delivery_now(&self, claim: &ClaimDelivery) -> ClaimedDelivery {
        let mut jobs = self.lock();
        let mut next_due_ms: Option<i64> = None;
        let mut due: Option<&mut Job> = None;
        let pending = |job: &Job| -> Option<i64> {
            let pending = job.end.as_ref()?.delivery.as_ref()?;
            let is_free = pending.lease.is_none();
            let turn = claim.receiver.as_ref();
            (is_free && is_in_line(pending.held.as_ref(), turn)).then_some(pending.due_ms)
        };
        for job in jobs.iter_mut() {
            let Some(due_ms) = pending(job) else {
                continue;
            };
            if due_ms > claim.now_ms {
                next_due_ms = Some(next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
            } else if due
                .as_deref()
                .and_then(pending)
                .is_none_or(|first| due_ms < first)
            {
                due = Some(job);
            }
        }
        due.and_then(|job| under_way(job, claim))
            .map_or(ClaimedDelivery::Nothing { next_due_ms }, |delivery| {
                ClaimedDelivery::Due(Box::new(delivery))
            })
    }
}

fn claimed(job: &mut Job, claim: &Claim) -> ClaimedJob {
    job.make(Transition::Claim);
    job.lease = Some((claim.owner, claim.lease_until_ms));
    job.starts += 1;
    job.held = None;
    ClaimedJob {
        attempt: Attempt {
            id: job.id,
            owner: claim.owner,
            number: job.starts,
        },
        request: JobRequest {
            id: job.id,
            endpoint: job.job.endpoint.clone(),
            content_type: job.job.content_type.clone(),
            body: match claim.which {
                Which::Overdue => Bytes::new(),
                Which::Next | Which::Suspect { .. } => job.job.body.clone(),
            },
            base: job.job.base.clone(),
            lifecycle: job.job.lifecycle.clone(),
            earlier_attempts: job.starts - 1,
        },
        start_by_ms: job.job.start_by_ms,
        may_retry: job.job.may_retry,
        failures: job.failures,
        cancel_requested: job.cancel_requested,
        log: job.log.clone(),
    }
}

fn under_way(job: &mut Job, claim: &ClaimDelivery) -> Option<Delivery> {
    let id = job.id;
    let end = job.end.as_mut()?;
    let pending: &mut Pending = end.delivery.as_mut()?;
    pending.lease = Some((claim.owner, claim.lease_until_ms));
    pending.attempts += 1;
    pending.held = None;
    Some(Delivery {
        attempt: Attempt {
            id,
            owner: claim.owner,
            number: pending.attempts,
        },
        url: pending.url.clone(),
        earlier_attempts: pending.attempts - 1 - pending.holds,
        expires_ms: end.expires_ms,
        status: end.result.status,
        body: end.result.body.clone(),
    })
}
