//! Work that is held until a party has a place for it: passed over meanwhile, and never forgotten.

use super::deliveries::{claim_delivery, ended, settle};
use super::*;
use crate::queue::store::{ClaimDelivery, ClaimedDelivery, Delivery, HeldWork, Settled};

on_every_store!(
    a_held_job_is_passed_over_until_its_source_has_a_turn,
    a_held_job_keeps_its_place_in_the_order,
    a_held_job_keeps_its_start_deadline,
    a_job_that_gave_way_keeps_its_start_deadline,
    a_held_delivery_is_passed_over_and_was_no_attempt,
    whose_places_work_waits_for_is_known,
);

const SOURCE: &str = "pictures.test";

async fn hold(store: &dyn JobStore, attempt: Attempt, source: &str) -> bool {
    let held = PutBack {
        attempt,
        not_before_ms: 0,
        failed: false,
        has_begun: false,
        held: Some(source.into()),
        log: Vec::new(),
    };
    store.put_back(held).await.unwrap()
}

async fn claim_for(store: &dyn JobStore, source: &str) -> Option<Box<ClaimedJob>> {
    let claim = Claim {
        owner: owner(),
        now_ms: 0,
        lease_until_ms: 100,
        which: Which::Next,
        source: Some(source.into()),
    };
    match store.claim(claim).await.unwrap() {
        Claimed::Job(job) => Some(job),
        Claimed::Nothing { .. } => None,
    }
}

async fn a_held_job_is_passed_over_until_its_source_has_a_turn(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let attempt = next(store, owner(), 0).await.attempt;
    assert!(hold(store, attempt, SOURCE).await);
    assert!(!hold(store, attempt, SOURCE).await, "it is over");
    assert_eq!(state(store, id).await, State::Waiting);
    assert_eq!(
        claim(store, owner(), 0, Which::Next).await.unwrap_err(),
        None
    );
    assert!(claim_for(store, "other.test").await.is_none());
    let claimed = claim_for(store, SOURCE).await.unwrap();
    assert_eq!((claimed.request.id, claimed.failures), (id, 0));
    // An end of another kind is no hold any more.
    assert!(put_back(store, claimed.attempt, 0, false).await);
    assert_eq!(next(store, owner(), 0).await.request.id, id);
}

async fn a_held_job_keeps_its_place_in_the_order(store: &dyn JobStore) {
    let mut expected = Vec::new();
    for new in [job(), job(), low_job(), low_job()] {
        expected.push(submit(store, new).await);
    }
    let mut attempts = Vec::new();
    for _ in 0..4 {
        attempts.push(next(store, owner(), 0).await.attempt);
    }
    for (at, attempt) in attempts.into_iter().enumerate() {
        if at % 2 == 0 {
            assert!(put_back(store, attempt, 0, false).await);
        } else {
            assert!(hold(store, attempt, SOURCE).await);
        }
    }
    let last = store.status(expected[3], 0).await.unwrap().unwrap();
    assert_eq!(last.ahead, 3);
    for id in expected {
        let claimed = claim_for(store, SOURCE).await.unwrap();
        assert_eq!(claimed.request.id, id);
    }
    assert!(claim_for(store, SOURCE).await.is_none());
}

async fn a_held_job_keeps_its_start_deadline(store: &dyn JobStore) {
    let late = NewJob {
        start_by_ms: Some(5),
        ..job()
    };
    let id = submit(store, late).await;
    let attempt = next(store, owner(), 0).await.attempt;
    assert!(hold(store, attempt, SOURCE).await);
    claim(store, owner(), 5, Which::Overdue).await.unwrap_err();
    let overdue = claim(store, owner(), 6, Which::Overdue).await.unwrap();
    assert_eq!((overdue.request.id, overdue.start_by_ms), (id, Some(5)));
}

async fn a_job_that_gave_way_keeps_its_start_deadline(store: &dyn JobStore) {
    let late = NewJob {
        start_by_ms: Some(5),
        ..job()
    };
    let id = submit(store, late).await;
    let gave_way = PutBack {
        attempt: next(store, owner(), 0).await.attempt,
        not_before_ms: 0,
        failed: false,
        has_begun: false,
        held: None,
        log: Vec::new(),
    };
    assert!(store.put_back(gave_way).await.unwrap());
    let overdue = claim(store, owner(), 6, Which::Overdue).await.unwrap();
    assert_eq!((overdue.request.id, overdue.start_by_ms), (id, Some(5)));
    assert!(overdue.request.body.is_empty(), "it will be refused");
}

async fn claim_delivery_for(store: &dyn JobStore, receiver: &str) -> Option<Box<Delivery>> {
    let claim = ClaimDelivery {
        owner: owner(),
        now_ms: 9,
        lease_until_ms: 100,
        receiver: Some(receiver.into()),
    };
    match store.claim_delivery(claim).await.unwrap() {
        ClaimedDelivery::Due(delivery) => Some(delivery),
        ClaimedDelivery::Nothing { .. } => None,
    }
}

async fn a_held_delivery_is_passed_over_and_was_no_attempt(store: &dyn JobStore) {
    let first = ended(store, 0).await;
    let second = ended(store, 1).await;
    let held = Settled::Held {
        receiver: "receiver.test".into(),
    };
    let delivery = claim_delivery(store, owner(), 9).await.unwrap();
    assert_eq!(delivery.attempt.id, first);
    assert!(settle(store, delivery.attempt, held.clone()).await);
    assert!(!settle(store, delivery.attempt, held.clone()).await);
    let other = claim_delivery(store, owner(), 9).await.unwrap();
    assert_eq!(other.attempt.id, second);
    assert_eq!(claim_delivery(store, owner(), 9).await, Err(None));
    assert!(claim_delivery_for(store, "other.test").await.is_none());
    let again = Settled::Again {
        at_ms: 5,
        reason: "answered 500".into(),
    };
    assert!(settle(store, other.attempt, again).await);
    // In the order in which they were due.
    let claimed = claim_delivery_for(store, "receiver.test").await.unwrap();
    assert_eq!((claimed.attempt.id, claimed.earlier_attempts), (first, 0));
    assert!(settle(store, claimed.attempt, held).await);
    let claimed = claim_delivery_for(store, "receiver.test").await.unwrap();
    assert_eq!((claimed.attempt.id, claimed.earlier_attempts), (first, 0));
    let claimed = claim_delivery_for(store, "receiver.test").await.unwrap();
    assert_eq!((claimed.attempt.id, claimed.earlier_attempts), (second, 1));
}

async fn whose_places_work_waits_for_is_known(store: &dyn JobStore) {
    assert_eq!(store.held().await.unwrap(), HeldWork::default());
    for source in [SOURCE, "other.test", SOURCE] {
        submit(store, job()).await;
        let attempt = next(store, owner(), 0).await.attempt;
        assert!(hold(store, attempt, source).await);
    }
    ended(store, 0).await;
    let delivery = claim_delivery(store, owner(), 9).await.unwrap();
    let receiver = "receiver.test".to_owned();
    let outcome = Settled::Held { receiver };
    assert!(settle(store, delivery.attempt, outcome).await);
    let mut held = store.held().await.unwrap();
    held.sources.sort();
    assert_eq!(held.sources, ["other.test", SOURCE]);
    assert_eq!(held.receivers, ["receiver.test"]);
}
