//! Tells receivers that their job has ended: signed, with growing pauses, across restarts.
//!
//! The delivery is stored in the same transaction as the job's result, so neither is there without
//! the other. A receiver may be told twice, when the process dies between its answer and our note of
//! it; receivers know that and go by the request id.
//!
//! Addresses come from callers. They are contacted only through [`Poster`], which holds them to the
//! same rules as pictures: a private address is refused after its name was resolved, a redirect is
//! not followed. Both are final: nothing about them gets better with time.
//!
//! Some never answer, by accident or on purpose, and must not keep others waiting:
//! * One receiver has a share of the places ([`super::shares`]); what is beyond it is held in the store.
//! * An attempt holds a place in the prompt lane for [`PROMPT`] only. Then it goes on in a slow lane with
//!   as many places; where that is full, it has failed for this time. So the prompt lane is never stuck,
//!   and every receiver that is well is told within moments.
//! * Large results take memory as long as they are in flight. One receiver has a share of it, and the
//!   slow lane has as much of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use url::Url;

use super::clock::to_ms;
use super::shares::{Place, Ready, Shares};
use super::signature::Signer;
use super::store::{
    Attempt, ClaimDelivery, ClaimedDelivery, Delivery, Settle, Settled, StoreError,
};
use super::worker::STORE_PAUSE;
use super::{Inner, Phase};
use crate::config::QueueSettings;
use crate::fal::webhook as wire;
use crate::image_io::fetch::{Post, PostError};

/// Time in which receivers answer that are well. Whoever takes longer goes on in the slow lane.
const PROMPT: Duration = Duration::from_secs(2);

/// Bytes of a result up to which its delivery takes no share of the memory: the places bound those.
const SMALL_BYTES: usize = 1 << 20;

/// Bytes of a result up to which it is read and signed on the async threads: under a millisecond.
const PREPARE_INLINE_BYTES: usize = 64 << 10;

/// Time for a receiver to answer, first and later. fal's own numbers.
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
    let prompt = Arc::new(Semaphore::new(inner.settings.webhooks));
    let slow = slow_lane(&inner.settings);
    let mut under_way = JoinSet::new();
    while *phase.borrow_and_update() != Phase::Stopped {
        while under_way.try_join_next().is_some() {}
        let lane = tokio::select! {
            lane = Arc::clone(&prompt).acquire_owned() => lane,
            _ = phase.changed() => continue,
        };
        let Ok(lane) = lane else { break };
        // Seen before the store is asked: whoever comes after that wakes the wait below.
        news.borrow_and_update();
        let held = inner.receivers.ready();
        let next_due_ms = match claim(&inner, held.as_ref()).await {
            Ok(ClaimedDelivery::Due(delivery)) => {
                let to = To::of(&delivery);
                let inner = Arc::clone(&inner);
                match inner.receivers.take_with(&to.host, to.bytes) {
                    Some(place) => {
                        let slow = Arc::clone(&slow);
                        let places = Places { lane, place, slow };
                        under_way.spawn(deliver_one(inner, *delivery, to, places));
                    }
                    // The result leaves the memory here.
                    None => {
                        under_way.spawn(hold(inner, delivery.attempt, to, lane));
                    }
                }
                continue;
            }
            Ok(ClaimedDelivery::Nothing { next_due_ms }) => next_due_ms,
            Err(error) => {
                tracing::error!(%error, "no webhook can be claimed");
                Some(inner.clock.now_ms().saturating_add(to_ms(STORE_PAUSE)))
            }
        };
        drop(lane);
        if let Some(held) = held {
            inner.receivers.release(&held);
            continue;
        }
        let due = inner.clock.sleep_until(next_due_ms.unwrap_or(i64::MAX));
        tokio::select! {
            _ = news.changed() => {}
            _ = phase.changed() => {}
            () = due => {}
        }
    }
}

async fn claim(inner: &Inner, held: Option<&Ready>) -> Result<ClaimedDelivery, StoreError> {
    let now_ms = inner.clock.now_ms();
    let claim = ClaimDelivery {
        owner: inner.owner,
        now_ms,
        lease_until_ms: now_ms.saturating_add(to_ms(LEASE)),
        receiver: held.map(|held| held.party.clone()),
    };
    inner.store.claim_delivery(claim).await
}

/// Places for attempts whose receivers take longer. Nobody waits for one.
fn slow_lane(settings: &QueueSettings) -> Arc<Shares> {
    Shares::with_memory(
        settings.webhooks,
        settings.webhooks_per_receiver,
        settings.webhook_memory_bytes,
        watch::Sender::new(()),
    )
}

/// The party whose share a delivery takes from, and the memory that it takes.
struct To {
    host: String,
    bytes: usize,
}

impl To {
    fn of(delivery: &Delivery) -> Self {
        let url = Url::parse(&delivery.url).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        let bytes = delivery.body.len();
        Self {
            host: host.trim_end_matches('.').to_owned(),
            bytes: if bytes > SMALL_BYTES { bytes } else { 0 },
        }
    }
}

/// A place among those who answer promptly, the receiver's own, and the places of those who do not
/// answer promptly.
struct Places {
    lane: OwnedSemaphorePermit,
    place: Place,
    slow: Arc<Shares>,
}

