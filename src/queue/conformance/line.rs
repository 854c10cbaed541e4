//! The line: who is in it, in which order, and who has whom.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::*;
use crate::queue::job::Counts;

on_every_store!(
    jobs_are_claimed_by_priority_and_then_in_order_of_arrival,
    a_position_counts_those_ahead_for_the_same_endpoint,
    a_callers_limit_on_the_line_refuses_one_past_it,
    a_job_has_one_owner_however_many_ask,
    a_claimed_job_is_what_was_submitted,
    a_job_put_back_keeps_its_place_and_waits_for_its_pause,
    a_start_deadline_counts_until_the_first_start,
    an_owner_that_lost_its_job_can_do_nothing_to_it,
    a_lease_is_renewed_and_tells_who_is_unwanted,
    jobs_are_counted_by_state,
);

async fn jobs_are_claimed_by_priority_and_then_in_order_of_arrival(store: &dyn JobStore) {
    let other = NewJob {
        endpoint: "ocr".into(),
        ..job()
    };
    let low = submit(store, low_job()).await;
    let first = submit(store, job()).await;
    let second = submit(store, other).await;
    let low_too = submit(store, low_job()).await;
    let third = submit(store, job()).await;
    let owner = owner();
    for expected in [first, second, third, low, low_too] {
        assert_eq!(next(store, owner, 0).await.request.id, expected);
        assert_eq!(state(store, expected).await, State::Running);
    }
    assert_eq!(claim(store, owner, 0, Which::Next).await.unwrap_err(), None);
}

async fn a_position_counts_those_ahead_for_the_same_endpoint(store: &dyn JobStore) {
    let other = NewJob {
        endpoint: "ocr".into(),
        ..job()
    };
    let (_, at) = position(store, other.clone()).await;
    assert_eq!(at, 0);
    let (first, at) = position(store, job()).await;
    assert_eq!(at, 0);
    let (low, at) = position(store, low_job()).await;
    assert_eq!(at, 1);
    let (second, at) = position(store, job()).await;
    assert_eq!(at, 1);
    let (_, at) = position(store, other).await;
    assert_eq!(at, 1);
    let ahead = async |id| store.status(id, 0).await.unwrap().unwrap().ahead;
    assert_eq!(
        [ahead(first).await, ahead(second).await, ahead(low).await],
        [0, 1, 2]
    );
    // The other endpoint's first job goes, then this one's.
    let owner = owner();
    next(store, owner, 0).await;
    assert_eq!(ahead(second).await, 1);
    assert_eq!(next(store, owner, 0).await.request.id, first);
    assert_eq!(
        [ahead(first).await, ahead(second).await, ahead(low).await],
        [0, 0, 1]
    );
}

async fn a_callers_limit_on_the_line_refuses_one_past_it(store: &dyn JobStore) {
    let limited = NewJob {
        max_queue_length: Some(1),
        ..job()
    };
    let other = NewJob {
        endpoint: "ocr".into(),
        ..job()
    };
    submit(store, other).await;
    submit(store, limited.clone()).await;
    submit(store, limited.clone()).await;
    let id = Uuid::new_v4();
    let submission = Submission {
        id,
        job: limited.clone(),
        now_ms: 0,
    };
    let refused = store.submit(submission).await.unwrap();
    assert_eq!(refused, Admission::Full { waiting: 2 });
    assert_eq!(store.status(id, 0).await.unwrap(), None);
    // Somebody without a limit is taken, and what runs does not count.
    submit(store, job()).await;
    let owner = owner();
    for _ in 0..3 {
        next(store, owner, 0).await;
    }
    submit(store, limited).await;
}

async fn a_job_has_one_owner_however_many_ask(store: &dyn JobStore) {
    let mut submitted = HashSet::new();
    for _ in 0..30 {
        submitted.insert(submit(store, job()).await);
    }
    let claims = join_all((0..40).map(|_| claim(store, owner(), 0, Which::Next))).await;
    let claimed: Vec<_> = claims.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 30);
    let ids: HashSet<_> = claimed.iter().map(|job| job.request.id).collect();
    assert_eq!(ids, submitted);
}

async fn a_claimed_job_is_what_was_submitted(store: &dyn JobStore) {
    let new = NewJob {
        body: Bytes::from_static(b"\x00\xff\r\n'\"; DROP TABLE jobs"),
        content_type: None,
        base: "https://exämple.test/queue".into(),
        lifecycle: Some("{}".into()),
        start_by_ms: Some(5),
        may_retry: false,
        ..job()
    };
    let id = submit(store, new.clone()).await;
    let claimed = next(store, owner(), 3).await;
    let request = &claimed.request;
    assert_eq!(request.id, id);
    assert_eq!(request.endpoint, new.endpoint);
    assert_eq!(request.content_type, None);
    assert_eq!(request.body, new.body);
    assert_eq!(request.base, new.base);
    assert_eq!(request.lifecycle, new.lifecycle);
    assert_eq!(request.earlier_attempts, 0);
    assert_eq!(claimed.start_by_ms, Some(5));
    assert!(!claimed.may_retry && !claimed.cancel_requested);
    assert_eq!((claimed.failures, claimed.log.len()), (0, 0));
}

