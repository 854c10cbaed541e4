//! How jobs end: answered, cancelled, orphaned, forgotten.

use super::*;
use crate::queue::job::{CancelOutcome, StoredResult};
use crate::queue::timeline::KeptTime;

on_every_store!(
    a_result_is_repeated_byte_for_byte_until_it_expires,
    a_finished_job_shows_how_it_went,
    a_waiting_job_is_cancelled_at_once,
    a_running_job_is_cancelled_by_its_owner,
    a_job_cancelled_on_its_way_back_is_not_run_again,
    only_dead_owners_are_recovered_from,
    a_job_that_kills_is_buried,
    a_job_cancelled_before_the_death_ends_cancelled,
    only_what_has_expired_is_forgotten,
    a_job_moves_only_as_the_table_says,
    the_time_noted_last_is_read,
);

async fn a_result_is_repeated_byte_for_byte_until_it_expires(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    assert_eq!(
        store.result(id, 0).await.unwrap(),
        Some(JobResult::NotFinished)
    );
    let owner = owner();
    next(store, owner, 0).await;
    assert_eq!(
        store.result(id, 0).await.unwrap(),
        Some(JobResult::NotFinished)
    );
    let mut completion = completion("", 10);
    completion.answer.status = 422;
    completion.answer.body = Bytes::from((0..=255).collect::<Vec<u8>>());
    completion.answer.headers = vec![
        ("x-b".into(), "1".into()),
        ("x-a".into(), "ä \"quoted\"".into()),
        ("x-b".into(), "2".into()),
    ];
    let expected = StoredResult::from(&completion.answer);
    let finish = Finish {
        attempt: first_attempt(id, owner),
        completion,
        inference_us: None,
        log: Vec::new(),
    };
    assert!(store.finish(finish).await.unwrap());
    for now_ms in [10, 11, 1009] {
        let found = store.result(id, now_ms).await.unwrap();
        assert_eq!(found, Some(JobResult::Finished(expected.clone())));
    }
    assert_eq!(store.result(id, 1010).await.unwrap(), None);
    assert_eq!(store.status(id, 1010).await.unwrap(), None);
    assert_eq!(store.result(Uuid::new_v4(), 0).await.unwrap(), None);
}

async fn a_finished_job_shows_how_it_went(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let owner = owner();
    next(store, owner, 0).await;
    let mut completion = completion("{}", 0);
    let error = JobError {
        message: "It broke. \u{1f4a5}".into(),
        error_type: "internal_error".into(),
    };
    completion.answer.error = Some(error.clone());
    let log = vec![line("one"), line("two\n'")];
    let finish = Finish {
        attempt: first_attempt(id, owner),
        completion,
        inference_us: Some(9_270_000),
        log: log.clone(),
    };
    assert!(store.finish(finish).await.unwrap());
    let status = store.status(id, 0).await.unwrap().unwrap();
    assert_eq!((status.state, status.ahead), (State::Done, 0));
    assert_eq!(status.endpoint, CAPTION);
    assert_eq!(status.inference_us, Some(9_270_000));
    assert_eq!(status.error, Some(error));
    assert_eq!(status.log, log);
}

async fn a_waiting_job_is_cancelled_at_once(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let other = submit(store, job()).await;
    let outcome = store.cancel(id, completion("cancelled", 0)).await.unwrap();
    assert_eq!(outcome, CancelOutcome::Requested);
    assert_eq!(state(store, id).await, State::Done);
    assert_eq!(result_text(store, id).await.as_deref(), Some("cancelled"));
    let outcome = store.cancel(id, completion("again", 1)).await.unwrap();
    assert_eq!(outcome, CancelOutcome::AlreadyCompleted);
    assert_eq!(result_text(store, id).await.as_deref(), Some("cancelled"));
    let expired = store.cancel(id, completion("late", 1000)).await.unwrap();
    assert_eq!(expired, CancelOutcome::NotFound);
    let unknown = store
        .cancel(Uuid::new_v4(), completion("x", 0))
        .await
        .unwrap();
    assert_eq!(unknown, CancelOutcome::NotFound);
    assert_eq!(next(store, owner(), 0).await.request.id, other);
}

async fn a_running_job_is_cancelled_by_its_owner(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let owner = owner();
    next(store, owner, 0).await;
    for _ in 0..2 {
        let outcome = store.cancel(id, completion("mine", 0)).await.unwrap();
        assert_eq!(outcome, CancelOutcome::Requested);
    }
    assert_eq!(state(store, id).await, State::Running);
    // Its owner may have been faster.
    assert!(finish(store, first_attempt(id, owner), "theirs", 0).await);
    assert_eq!(result_text(store, id).await.as_deref(), Some("theirs"));
}

async fn a_job_cancelled_on_its_way_back_is_not_run_again(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let owner = owner();
    next(store, owner, 0).await;
    store.cancel(id, completion("c", 0)).await.unwrap();
    assert!(put_back(store, first_attempt(id, owner), 0, true).await);
    assert!(next(store, owner, 0).await.cancel_requested);
}

