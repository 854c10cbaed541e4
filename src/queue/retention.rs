//! Forgets what has expired, and gives its space back.
//!
//! Results live for a stated time; then the job goes, with its log, its answer and whatever is left
//! of its request. In small portions, so that nobody waits long behind a big one. Nothing that is
//! not done is ever deleted.

use std::sync::Arc;
use std::time::Duration;

use super::clock::to_ms;
use super::{Inner, Phase};

/// How often to look.
const EVERY: Duration = Duration::from_secs(30);

/// Jobs deleted at once.
const PORTION: u32 = 200;

/// Deletes expired jobs until the queue stops.
pub(super) async fn retain(inner: Arc<Inner>) {
    let mut phase = inner.phase.subscribe();
    loop {
        let now_ms = inner.clock.now_ms();
        while *phase.borrow() != Phase::Stopped {
            match inner.store.expire(now_ms, PORTION).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "expired jobs could not be deleted");
                    break;
                }
            }
        }
        let next = inner.clock.sleep_until(now_ms.saturating_add(to_ms(EVERY)));
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Stopped) => return,
            () = next => {}
        }
    }
}