/// Keeps a delivery in the store until its receiver may have another one.
async fn hold(inner: Arc<Inner>, attempt: Attempt, to: To, _lane: OwnedSemaphorePermit) {
    let receiver = to.host.clone();
    note(&inner, attempt, Settled::Held { receiver }).await;
    inner.receivers.hold_with(to.host, to.bytes);
}

async fn deliver_one(inner: Arc<Inner>, mut delivery: Delivery, to: To, places: Places) {
    let outcome = attempt(&inner, &mut delivery, &to, places).await;
    note(&inner, delivery.attempt, outcome).await;
    // It may be due again before anything else is.
    inner.deliveries.send_replace(());
}

/// Stores what came of an attempt.
async fn note(inner: &Inner, attempt: Attempt, outcome: Settled) {
    let id = attempt.id;
    match &outcome {
        Settled::Delivered => tracing::debug!(%id, "webhook delivered"),
        Settled::Failed { reason } => tracing::warn!(%id, reason, "webhook given up"),
        Settled::Again { reason, .. } => tracing::info!(%id, reason, "webhook not delivered yet"),
        Settled::Held { receiver } => tracing::debug!(%id, receiver, "webhook held"),
    }
    let settle = Settle { attempt, outcome };
    let stored = inner.until_stored(|| inner.store.settle_delivery(settle.clone()));
    if stored.await == Some(false) {
        tracing::warn!(%id, "a webhook was taken over before its end was stored");
    }
}

async fn attempt(inner: &Inner, delivery: &mut Delivery, to: &To, places: Places) -> Settled {
    let Places {
        lane,
        mut place,
        slow,
    } = places;
    // Receivers hold this against their own calendars.
    let seconds = inner.clock.wall_ms().div_euclid(1000);
    let (headers, body) = match prepare(&inner.signer, delivery, seconds).await {
        Ok(prepared) => prepared,
        Err(error) => return settle(Err(error), delivery, inner.clock.now_ms()),
    };
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
    let posting = inner.poster.post(post);
    tokio::pin!(posting);
    let answer = match tokio::time::timeout(PROMPT, &mut posting).await {
        Ok(answer) => answer,
        Err(_) => match slow.take_with(&to.host, to.bytes) {
            Some(_in_slow_lane) => {
                place.give_back_memory();
                drop(lane);
                posting.await
            }
            None => {
                let reason = "no answer at once, while too many others are slow";
                Err(PostError::Failed(reason.into()))
            }
        },
    };
    settle(answer, delivery, inner.clock.now_ms())
}

/// The headers and the body of a webhook. Takes the answer out of the delivery, so that it is not in
/// memory twice while it is sent. A large one is read and signed off the async threads.
async fn prepare(
    signer: &Arc<Signer>,
    delivery: &mut Delivery,
    seconds: i64,
) -> Result<(Vec<(&'static str, String)>, Vec<u8>), PostError> {
    let answer = std::mem::take(&mut delivery.body);
    let (id, status, bytes) = (delivery.attempt.id, delivery.status, answer.len());
    let signer = Arc::clone(signer);
    let prepare = move || {
        let body = wire::body(&id.to_string(), status, &answer);
        let mut headers = signer.headers(id, seconds, &body).to_vec();
        headers.push(("content-type", "application/json".to_owned()));
        (headers, body)
    };
    if bytes <= PREPARE_INLINE_BYTES {
        return Ok(prepare());
    }
    let prepared = tokio::task::spawn_blocking(prepare).await;
    prepared.map_err(|error| PostError::Failed(error.to_string()))
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
    use futures_util::FutureExt;
    use uuid::Uuid;

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
            Settled::Held { .. } => panic!("it was tried"),
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
    fn every_result_belongs_to_its_receivers_host_and_a_large_one_takes_memory() {
        let large = Delivery {
            body: Bytes::from(vec![b'7'; SMALL_BYTES + 1]),
            url: "https://Receiver.test.:8443/x".into(),
            ..delivery(0)
        };
        for (delivery, bytes) in [(&large, SMALL_BYTES + 1), (&delivery(0), 0)] {
            let to = To::of(delivery);
            assert_eq!((to.host.as_str(), to.bytes), ("receiver.test", bytes));
        }
    }

    #[tokio::test]
    async fn large_results_are_signed_off_the_async_threads_and_kept_once() {
        let signer = Arc::new(Signer::passing().unwrap());
        let mut small = delivery(0);
        let prepared = prepare(&signer, &mut small, 1).now_or_never();
        assert!(prepared.is_some_and(|prepared| prepared.is_ok()));
        let answer = format!("\"{}\"", "x".repeat(PREPARE_INLINE_BYTES));
        let mut large = Delivery {
            body: answer.clone().into(),
            ..delivery(0)
        };
        let mut preparing = Box::pin(prepare(&signer, &mut large, 1));
        assert!(preparing.as_mut().now_or_never().is_none());
        let (headers, body) = preparing.await.unwrap();
        assert!(large.body.is_empty());
        let id = large.attempt.id;
        assert_eq!(body, wire::body(&id.to_string(), 200, answer.as_bytes()));
        let signed = signer.headers(id, 1, &body);
        assert_eq!(headers[..4], signed);
    }

    #[test]
    fn nothing_is_promised_beyond_the_result() {
        let late = settle(Ok(500), &delivery(3), DAY_MS - 1);
        assert!(matches!(late, Settled::Failed { .. }));
    }
}
