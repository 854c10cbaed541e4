//! What this process knows of jobs beyond what is stored: the logs of those that run here, how to
//! stop them, and who watches.
//!
//! All of it may be lost at any moment without harm. The store alone decides what a job's state is;
//! this only makes news travel at once instead of at the next look.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::answerer::JobLog;
use super::store::Attempt;

/// Least time between two awakenings of one watcher because the line moved. With hundreds of jobs a
/// second nobody reads every position.
const LINE_PACE: Duration = Duration::from_millis(500);

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Live {
    running: Mutex<HashMap<Uuid, Running>>,
    /// Jobs to be cancelled that did not run here when somebody asked; a worker may have claimed one
    /// and not entered it yet.
    unwanted: Mutex<HashSet<Uuid>>,
    watched: Mutex<HashMap<Uuid, watch::Sender<()>>>,
    line: watch::Sender<()>,
}

/// A job that runs in this process.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// The claim under which it runs.
    pub(super) attempt: Attempt,
    /// Its log.
    pub(super) log: JobLog,
    /// Told when it is to stop.
    pub(super) cancel: Arc<Notify>,
}

impl Live {
    /// Notes that a job runs here, until the guard is dropped. An earlier attempt at it, which this
    /// process lost without knowing, is stopped.
    pub(super) fn enter(self: &Arc<Self>, running: Running) -> Entered {
        let attempt = running.attempt;
        let cancel = Arc::clone(&running.cancel);
        let mut all = lock(&self.running);
        match all.get(&attempt.id) {
            Some(other) if other.attempt.number > attempt.number => cancel.notify_one(),
            _ => {
                if let Some(earlier) = all.insert(attempt.id, running) {
                    earlier.cancel.notify_one();
                }
            }
        }
        drop(all);
        if lock(&self.unwanted).remove(&attempt.id) {
            cancel.notify_one();
        }
        Entered {
            attempt,
            live: Arc::clone(self),
        }
    }

    /// The attempts that run here.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let running = lock(&self.running);
        running.values().map(|running| running.attempt).collect()
    }

    /// Stops an attempt, if it runs here; a later attempt at the same job goes on.
    pub(super) fn stop(&self, attempt: Attempt) {
        let running = self.running(attempt.id);
        if let Some(running) = running.filter(|running| running.attempt == attempt) {
            running.cancel.notify_one();
        }
    }

    /// A job that runs here.
    pub(super) fn running(&self, id: Uuid) -> Option<Running> {
        lock(&self.running).get(&id).cloned()
    }

    /// Stops a job, if it runs here or is about to.
    pub(super) fn cancel(&self, id: Uuid) {
        // Noted first: a worker that enters the job in between looks there.
        lock(&self.unwanted).insert(id);
        if let Some(running) = self.running(id) {
            lock(&self.unwanted).remove(&id);
            running.cancel.notify_one();
        }
    }

    /// Forgets jobs that were to be stopped and never came here.
    pub(super) fn forget_unwanted(&self) {
        lock(&self.unwanted).clear();
    }

    /// Tells those who watch a job that it changed.
    pub(super) fn touch(&self, id: Uuid) {
        if let Some(sender) = lock(&self.watched).get(&id) {
            sender.send_replace(());
        }
    }

    /// Tells everybody who waits in line that it moved.
    pub(super) fn line_moved(&self) {
        self.line.send_replace(());
    }

    /// Watches a job, which need not exist.
    pub(super) fn watch(self: &Arc<Self>, id: Uuid) -> JobWatch {
        let mut watched = lock(&self.watched);
        let sender = watched.entry(id).or_insert_with(|| watch::Sender::new(()));
        JobWatch {
            id,
            job: sender.subscribe(),
            line: self.line.subscribe(),
            woken: Instant::now(),
            live: Arc::clone(self),
        }
    }
}

/// The entries are replaced whole, so a panic elsewhere cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a job in the list of those that run here; dropping it takes the job out.
#[derive(Debug)]
pub(super) struct Entered {
    attempt: Attempt,
    live: Arc<Live>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = lock(&self.live.running);
        if let Some(here) = running.get(&self.attempt.id)
            && here.attempt == self.attempt
        {
            running.remove(&self.attempt.id);
        }
    }
}

