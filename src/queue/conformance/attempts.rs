//! Attempts: every claim makes a new one, and nothing is taken in the name of an earlier one, whoever
//! owns it.
//!
//! The owner is the same throughout: a process that stalled, lost its claim to recovery, and claimed
//! the same work again.

use super::deliveries::{claim_delivery, ended, settle};
use super::*;
use crate::queue::store::{Settled, StoredStatus};

on_every_store!(
    every_claim_of_a_job_has_a_higher_number,
    the_late_answer_of_an_attempt_is_refused_while_the_next_runs,
    a_late_return_to_the_line_is_refused_while_the_next_attempt_runs,
    a_late_renewal_prolongs_nothing_and_tells_the_loss,
    the_late_end_of_a_delivery_is_refused_while_the_next_attempt_runs,
    an_attempt_that_is_over_is_refused,
);

/// A job that an owner has claimed, lost to recovery and claimed again: both attempts.
async fn claimed_twice(store: &dyn JobStore) -> (Attempt, Attempt) {
    let me = owner();
    let id = submit(store, job()).await;
    let late = next(store, me, 0).await.attempt;
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!(recovered.back, 1);
    let present = next_suspect(store, me, 0).await.attempt;
    assert_eq!((late.id, present.id), (id, id));
    assert_eq!((late.owner, present.owner), (me, me));
    (late, present)
}

async fn status(store: &dyn JobStore, id: Uuid) -> StoredStatus {
    store.status(id, 0).await.unwrap().unwrap()
}

async fn every_claim_of_a_job_has_a_higher_number(store: &dyn JobStore) {
    let late = NewJob {
        start_by_ms: Some(1),
        ..job()
    };
    let id = submit(store, late).await;
    let overdue = claim(store, owner(), 5, Which::Overdue).await.unwrap();
    let mut before = overdue.attempt;
    for _ in 0..4 {
        assert!(put_back(store, before, 0, false).await);
        let attempt = next(store, owner(), 5).await.attempt;
        assert_eq!(attempt.id, id);
        assert!(attempt.number > before.number, "{attempt:?} {before:?}");
        before = attempt;
    }
}

async fn the_late_answer_of_an_attempt_is_refused_while_the_next_runs(store: &dyn JobStore) {
    let (late, present) = claimed_twice(store).await;
    let before = status(store, present.id).await;
    assert!(!finish(store, late, "late", 0).await);
    assert_eq!(status(store, present.id).await, before);
    assert_eq!(result_text(store, present.id).await, None);
    assert!(finish(store, present, "present", 0).await);
    assert!(!finish(store, late, "late", 0).await);
    let text = result_text(store, present.id).await;
    assert_eq!(text.as_deref(), Some("present"));
}

async fn a_late_return_to_the_line_is_refused_while_the_next_attempt_runs(store: &dyn JobStore) {
    let (late, present) = claimed_twice(store).await;
    let before = status(store, present.id).await;
    assert!(!put_back(store, late, 0, true).await);
    assert_eq!(status(store, present.id).await, before);
    claim(store, owner(), 0, SUSPECT).await.unwrap_err();
    assert!(put_back(store, present, 0, true).await);
    assert_eq!(next_suspect(store, owner(), 0).await.failures, 1);
}

async fn a_late_renewal_prolongs_nothing_and_tells_the_loss(store: &dyn JobStore) {
    let (late, present) = claimed_twice(store).await;
    let cancelled = completion("cancelled", 0);
    store.cancel(present.id, cancelled).await.unwrap();
    let renewed = renew(store, vec![late], 9000).await;
    assert_eq!((renewed.unwanted, renewed.lost), (vec![], vec![late]));
    // The claim's own lease, of a hundred milliseconds, still counts.
    let renewed = renew(store, vec![late, present], 99).await;
    let expected = (vec![present.id], vec![late]);
    assert_eq!((renewed.unwanted, renewed.lost), expected);
    let recovered = store.recover(recovery(owner(), 99)).await.unwrap();
    assert_eq!(recovered.done, [present.id]);
}

async fn the_late_end_of_a_delivery_is_refused_while_the_next_attempt_runs(store: &dyn JobStore) {
    let me = owner();
    ended(store, 0).await;
    let late = claim_delivery(store, me, 0).await.unwrap().attempt;
    store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    let present = claim_delivery(store, me, 0).await.unwrap().attempt;
    assert!(present.number > late.number, "{present:?} {late:?}");
    let again = || Settled::Again {
        at_ms: 20,
        reason: "answered 500".into(),
    };
    let failed = Settled::Failed {
        reason: "refused".into(),
    };
    for outcome in [Settled::Delivered, failed, again()] {
        assert!(!settle(store, late, outcome).await);
    }
    // Still under way, and nobody else's.
    assert_eq!(claim_delivery(store, owner(), 20).await, Err(None));
    assert!(settle(store, present, again()).await);
    let third = claim_delivery(store, me, 20).await.unwrap();
    assert!(third.attempt.number > present.number);
    assert!(settle(store, third.attempt, Settled::Delivered).await);
}

async fn an_attempt_that_is_over_is_refused(store: &dyn JobStore) {
    let id = ended(store, 0).await;
    let delivery = claim_delivery(store, owner(), 0).await.unwrap().attempt;
    assert!(settle(store, delivery, Settled::Delivered).await);
    assert!(!settle(store, delivery, Settled::Delivered).await);
    let unknown = first_attempt(Uuid::new_v4(), delivery.owner);
    for attempt in [first_attempt(id, delivery.owner), unknown] {
        assert!(!settle(store, attempt, Settled::Delivered).await);
        assert!(!finish(store, attempt, "late", 0).await);
        assert!(!put_back(store, attempt, 0, false).await);
        let renewed = renew(store, vec![attempt], 9000).await;
        assert_eq!(renewed.lost, [attempt]);
    }
}