async fn only_dead_owners_are_recovered_from(store: &dyn JobStore) {
    let mine = submit(store, job()).await;
    let alive = submit(store, job()).await;
    let deadline = NewJob {
        start_by_ms: Some(1),
        ..job()
    };
    let dead = submit(store, deadline).await;
    let waiting = submit(store, job()).await;
    let (me, neighbour) = (owner(), owner());
    next(store, me, 0).await;
    next(store, neighbour, 10).await;
    next(store, owner(), 0).await;
    let recovered = store.recover(recovery(me, 100)).await.unwrap();
    assert_eq!((recovered.back, recovered.done.len()), (1, 0));
    assert_eq!(state(store, mine).await, State::Running);
    assert_eq!(state(store, alive).await, State::Running);
    assert_eq!(next(store, me, 100).await.request.id, waiting);
    // Behind all others, and its start deadline is met for good.
    let again = next_suspect(store, me, 100).await;
    assert_eq!(again.request.id, dead);
    assert_eq!((again.start_by_ms, again.failures), (None, 0));
}

async fn a_job_that_kills_is_buried(store: &dyn JobStore) {
    let killer = NewJob {
        webhook: Some("http://receiver.test/".into()),
        ..job()
    };
    let id = submit(store, killer).await;
    next(store, owner(), 0).await;
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!((recovered.back, recovered.done.len()), (1, 0));
    // A stop in good order in between counts for nothing.
    let orderly = owner();
    let attempt = next_suspect(store, orderly, 0).await.attempt;
    assert!(put_back(store, attempt, 0, false).await);
    next_suspect(store, owner(), 0).await;
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!((recovered.back, recovered.done), (0, vec![id]));
    let status = store.status(id, 0).await.unwrap().unwrap();
    assert_eq!(status.error.unwrap().error_type, "internal_error");
    assert_eq!(result_text(store, id).await.as_deref(), Some("poisoned"));
    claim(store, owner(), 0, SUSPECT).await.unwrap_err();
}

async fn a_job_cancelled_before_the_death_ends_cancelled(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    next(store, owner(), 0).await;
    store.cancel(id, completion("c", 0)).await.unwrap();
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!((recovered.back, recovered.done), (0, vec![id]));
    assert_eq!(result_text(store, id).await.as_deref(), Some("cancelled"));
}

async fn only_what_has_expired_is_forgotten(store: &dyn JobStore) {
    let owner = owner();
    let mut done = Vec::new();
    for end in [0, 1, 2, 500] {
        let id = submit(store, job()).await;
        next(store, owner, 0).await;
        finish(store, first_attempt(id, owner), "x", end).await;
        done.push(id);
    }
    let running = submit(store, job()).await;
    next(store, owner, 0).await;
    let waiting = submit(store, job()).await;
    assert!(store.expire(1002, 2).await.unwrap(), "a third one is left");
    assert!(!store.expire(1002, 2).await.unwrap());
    assert!(!store.expire(1002, 2).await.unwrap());
    // Seen from a time when none of them had expired, so that only deleting explains their absence.
    for (number, id) in done.into_iter().enumerate() {
        let is_there = store.status(id, 0).await.unwrap().is_some();
        assert_eq!(is_there, number == 3, "{number}");
    }
    store.expire(i64::MAX, 100).await.unwrap();
    assert_eq!(state(store, running).await, State::Running);
    assert_eq!(state(store, waiting).await, State::Waiting);
}

/// Brings a fresh job into a state.
async fn job_in(store: &dyn JobStore, state: State, owner: Uuid) -> Uuid {
    let id = submit(store, job()).await;
    if state != State::Waiting {
        assert_eq!(next(store, owner, 0).await.request.id, id);
    }
    if state == State::Done {
        assert!(finish(store, first_attempt(id, owner), "first", 0).await);
    }
    id
}

async fn a_job_moves_only_as_the_table_says(store: &dyn JobStore) {
    use crate::queue::job::Transition;
    let me = owner();
    for from in [State::Waiting, State::Running, State::Done] {
        for transition in [
            Transition::Claim,
            Transition::PutBack,
            Transition::Finish,
            Transition::Cancel,
        ] {
            let id = job_in(store, from, me).await;
            match transition {
                Transition::Claim => {
                    let claimed = claim(store, me, 0, Which::Next).await;
                    assert_eq!(claimed.is_ok(), from == transition.from());
                }
                Transition::PutBack => {
                    let is_back = put_back(store, first_attempt(id, me), 0, false).await;
                    assert_eq!(is_back, from == transition.from());
                }
                Transition::Finish => {
                    let is_done = finish(store, first_attempt(id, me), "second", 0).await;
                    assert_eq!(is_done, from == transition.from());
                }
                Transition::Cancel => {
                    store.cancel(id, completion("second", 0)).await.unwrap();
                }
            }
            let expected = if from == transition.from() {
                transition.to()
            } else {
                from
            };
            assert_eq!(state(store, id).await, expected, "{from:?} {transition:?}");
            // Nothing of it is in the way of the next one.
            store.cancel(id, completion("over", 0)).await.unwrap();
            finish(store, first_attempt(id, me), "over", 0).await;
        }
    }
}

async fn the_time_noted_last_is_read(store: &dyn JobStore) {
    assert_eq!(store.time().await.unwrap(), KeptTime::default());
    for (high_ms, ahead_ms) in [(5, -3), (4, i64::MAX), (i64::MAX, i64::MIN)] {
        let is_open = ahead_ms < 0;
        let time = KeptTime {
            high_ms,
            ahead_ms,
            is_open,
        };
        store.note_time(time).await.unwrap();
        assert_eq!(store.time().await.unwrap(), time);
    }
}
