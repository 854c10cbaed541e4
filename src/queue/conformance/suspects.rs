//! Jobs under suspicion of having killed a process: who becomes one, what counts against it, and when
//! it has its turn.

use super::*;

on_every_store!(
    a_death_makes_all_that_ran_suspects_and_none_guilty,
    a_death_counts_against_a_job_that_ran_alone,
    dead_processes_are_judged_apart,
    a_death_while_nothing_ran_clears_the_counts,
    an_end_in_order_counts_against_nobody,
    suspects_wait_behind_all_others,
    suspects_go_by_crashes_then_arrival,
    a_suspect_in_a_pause_says_when_it_is_due,
    a_suspect_is_cancelled_like_any_job,
);

/// Has an owner claim jobs and die.
async fn die_with(store: &dyn JobStore, jobs: usize, which: Which) -> Recovered {
    let dead = owner();
    for _ in 0..jobs {
        claim(store, dead, 0, which).await.unwrap();
    }
    store.recover(recovery(owner(), i64::MAX)).await.unwrap()
}

/// A suspect with at most this many crashes, which goes after all others.
fn with_crashes(most_crashes: u32) -> Which {
    Which::Suspect {
        most_crashes,
        goes_last: true,
    }
}

async fn ahead(store: &dyn JobStore, id: Uuid) -> u64 {
    store.status(id, 0).await.unwrap().unwrap().ahead
}

async fn a_death_makes_all_that_ran_suspects_and_none_guilty(store: &dyn JobStore) {
    for _ in 0..3 {
        submit(store, job()).await;
    }
    // Many more deaths than a job may have on its account.
    for _ in 0..4 {
        let which = if claim_is_free(store).await {
            Which::Next
        } else {
            SUSPECT
        };
        let recovered = die_with(store, 3, which).await;
        assert_eq!((recovered.back, recovered.suspects), (3, 3));
        assert!(recovered.done.is_empty());
    }
    assert_eq!(
        claim(store, owner(), 0, Which::Next).await.unwrap_err(),
        None
    );
    for _ in 0..3 {
        claim(store, owner(), 0, with_crashes(0)).await.unwrap();
    }
    assert_eq!(claim(store, owner(), 0, SUSPECT).await.unwrap_err(), None);
}

/// Whether anybody waits who is no suspect.
async fn claim_is_free(store: &dyn JobStore) -> bool {
    match claim(store, owner(), 0, Which::Next).await {
        Ok(claimed) => put_back(store, claimed.attempt, 0, false).await,
        Err(_) => false,
    }
}

async fn a_death_counts_against_a_job_that_ran_alone(store: &dyn JobStore) {
    let id = submit(store, job()).await;
    let recovered = die_with(store, 1, Which::Next).await;
    assert_eq!((recovered.back, recovered.suspects), (1, 1));
    let none = claim(store, owner(), 5, with_crashes(0)).await;
    assert_eq!(none.unwrap_err(), Some(5), "it waits");
    let recovered = die_with(store, 1, with_crashes(1)).await;
    assert_eq!((recovered.back, recovered.suspects), (0, 0));
    assert_eq!(recovered.done, [id]);
}

async fn dead_processes_are_judged_apart(store: &dyn JobStore) {
    let together = [submit(store, job()).await, submit(store, job()).await];
    let alone = submit(store, job()).await;
    let crowd = owner();
    for _ in together {
        next(store, crowd, 0).await;
    }
    next(store, owner(), 0).await;
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!(recovered.suspects, 3);
    for id in together {
        let claimed = claim(store, owner(), 0, with_crashes(0)).await.unwrap();
        assert_eq!(claimed.request.id, id);
    }
    claim(store, owner(), 0, with_crashes(0)).await.unwrap_err();
    assert_eq!(next_suspect(store, owner(), 0).await.request.id, alone);
}

async fn a_death_while_nothing_ran_clears_the_counts(store: &dyn JobStore) {
    submit(store, job()).await;
    die_with(store, 1, Which::Next).await;
    claim(store, owner(), 0, with_crashes(0)).await.unwrap_err();
    let ended_in_order = Recover {
        died: false,
        ..recovery(owner(), i64::MAX)
    };
    store.recover(ended_in_order).await.unwrap();
    claim(store, owner(), 0, with_crashes(0)).await.unwrap_err();
    let recovered = store.recover(recovery(owner(), i64::MAX)).await.unwrap();
    assert_eq!((recovered.back, recovered.suspects), (0, 1));
    claim(store, owner(), 0, with_crashes(0)).await.unwrap();
}