/// Waits for news of one job. Make it *before* reading the job's status, then read and wait in
/// turns, and no change is missed.
#[derive(Debug)]
pub struct JobWatch {
    id: Uuid,
    job: watch::Receiver<()>,
    line: watch::Receiver<()>,
    woken: Instant,
    live: Arc<Live>,
}

impl JobWatch {
    /// Completes when the job's state or log changed, or, not too often, when the line moved in
    /// which it may stand. Changes between two calls are not lost. Cancel-safe.
    ///
    /// Only changes made by this process are seen; whoever shares the store with others looks again
    /// from time to time.
    pub async fn changed(&mut self) {
        let pace = self.woken + LINE_PACE;
        let line = &mut self.line;
        let moved = async {
            tokio::time::sleep_until(pace).await;
            // The sender lives as long as `self.live`.
            let _ = line.changed().await;
        };
        tokio::select! {
            _ = self.job.changed() => {}
            () = moved => self.woken = Instant::now(),
        }
    }
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        let mut watched = lock(&self.live.watched);
        // One receiver is still there: this one.
        if watched
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            watched.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: Uuid, number: u32) -> Attempt {
        let owner = Uuid::nil();
        Attempt { id, owner, number }
    }

    fn running(live: &Arc<Live>, attempt: Attempt) -> Running {
        let clock = Arc::new(super::super::timeline::Timeline::fresh());
        Running {
            attempt,
            log: JobLog::new(attempt.id, Vec::new(), clock, Arc::clone(live)),
            cancel: Arc::new(Notify::new()),
        }
    }

    #[tokio::test]
    async fn a_later_attempt_stops_the_earlier_one() {
        let live = Arc::new(Live::default());
        let id = Uuid::new_v4();
        let (first, second) = (attempt(id, 1), attempt(id, 2));
        let (old, new) = (running(&live, first), running(&live, second));
        let earlier = live.enter(old.clone());
        let later = live.enter(new.clone());
        old.cancel.notified().await;
        drop(earlier);
        assert_eq!(live.attempts(), [second]);
        live.stop(first);
        let quiet = tokio::time::timeout(Duration::from_millis(1), new.cancel.notified()).await;
        assert!(quiet.is_err(), "only the lost attempt is stopped");
        live.stop(second);
        new.cancel.notified().await;
        let late = live.enter(old.clone());
        old.cancel.notified().await;
        drop(late);
        assert_eq!(live.attempts(), [second]);
        drop(later);
        assert_eq!(live.attempts(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_two_looks_is_not_lost() {
        let live = Arc::new(Live::default());
        let id = Uuid::new_v4();
        let mut watch = live.watch(id);
        live.touch(id);
        watch.changed().await;
        live.touch(id);
        live.touch(id);
        watch.changed().await;
        let quiet = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
        assert!(quiet.is_err(), "two touches are one change");
    }

    #[tokio::test(start_paused = true)]
    async fn the_moving_line_wakes_a_watcher_at_its_pace() {
        let live = Arc::new(Live::default());
        let mut watch = live.watch(Uuid::new_v4());
        for _ in 0..3 {
            let begun = Instant::now();
            live.line_moved();
            watch.changed().await;
            assert!(begun.elapsed() >= LINE_PACE);
        }
    }

    #[tokio::test]
    async fn a_job_cancelled_between_claim_and_entry_is_stopped() {
        let live = Arc::new(Live::default());
        let id = Uuid::new_v4();
        live.cancel(id);
        let running = running(&live, attempt(id, 1));
        let cancel = Arc::clone(&running.cancel);
        let entered = live.enter(running.clone());
        cancel.notified().await;
        live.cancel(id);
        cancel.notified().await;
        drop(entered);
        let _entered = live.enter(running);
        let quiet = tokio::time::timeout(Duration::from_millis(1), cancel.notified()).await;
        assert!(quiet.is_err(), "nobody asked a third time");
    }

    #[test]
    fn the_last_watcher_cleans_up() {
        let live = Arc::new(Live::default());
        let id = Uuid::new_v4();
        let (one, two) = (live.watch(id), live.watch(id));
        drop(one);
        assert_eq!(lock(&live.watched).len(), 1);
        drop(two);
        assert!(lock(&live.watched).is_empty());
    }
}
