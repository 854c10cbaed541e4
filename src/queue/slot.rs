//! What a running attempt holds of this process: a worker and its turn. It lends both out while it
//! waits for somebody else's server, which may be silent for long.
//!
//! * A fetch holds no worker. It holds one of a bounded number of places for fetches, of which one
//!   source may have a share ([`Shares`]). Without a place the attempt is over for now: the store holds
//!   the job until there is one.
//! * A fetch gives way to whoever must run alone: its attempt is over, and the job is at once in line
//!   again.
//! * An attempt that runs alone fetches alone, but not for long: after [`ALONE_FETCH`] others run
//!   beside the fetch, and the attempt is alone again when that has ended.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::shares::Shares;
use super::turns::{Turn, Turns};

/// How long a fetch may keep everybody else from running.
const ALONE_FETCH: Duration = Duration::from_secs(2);

/// What all attempts of a queue share.
#[derive(Debug)]
pub(super) struct Pool {
    /// One permit for each job that is worked on.
    pub(super) workers: Arc<Semaphore>,
    /// Who runs beside whom.
    pub(super) turns: Turns,
    /// Places for fetches, by the source's host.
    pub(super) sources: Arc<Shares>,
}

impl Pool {
    /// A worker and a turn beside others, as soon as there are both. Cancel-safe.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<WorkerSlot> {
        loop {
            // Fails only when the queue is gone.
            let worker = Arc::clone(&self.workers).acquire_owned().await.ok()?;
            if let Some(turn) = self.turns.try_shared() {
                return Some(self.slot(worker, turn));
            }
            // Whoever ends needs the worker, perhaps, before anybody can be alone.
            drop(worker);
            self.turns.shared().await;
        }
    }

    /// A worker for an attempt that runs alone.
    pub(super) async fn enter_alone(self: &Arc<Self>, turn: Turn) -> Option<WorkerSlot> {
        let worker = Arc::clone(&self.workers).acquire_owned().await.ok()?;
        Some(self.slot(worker, turn))
    }

    fn slot(self: &Arc<Self>, worker: OwnedSemaphorePermit, turn: Turn) -> WorkerSlot {
        WorkerSlot(Arc::new(Slot {
            pool: Arc::clone(self),
            held: Mutex::new(Held {
                worker: Some(worker),
                turn: Some(turn),
            }),
            given_back: watch::Sender::new(None),
        }))
    }
}

/// Why an attempt ended without an answer and without anybody's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GivenBack {
    /// Its source, of this name, has as many fetches under way as it may have.
    SourceBusy(String),
    /// Another one must run alone.
    GaveWay,
}

/// A running job's hold on a worker. Clones are the same one.
#[derive(Clone, Debug)]
pub struct WorkerSlot(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    pool: Arc<Pool>,
    held: Mutex<Held>,
    given_back: watch::Sender<Option<GivenBack>>,
}

#[derive(Debug)]
struct Held {
    worker: Option<OwnedSemaphorePermit>,
    turn: Option<Turn>,
}

impl WorkerSlot {
    /// Waits for a fetch from a host without holding a worker meanwhile. May never complete: then the
    /// attempt is dropped and made again later.
    ///
    /// Cancel-safe if the fetch is.
    pub async fn while_fetching<T>(&self, host: &str, fetch: impl Future<Output = T>) -> T {
        let host = host.trim_end_matches('.');
        let pool = &self.0.pool;
        let Some(_place) = pool.sources.take(host) else {
            return self.give_back(GivenBack::SourceBusy(host.into())).await;
        };
        tokio::pin!(fetch);
        let is_alone = matches!(self.lock().turn, Some(Turn::Alone { .. }));
        if is_alone {
            if let Ok(fetched) = tokio::time::timeout(ALONE_FETCH, &mut fetch).await {
                return fetched;
            }
            let turn = self.lock().turn.take().map(Turn::shared);
            *self.lock() = Held { worker: None, turn };
            let fetched = fetch.await;
            self.lock().turn = None;
            let turn = pool.turns.alone().await;
            self.lock().turn = Some(turn);
            self.take_worker().await;
            return fetched;
        }
        self.lock().worker = None;
        let fetched = tokio::select! {
            biased;
            fetched = fetch => fetched,
            () = pool.turns.must_give_way() => self.give_back(GivenBack::GaveWay).await,
        };
        self.take_worker().await;
        fetched
    }