async fn an_end_in_order_counts_against_nobody(store: &dyn JobStore) {
    submit(store, job()).await;
    next(store, owner(), 0).await;
    let ended_in_order = Recover {
        died: false,
        max_crashes: 1,
        ..recovery(owner(), i64::MAX)
    };
    let recovered = store.recover(ended_in_order).await.unwrap();
    assert_eq!((recovered.back, recovered.done.len()), (1, 0));
    claim(store, owner(), 0, with_crashes(0)).await.unwrap();
}

async fn suspects_wait_behind_all_others(store: &dyn JobStore) {
    let suspect = submit(store, job()).await;
    let other = submit(store, low_job()).await;
    die_with(store, 1, Which::Next).await;
    let (low, at) = position(store, low_job()).await;
    assert_eq!(at, 1);
    let (normal, at) = position(store, job()).await;
    assert_eq!(at, 0);
    let expected = [(normal, 0), (other, 1), (low, 2), (suspect, 3)];
    for (id, place) in expected {
        assert_eq!(ahead(store, id).await, place);
    }
    let limited = |max_queue_length| NewJob {
        max_queue_length: Some(max_queue_length),
        ..job()
    };
    let submission = Submission {
        id: Uuid::new_v4(),
        job: limited(3),
        now_ms: 0,
    };
    let refused = store.submit(submission).await.unwrap();
    assert_eq!(refused, Admission::Full { waiting: 4 });
    let last = submit(store, limited(4)).await;
    for id in [normal, last, other, low] {
        claim(store, owner(), 0, with_crashes(9)).await.unwrap_err();
        assert_eq!(next(store, owner(), 0).await.request.id, id);
    }
    let claimed = claim(store, owner(), 0, with_crashes(9)).await.unwrap();
    assert_eq!(claimed.request.id, suspect);
    // Whoever has waited long enough does not wait for others.
    assert!(put_back(store, claimed.attempt, 0, false).await);
    submit(store, job()).await;
    assert_eq!(next_suspect(store, owner(), 0).await.request.id, suspect);
}

async fn suspects_go_by_crashes_then_arrival(store: &dyn JobStore) {
    let guilty = submit(store, job()).await;
    die_with(store, 1, Which::Next).await;
    let low = submit(store, low_job()).await;
    let first = submit(store, job()).await;
    let second = submit(store, job()).await;
    die_with(store, 3, Which::Next).await;
    let order = [low, first, second, guilty];
    for (place, id) in (0..).zip(order) {
        assert_eq!(ahead(store, id).await, place);
    }
    for id in order {
        assert_eq!(next_suspect(store, owner(), 0).await.request.id, id);
    }
}

async fn a_suspect_in_a_pause_says_when_it_is_due(store: &dyn JobStore) {
    submit(store, job()).await;
    die_with(store, 1, Which::Next).await;
    let attempt = next_suspect(store, owner(), 0).await.attempt;
    assert!(put_back(store, attempt, 30, true).await);
    assert_eq!(
        claim(store, owner(), 9, SUSPECT).await.unwrap_err(),
        Some(30)
    );
    assert_eq!(next_suspect(store, owner(), 30).await.failures, 1);
}

async fn a_suspect_is_cancelled_like_any_job(store: &dyn JobStore) {
    let waiting = submit(store, job()).await;
    die_with(store, 1, Which::Next).await;
    store.cancel(waiting, completion("c", 0)).await.unwrap();
    assert_eq!(result_text(store, waiting).await.as_deref(), Some("c"));
    assert_eq!(claim(store, owner(), 0, SUSPECT).await.unwrap_err(), None);
    submit(store, job()).await;
    die_with(store, 1, Which::Next).await;
    let running = next_suspect(store, owner(), 0).await;
    store
        .cancel(running.request.id, completion("c", 0))
        .await
        .unwrap();
    assert!(put_back(store, running.attempt, 0, false).await);
    assert!(next_suspect(store, owner(), 0).await.cancel_requested);
}
