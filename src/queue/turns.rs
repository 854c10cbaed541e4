//! Who may run beside whom: ordinary attempts run beside one another, one under suspicion runs alone.
//!
//! Fair: whoever asks to be alone is let in as soon as those before have ended, and nobody begins
//! meanwhile. Those that only wait for somebody else's server are told to give way, so that being
//! alone never waits for a silent one.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Turns {
    lock: Arc<RwLock<()>>,
    /// How many ask to be alone.
    clearing: watch::Sender<usize>,
}

/// Permission to run, until it is dropped.
#[derive(Debug)]
pub(super) enum Turn {
    /// Beside others.
    Shared { _guard: OwnedRwLockReadGuard<()> },
    /// Alone.
    Alone { guard: OwnedRwLockWriteGuard<()> },
}

impl Turn {
    /// Lets others run again.
    pub(super) fn shared(self) -> Self {
        match self {
            Self::Alone { guard } => {
                let _guard = guard.downgrade();
                Self::Shared { _guard }
            }
            shared @ Self::Shared { .. } => shared,
        }
    }
}

/// Asks those who wait for other servers to give way, until it is dropped.
struct Clearing<'a>(&'a watch::Sender<usize>);

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.0
            .send_modify(|asking| *asking = asking.saturating_sub(1));
    }
}

impl Turns {
    /// Nobody runs.
    pub(super) fn new() -> Self {
        Self {
            lock: Arc::default(),
            clearing: watch::Sender::new(0),
        }
    }

    /// A turn beside others, unless somebody is alone or asks to be.
    pub(super) fn try_shared(&self) -> Option<Turn> {
        let _guard = Arc::clone(&self.lock).try_read_owned().ok()?;
        Some(Turn::Shared { _guard })
    }

    /// Completes when nobody is alone or asks to be. Cancel-safe.
    pub(super) async fn shared(&self) {
        drop(self.lock.read().await);
    }

    /// A turn alone, if nobody runs now.
    pub(super) fn try_alone(&self) -> Option<Turn> {
        let guard = Arc::clone(&self.lock).try_write_owned().ok()?;
        Some(Turn::Alone { guard })
    }

    /// A turn alone, as soon as those who run have ended or given way. Cancel-safe.
    pub(super) async fn alone(&self) -> Turn {
        self.clearing.send_modify(|asking| *asking += 1);
        let _clearing = Clearing(&self.clearing);
        let guard = Arc::clone(&self.lock).write_owned().await;
        Turn::Alone { guard }
    }

    /// Completes when somebody asks to be alone. Cancel-safe.
    pub(super) async fn must_give_way(&self) {
        let mut clearing = self.clearing.subscribe();
        // The sender lives as long as `self`.
        let _ = clearing.wait_for(|asking| *asking > 0).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_alone_waits_for_those_who_run_and_holds_back_the_rest() {
        let turns = Turns::new();
        let running = turns.try_shared().unwrap();
        assert!(turns.try_alone().is_none());
        assert!(turns.must_give_way().now_or_never().is_none());
        let mut alone = Box::pin(turns.alone());
        assert!(alone.as_mut().now_or_never().is_none());
        turns.must_give_way().await;
        assert!(turns.try_shared().is_none(), "nobody begins meanwhile");
        drop(running);
        let alone = alone.await;
        assert!(turns.must_give_way().now_or_never().is_none());
        assert!(turns.try_shared().is_none());
        let shared = alone.shared();
        assert!(turns.try_shared().is_some());
        drop(shared);
        assert!(turns.try_alone().is_some());
    }

    #[tokio::test]
    async fn whoever_stops_asking_to_be_alone_is_forgotten() {
        let turns = Turns::new();
        let running = turns.try_shared().unwrap();
        assert!(turns.alone().now_or_never().is_none());
        assert!(turns.must_give_way().now_or_never().is_none());
        assert!(turns.try_shared().is_some());
        drop(running);
        turns.shared().await;
    }
}