    /// Completes when the attempt must end without an answer. Cancel-safe.
    pub(super) async fn given_back(&self) -> GivenBack {
        let mut given_back = self.0.given_back.subscribe();
        // The sender lives as long as `self`.
        let why = given_back.wait_for(Option::is_some).await;
        why.ok()
            .and_then(|why| why.clone())
            .unwrap_or(GivenBack::GaveWay)
    }

    async fn give_back<T>(&self, why: GivenBack) -> T {
        self.0.given_back.send_replace(Some(why));
        pending().await
    }

    async fn take_worker(&self) {
        let worker = Arc::clone(&self.0.pool.workers).acquire_owned().await;
        self.lock().worker = worker.ok();
    }

    /// Parts are replaced whole, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    fn pool(workers: usize, fetches: usize, each: usize) -> Arc<Pool> {
        Arc::new(Pool {
            workers: Arc::new(Semaphore::new(workers)),
            turns: Turns::new(),
            sources: Shares::new(fetches, each, watch::Sender::new(())),
        })
    }

    #[tokio::test]
    async fn a_fetch_holds_no_worker_and_takes_one_again_afterwards() {
        let pool = pool(1, 9, 9);
        let slot = pool.enter().await.unwrap();
        assert!(pool.enter().now_or_never().is_none());
        let (answer, silent) = oneshot::channel();
        let mut fetch = Box::pin(slot.while_fetching("a.test", silent));
        assert!(fetch.as_mut().now_or_never().is_none());
        let other = pool.enter().await.unwrap();
        answer.send(7).unwrap();
        assert!(fetch.as_mut().now_or_never().is_none(), "no worker is free");
        drop(other);
        assert_eq!(fetch.await.unwrap(), 7);
        assert!(pool.enter().now_or_never().is_none());
        drop(slot);
        assert!(pool.enter().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_source_beyond_its_share_gives_the_job_back() {
        let pool = pool(9, 9, 1);
        let (first, second) = (pool.enter().await.unwrap(), pool.enter().await.unwrap());
        let mut fetch = Box::pin(first.while_fetching("a.test", pending::<()>()));
        assert!(fetch.as_mut().now_or_never().is_none());
        let refused = second.while_fetching("a.test.", async {}).now_or_never();
        assert!(refused.is_none());
        let why = GivenBack::SourceBusy("a.test".into());
        assert_eq!(second.given_back().await, why);
        let third = pool.enter().await.unwrap();
        let fetched = third.while_fetching("b.test", async {}).now_or_never();
        assert!(fetched.is_some(), "another source is not held back");
        drop(fetch);
        assert!(
            third
                .while_fetching("a.test", async {})
                .now_or_never()
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_fetch_gives_way_to_whoever_must_be_alone() {
        let pool = pool(2, 9, 9);
        let slot = pool.enter().await.unwrap();
        let mut fetch = Box::pin(slot.while_fetching("a.test", pending::<()>()));
        assert!(fetch.as_mut().now_or_never().is_none());
        let mut alone = Box::pin(pool.turns.alone());
        assert!(alone.as_mut().now_or_never().is_none());
        assert!(fetch.as_mut().now_or_never().is_none());
        assert_eq!(slot.given_back().await, GivenBack::GaveWay);
        drop(fetch);
        drop(slot);
        assert!(matches!(alone.await, Turn::Alone { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn one_alone_lets_others_run_beside_a_slow_fetch_and_is_alone_again() {
        let pool = pool(1, 9, 9);
        let turn = pool.turns.try_alone().unwrap();
        let slot = pool.enter_alone(turn).await.unwrap();
        let quick = slot.while_fetching("a.test", async {}).now_or_never();
        assert!(quick.is_some());
        let (answer, silent) = oneshot::channel();
        let fetching = tokio::spawn({
            let slot = slot.clone();
            async move { slot.while_fetching("a.test", silent).await }
        });
        tokio::time::sleep(ALONE_FETCH / 2).await;
        assert!(pool.turns.try_shared().is_none());
        tokio::time::sleep(ALONE_FETCH).await;
        let other = pool.enter().await.unwrap();
        answer.send(7).unwrap();
        tokio::time::sleep(ALONE_FETCH).await;
        assert!(!fetching.is_finished(), "another one still runs");
        drop(other);
        assert_eq!(fetching.await.unwrap().unwrap(), 7);
        assert!(pool.turns.try_shared().is_none());
    }
}
