//! Webhook deliveries: made with the result, tried by one owner at a time, never lost.

use super::*;
use crate::queue::store::{ClaimDelivery, ClaimedDelivery, Delivery, Settle, Settled};

on_every_store!(
    a_delivery_is_due_when_its_job_ends,
    a_delivery_has_one_owner_and_comes_back_when_told,
    a_settled_delivery_never_comes_back,
    the_delivery_of_a_dead_owner_is_due_again,
    a_delivery_goes_with_its_job,
);

const URL: &str = "https://receiver.test/hook?x=1";

pub(super) async fn claim_delivery(
    store: &dyn JobStore,
    owner: Uuid,
    now_ms: i64,
) -> Result<Box<Delivery>, Option<i64>> {
    let claim = ClaimDelivery {
        owner,
        now_ms,
        lease_until_ms: now_ms.saturating_add(100),
        receiver: None,
    };
    match store.claim_delivery(claim).await.unwrap() {
        ClaimedDelivery::Due(delivery) => Ok(delivery),
        ClaimedDelivery::Nothing { next_due_ms } => Err(next_due_ms),
    }
}

/// Notes what came of an attempt.
pub(super) async fn settle(store: &dyn JobStore, attempt: Attempt, outcome: Settled) -> bool {
    let settle = Settle { attempt, outcome };
    store.settle_delivery(settle).await.unwrap()
}

/// A job with a webhook that ended at a time.
pub(super) async fn ended(store: &dyn JobStore, now_ms: i64) -> Uuid {
    let told = NewJob {
        webhook: Some(URL.into()),
        ..job()
    };
    let id = submit(store, told).await;
    let owner = owner();
    assert_eq!(next(store, owner, now_ms).await.request.id, id);
    assert!(finish(store, first_attempt(id, owner), "answer", now_ms).await);
    id
}

async fn a_delivery_is_due_when_its_job_ends(store: &dyn JobStore) {
    let owner = owner();
    let silent = submit(store, job()).await;
    next(store, owner, 0).await;
    finish(store, first_attempt(silent, owner), "x", 0).await;
    assert_eq!(claim_delivery(store, owner, 99).await, Err(None));
    let id = ended(store, 5).await;
    assert_eq!(claim_delivery(store, owner, 4).await, Err(Some(5)));
    let expected = Delivery {
        attempt: first_attempt(id, owner),
        url: URL.into(),
        earlier_attempts: 0,
        expires_ms: 1005,
        status: 200,
        body: Bytes::from_static(b"answer"),
    };
    assert_eq!(
        claim_delivery(store, owner, 5).await,
        Ok(Box::new(expected))
    );
    // A waiting job that is cancelled has ended too.
    let told = NewJob {
        webhook: Some(URL.into()),
        ..job()
    };
    let cancelled = submit(store, told).await;
    store.cancel(cancelled, completion("c", 7)).await.unwrap();
    let delivery = claim_delivery(store, owner, 7).await.unwrap();
    assert_eq!(
        (delivery.attempt.id, delivery.body.as_ref()),
        (cancelled, &b"c"[..])
    );
}

async fn a_delivery_has_one_owner_and_comes_back_when_told(store: &dyn JobStore) {
    let id = ended(store, 0).await;
    let (me, other) = (owner(), owner());
    claim_delivery(store, me, 0).await.unwrap();
    assert_eq!(claim_delivery(store, other, 0).await, Err(None));
    let again = |at_ms| Settled::Again {
        at_ms,
        reason: "answered 500".into(),
    };
    assert!(!settle(store, first_attempt(id, other), again(1)).await);
    assert_eq!(claim_delivery(store, other, 1).await, Err(None));
    assert!(settle(store, first_attempt(id, me), again(20)).await);
    assert_eq!(claim_delivery(store, other, 19).await, Err(Some(20)));
    let delivery = claim_delivery(store, other, 20).await.unwrap();
    assert_eq!((delivery.attempt.id, delivery.earlier_attempts), (id, 1));
}

async fn a_settled_delivery_never_comes_back(store: &dyn JobStore) {
    let owner = owner();
    let failed = Settled::Failed {
        reason: "refused".into(),
    };
    for outcome in [Settled::Delivered, failed] {
        let id = ended(store, 0).await;
        claim_delivery(store, owner, 0).await.unwrap();
        assert!(settle(store, first_attempt(id, owner), outcome).await);
        assert_eq!(claim_delivery(store, owner, i64::MAX).await, Err(None));
    }
    store
        .recover(recovery(Uuid::new_v4(), i64::MAX))
        .await
        .unwrap();
    assert_eq!(claim_delivery(store, owner, i64::MAX).await, Err(None));
}

async fn the_delivery_of_a_dead_owner_is_due_again(store: &dyn JobStore) {
    let id = ended(store, 0).await;
    let (dead, me) = (owner(), owner());
    claim_delivery(store, dead, 0).await.unwrap();
    store.recover(recovery(dead, i64::MAX)).await.unwrap();
    store.recover(recovery(me, 99)).await.unwrap();
    assert_eq!(claim_delivery(store, me, 0).await, Err(None));
    store.recover(recovery(me, 100)).await.unwrap();
    let delivery = claim_delivery(store, me, 0).await.unwrap();
    assert_eq!((delivery.attempt.id, delivery.earlier_attempts), (id, 1));
}

async fn a_delivery_goes_with_its_job(store: &dyn JobStore) {
    ended(store, 0).await;
    store.expire(1000, 10).await.unwrap();
    assert_eq!(claim_delivery(store, owner(), i64::MAX).await, Err(None));
}
