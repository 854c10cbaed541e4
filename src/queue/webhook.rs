//! Tells receivers that their job has ended: signed, with growing pauses, across restarts.
//!
//! The delivery is stored in the same transaction as the job's result, so neither is there without
//! the other. A receiver may be told twice, when the process dies between its answer and our note of
//! it; receivers know that and go by the request id.
//!
//! Addresses come from callers. They are contacted only through [`Poster`], which holds them to the
//! same rules as pictures: a private address is refused after its name was resolved, a redirect is
//! not followed. Both are final: nothing about them gets better with time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::clock::to_ms;
use super::store::{ClaimDelivery, ClaimedDelivery, Delivery, Settle, Settled, StoreError};
use super::worker::STORE_PAUSE;
use super::{Inner, Phase};
use crate::fal::webhook as wire;
use crate::image_io::fetch::{Post, PostError};

/// Deliveries under way at once. A receiver that never answers holds one for two minutes.
const MAX_AT_ONCE: usize = 32;

/// How long a receiver may take, first and later. fal's own numbers.
const FIRST_TIMEOUT: Duration = Duration::from_secs(15);
const LATER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a delivery under way belongs to its owner; longer than any attempt.
const LEASE: Duration = Duration::from_secs(180);

/// The first attempt and fal's 31 further ones.
const MAX_ATTEMPTS: u32 = 32;

/// Pause before the second attempt; it doubles with every further one. With the longest pause the
/// attempts reach over 23 hours, nearly as long as a result is kept by default.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Delivers what is due until the queue stops. What is under way then is dropped, and due again at
/// the next start.
pub(super) async fn deliver(inner: Arc<Inner>) {
    let mut news = inner.deliveries.subscribe();
    let mut phase = inner.phase.subscribe();
    let mut under_way = JoinSet::new();
    while *phase.borrow_and_update() != Phase::Stopped {
        // Seen before the store is asked: whoever comes after that wakes the wait below.
        news.borrow_and_update();
        let has_room = under_way.len() < MAX_AT_ONCE;
        let next_due_ms = match claim(&inner, has_room).await {
            Ok(ClaimedDelivery::Due(delivery)) => {
                under_way.spawn(attempt(Arc::clone(&inner), *delivery));
                continue;
            }
            Ok(ClaimedDelivery::Nothing { next_due_ms }) => next_due_ms,
            Err(error) => {
                tracing::error!(%error, "no webhook can be claimed");
                Some(inner.clock.now_ms().saturating_add(to_ms(STORE_PAUSE)))
            }
        };
        let due = inner.clock.sleep_until(next_due_ms.unwrap_or(i64::MAX));
        tokio::select! {
            _ = news.changed() => {}
            _ = phase.changed() => {}
            Some(_) = under_way.join_next() => {}
            () = due => {}
        }
    }
}

async fn claim(inner: &Inner, has_room: bool) -> Result<ClaimedDelivery, StoreError> {
    if !has_room {
        return Ok(ClaimedDelivery::Nothing { next_due_ms: None });
    }
    let now_ms = inner.clock.now_ms();
    let claim = ClaimDelivery {
        owner: inner.owner,
        now_ms,
        lease_until_ms: now_ms.saturating_add(to_ms(LEASE)),
    };
    inner.store.claim_delivery(claim).await
}