async fn a_job_put_back_keeps_its_place_and_waits_for_its_pause(store: &dyn JobStore) {
    let first = submit(store, job()).await;
    let second = submit(store, job()).await;
    let owner = owner();
    assert_eq!(next(store, owner, 0).await.request.id, first);
    assert!(put_back(store, first_attempt(first, owner), 10, true).await);
    assert_eq!(state(store, first).await, State::Waiting);
    // It is passed over while it pauses, but it is still first in line.
    assert_eq!(store.status(second, 0).await.unwrap().unwrap().ahead, 1);
    assert_eq!(next(store, owner, 9).await.request.id, second);
    assert!(put_back(store, first_attempt(second, owner), 0, false).await);
    let again = next(store, owner, 10).await;
    assert_eq!(again.request.id, first);
    assert_eq!((again.failures, again.request.earlier_attempts), (1, 1));
    assert_eq!(again.log, [line("again")]);
    let stopped = next(store, owner, 10).await;
    assert_eq!(stopped.request.id, second);
    assert_eq!((stopped.failures, stopped.request.earlier_attempts), (0, 1));
    // Who finds nothing learns when to come back.
    assert!(put_back(store, stopped.attempt, 30, true).await);
    assert!(put_back(store, again.attempt, 20, true).await);
    let nothing = claim(store, owner, 19, Which::Next).await.unwrap_err();
    assert_eq!(nothing, Some(20));
}

async fn a_start_deadline_counts_until_the_first_start(store: &dyn JobStore) {
    let by = |start_by_ms| NewJob {
        start_by_ms,
        ..job()
    };
    let in_time = submit(store, by(Some(5))).await;
    let late = submit(store, by(Some(7))).await;
    let later = submit(store, by(Some(6))).await;
    submit(store, by(None)).await;
    let owner = owner();
    assert_eq!(next(store, owner, 5).await.request.id, in_time);
    assert!(put_back(store, first_attempt(in_time, owner), 0, false).await);
    claim(store, owner, 6, Which::Overdue).await.unwrap_err();
    let mut overdue = HashSet::new();
    for _ in 0..2 {
        let job = claim(store, owner, 8, Which::Overdue).await.unwrap();
        overdue.insert((job.request.id, job.start_by_ms));
    }
    let expected = [(late, Some(7)), (later, Some(6))];
    assert_eq!(overdue, HashSet::from(expected));
    claim(store, owner, 8, Which::Overdue).await.unwrap_err();
    let again = next(store, owner, 8).await;
    assert_eq!(again.request.id, in_time);
    assert_eq!(again.start_by_ms, None);
}

async fn an_owner_that_lost_its_job_can_do_nothing_to_it(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let (old, new) = (owner(), owner());
    // Nobody's job yet.
    assert!(!finish(store, first_attempt(id, old), "early", 0).await);
    assert!(!put_back(store, first_attempt(id, old), 0, false).await);
    next(store, old, 0).await;
    let recovered = store.recover(recovery(new, 100)).await.unwrap();
    assert_eq!(recovered.back, 1);
    let present = next_suspect(store, new, 0).await.attempt;
    assert_eq!((present.id, present.owner), (id, new));
    assert!(!finish(store, first_attempt(id, old), "old", 0).await);
    assert!(!put_back(store, first_attempt(id, old), 0, false).await);
    assert_eq!(state(store, id).await, State::Running);
    assert!(finish(store, present, "new", 0).await);
    for attempt in [first_attempt(id, old), present] {
        assert!(!finish(store, attempt, "second", 0).await);
        assert!(!put_back(store, attempt, 0, false).await);
    }
    assert_eq!(result_text(store, id).await.as_deref(), Some("new"));
}

async fn a_lease_is_renewed_and_tells_who_is_unwanted(store: &dyn JobStore) {
    let wanted = submit(store, job()).await;
    let unwanted = submit(store, job()).await;
    let (me, other) = (owner(), owner());
    next(store, me, 0).await;
    next(store, me, 0).await;
    store.cancel(unwanted, completion("c", 0)).await.unwrap();
    let both = [first_attempt(wanted, me), first_attempt(unwanted, me)];
    let renewed = renew(store, both.to_vec(), 500).await;
    assert_eq!((renewed.unwanted, renewed.lost), (vec![unwanted], vec![]));
    let theirs = first_attempt(wanted, other);
    let renewed = renew(store, vec![theirs], 9000).await;
    assert_eq!((renewed.unwanted, renewed.lost), (vec![], vec![theirs]));
    let recovered = store.recover(recovery(other, 499)).await.unwrap();
    assert_eq!((recovered.back, recovered.done.len()), (0, 0));
    let recovered = store.recover(recovery(other, 500)).await.unwrap();
    assert_eq!((recovered.back, recovered.done), (1, vec![unwanted]));
    assert_eq!(state(store, wanted).await, State::Waiting);
}

async fn jobs_are_counted_by_state(store: &dyn JobStore) {
    let counts = async |waiting, running| {
        let expected = Counts { waiting, running };
        assert_eq!(store.counts().await.unwrap(), expected);
    };
    counts(0, 0).await;
    for _ in 0..3 {
        submit(store, job()).await;
    }
    counts(3, 0).await;
    let owner = owner();
    let id = next(store, owner, 0).await.request.id;
    counts(2, 1).await;
    finish(store, first_attempt(id, owner), "x", 0).await;
    counts(2, 0).await;
}