async fn attempt(inner: Arc<Inner>, delivery: Delivery) {
    let id = delivery.attempt.id;
    let body = wire::body(&id.to_string(), delivery.status, &delivery.body);
    // Receivers hold this against their own calendars.
    let seconds = inner.clock.wall_ms().div_euclid(1000);
    let mut headers = inner.signer.headers(id, seconds, &body).to_vec();
    headers.push(("content-type", "application/json".to_owned()));
    let post = Post {
        url: &delivery.url,
        headers,
        body,
        timeout: if delivery.earlier_attempts == 0 {
            FIRST_TIMEOUT
        } else {
            LATER_TIMEOUT
        },
    };
    let answer = inner.poster.post(post).await;
    let outcome = settle(answer, &delivery, inner.clock.now_ms());
    match &outcome {
        Settled::Delivered => tracing::debug!(%id, "webhook delivered"),
        Settled::Failed { reason } => tracing::warn!(%id, reason, "webhook given up"),
        Settled::Again { reason, .. } => tracing::info!(%id, reason, "webhook not delivered yet"),
    }
    let settle = Settle {
        attempt: delivery.attempt,
        outcome,
    };
    let stored = inner.until_stored(|| inner.store.settle_delivery(settle.clone()));
    if stored.await == Some(false) {
        tracing::warn!(%id, "a webhook was taken over before its end was stored");
    }
}

/// What an attempt means for the delivery.
fn settle(answer: Result<u16, PostError>, delivery: &Delivery, now_ms: i64) -> Settled {
    let reason = match answer {
        Ok(200..=299) => return Settled::Delivered,
        Ok(status @ 300..=399) => {
            let reason = format!("answered {status}, and redirects are not followed");
            return Settled::Failed { reason };
        }
        Err(PostError::Refused(reason)) => return Settled::Failed { reason },
        Ok(status) => format!("answered {status}"),
        Err(PostError::Failed(reason)) => reason,
    };
    let at_ms = now_ms.saturating_add(to_ms(pause_after(delivery.earlier_attempts)));
    if delivery.earlier_attempts + 1 >= MAX_ATTEMPTS || at_ms >= delivery.expires_ms {
        return Settled::Failed { reason };
    }
    Settled::Again { at_ms, reason }
}

/// The pause after this many earlier attempts and one more.
fn pause_after(earlier_attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(earlier_attempts).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::super::store::Attempt;
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn delivery(earlier_attempts: u32) -> Delivery {
        Delivery {
            attempt: Attempt {
                id: Uuid::new_v4(),
                owner: Uuid::new_v4(),
                number: earlier_attempts + 1,
            },
            url: "http://receiver.test/".into(),
            earlier_attempts,
            expires_ms: DAY_MS,
            status: 200,
            body: Bytes::from_static(b"{}"),
        }
    }

    fn is_final(answer: Result<u16, PostError>) -> bool {
        match settle(answer, &delivery(0), 0) {
            Settled::Again { at_ms, .. } => {
                assert_eq!(at_ms, 10_000);
                false
            }
            Settled::Delivered | Settled::Failed { .. } => true,
        }
    }

    #[test]
    fn two_hundreds_are_success_and_redirects_and_refusals_are_final() {
        assert_eq!(settle(Ok(200), &delivery(0), 0), Settled::Delivered);
        assert_eq!(settle(Ok(299), &delivery(31), 0), Settled::Delivered);
        for status in [300, 301, 308, 399] {
            assert!(is_final(Ok(status)), "{status}");
        }
        assert!(is_final(Err(PostError::Refused("private".into()))));
        for status in [100, 199, 400, 404, 410, 429, 500, 503] {
            assert!(!is_final(Ok(status)), "{status}");
        }
        assert!(!is_final(Err(PostError::Failed("timeout".into()))));
    }

    #[test]
    fn attempts_spread_over_a_day_and_end() {
        let mut now_ms = 0;
        let mut attempts = 0;
        while let Settled::Again { at_ms, .. } = settle(Ok(500), &delivery(attempts), now_ms) {
            assert!(at_ms > now_ms && at_ms < DAY_MS);
            now_ms = at_ms;
            attempts += 1;
        }
        assert_eq!(attempts + 1, MAX_ATTEMPTS);
        assert!(now_ms > 23 * 3_600_000, "{now_ms}");
    }

    #[test]
    fn nothing_is_promised_beyond_the_result() {
        let late = settle(Ok(500), &delivery(3), DAY_MS - 1);
        assert!(matches!(late, Settled::Failed { .. }));
    }
}
