//! Semaphores that keep one slow party from starving the others.
//!
//! [`FairSemaphore`] counts permits of which one party may hold only a share: a caller, an address, a
//! source of pictures. [`YieldingPermit`] is given back while its holder only waits for somebody
//! else. Everybody who bounds what strangers can hold up takes one of these; who the parties are,
//! and what is said to whom, is not known here.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who asks, as far as callers can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The program itself: jobs from the queue, the command line. It can wait; nobody times it.
    Own,
    /// Somebody on the network.
    Peer {
        /// The address; of an IPv6 address the first 64 bits, which one party has for itself.
        network: IpAddr,
        /// Digest of the key that was shown, where keys are asked for.
        key: Option<[u8; 8]>,
    },
}

/// Why there is no permit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// This party holds all that one party may hold.
    #[error("one party holds its whole share")]
    Share,
    /// All parties together hold everything.
    #[error("everything is taken")]
    All,
}

/// A number of permits of which one party may hold only a share. Cheap to clone; clones count
/// together.
#[derive(Debug)]
pub struct FairSemaphore<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    all: Arc<Semaphore>,
    share: usize,
    /// The shares that somebody holds something of, or waits for, and how many do.
    parties: Mutex<HashMap<K, (Arc<Semaphore>, usize)>>,
}

impl<K> Clone for FairSemaphore<K> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

impl<K: Clone + Eq + Hash> FairSemaphore<K> {
    /// As many permits, of which one party may hold this many.
    #[must_use]
    pub fn new(permits: usize, share: usize) -> Self {
        let permits = permits.min(Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                all: Arc::new(Semaphore::new(permits)),
                share: share.clamp(1, permits.max(1)),
                parties: Mutex::default(),
            }),
        }
    }

    /// The same with a share in percent, rounded down but at least `least` permits.
    #[must_use]
    pub fn with_percent(permits: usize, percent: usize, least: usize) -> Self {
        let share = permits / 100 * percent + permits % 100 * percent / 100;
        Self::new(permits, share.max(least))
    }

    /// Takes permits for a party; never waits.
    ///
    /// # Errors
    /// When its share or everything is taken.
    pub fn try_acquire(&self, party: &K, permits: usize) -> Result<FairPermit<K>, Exhausted> {
        let mut permit = FairPermit::of_none(&self.inner, party);
        permit.try_grow(permits)?;
        Ok(permit)
    }

    /// Takes a permit for a party and waits for it: first for the party's share, so that whoever
    /// waits for that keeps nobody else waiting.
    ///
    /// Cancel-safe: dropping the future leaves the line.
    ///
    /// # Errors
    /// Never; the semaphores behind this are not closed.
    pub async fn acquire(&self, party: &K) -> Result<FairPermit<K>, Exhausted> {
        self.acquire_many(party, 1).await
    }

    /// Takes several permits for a party at once and waits for them as [`FairSemaphore::acquire`] does.
    ///
    /// Cancel-safe: dropping the future leaves the line.
    ///
    /// # Errors
    /// When no party may ever hold so many.
    pub async fn acquire_many(
        &self,
        party: &K,
        permits: usize,
    ) -> Result<FairPermit<K>, Exhausted> {
        let fits = permits <= self.inner.share;
        let permits = u32::try_from(permits).ok().filter(|_| fits);
        let permits = permits.ok_or(Exhausted::Share)?;
        let mut permit = FairPermit::of_none(&self.inner, party);
        let own = Arc::clone(&permit.own).acquire_many_owned(permits).await;
        permit.held_own = Some(own.map_err(|_| Exhausted::Share)?);
        let all = Arc::clone(&self.inner.all);
        let all = all.acquire_many_owned(permits).await;
        permit.held_all = Some(all.map_err(|_| Exhausted::All)?);
        Ok(permit)
    }

    /// Permits that nobody holds.
    #[must_use]
    pub fn available(&self) -> usize {
        self.inner.all.available_permits()
    }
}

/// Permits of one party. Given back when dropped.
#[derive(Debug)]
pub struct FairPermit<K: Clone + Eq + Hash> {
    inner: Arc<Inner<K>>,
    party: K,
    own: Arc<Semaphore>,
    held_own: Option<OwnedSemaphorePermit>,
    held_all: Option<OwnedSemaphorePermit>,
}

impl<K: Clone + Eq + Hash> FairPermit<K> {
    fn of_none(inner: &Arc<Inner<K>>, party: &K) -> Self {
        let mut parties = lock(&inner.parties);
        let (own, holders) = parties
            .entry(party.clone())
            .or_insert_with(|| (Arc::new(Semaphore::new(inner.share)), 0));
        *holders += 1;
        Self {
            own: Arc::clone(own),
            inner: Arc::clone(inner),
            party: party.clone(),
            held_own: None,
            held_all: None,
        }
    }

    /// Permits in this one.
    #[must_use]
    pub fn permits(&self) -> usize {
        let held = self.held_all.as_ref();
        held.map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Takes more permits; never waits.
    ///
    /// # Errors
    /// When the share or everything is taken. What was held stays held.
    pub fn try_grow(&mut self, permits: usize) -> Result<(), Exhausted> {
        let take = |from: &Arc<Semaphore>| {
            let permits = u32::try_from(permits).ok()?;
            Arc::clone(from).try_acquire_many_owned(permits).ok()
        };
        let own = take(&self.own).ok_or(Exhausted::Share)?;
        let all = take(&self.inner.all).ok_or(Exhausted::All)?;
        merge(&mut self.held_own, own);
        merge(&mut self.held_all, all);
        Ok(())
    }

    /// Gives back all but this many permits.
    pub fn shrink_to(&mut self, permits: usize) {
        let excess = self.permits().saturating_sub(permits);
        for held in [&mut self.held_own, &mut self.held_all] {
            drop(held.as_mut().and_then(|held| held.split(excess)));
        }
    }
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

impl<K: Clone + Eq + Hash> Drop for FairPermit<K> {
    fn drop(&mut self) {
        drop((self.held_own.take(), self.held_all.take()));
        // Counted under the lock, so that of two who end together the last one is known.
        let mut parties = lock(&self.inner.parties);
        if let Some((_, holders)) = parties.get_mut(&self.party) {
            *holders -= 1;
            if *holders == 0 {
                parties.remove(&self.party);
            }
        }
    }
}

/// A permit to work, given back for the time in which its holder waits for somebody outside.
#[derive(Debug)]
pub struct YieldingPermit {
    semaphore: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl YieldingPermit {
    /// A permit of this semaphore, if there is one now.
    #[must_use]
    pub fn try_acquire(semaphore: &Arc<Semaphore>) -> Option<Self> {
        let held = Arc::clone(semaphore).try_acquire_owned().ok()?;
        Some(Self::holding(semaphore, held))
    }

    /// A permit of this semaphore, waited for; none when it is closed.
    pub async fn acquire(semaphore: &Arc<Semaphore>) -> Option<Self> {
        let held = Arc::clone(semaphore).acquire_owned().await.ok()?;
        Some(Self::holding(semaphore, held))
    }

    fn holding(semaphore: &Arc<Semaphore>, held: OwnedSemaphorePermit) -> Self {
        Self {
            semaphore: Arc::clone(semaphore),
            held: Mutex::new(Some(held)),
        }
    }

    /// Waits for something outside without the permit, and then for the permit. Whoever waits for
    /// it again comes before those who come new and do not wait.
    ///
    /// Cancel-safe: dropping the future leaves both.
    pub async fn yielded<T>(&self, outside: impl Future<Output = T>) -> T {
        drop(lock(&self.held).take());
        let outcome = outside.await;
        // A closed semaphore bounds nothing any more.
        if let Ok(held) = Arc::clone(&self.semaphore).acquire_owned().await {
            *lock(&self.held) = Some(held);
        }
        outcome
    }
}

/// The values behind these locks cannot be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parties(semaphore: &FairSemaphore<&str>) -> usize {
        lock(&semaphore.inner.parties).len()
    }

    async fn is_pending(future: impl Future) -> bool {
        let soon = Duration::from_millis(20);
        tokio::time::timeout(soon, future).await.is_err()
    }

    #[test]
    fn one_party_gets_its_share_and_all_together_get_all() {
        let semaphore = FairSemaphore::new(3, 2);
        let one = semaphore.try_acquire(&"a", 2).unwrap();
        assert_eq!(
            semaphore.try_acquire(&"a", 1).unwrap_err(),
            Exhausted::Share
        );
        let two = semaphore.try_acquire(&"b", 1).unwrap();
        assert_eq!(semaphore.try_acquire(&"c", 1).unwrap_err(), Exhausted::All);
        drop(one);
        assert_eq!(semaphore.available(), 2);
        let three = semaphore.try_acquire(&"c", 2).unwrap();
        drop((two, three));
        assert_eq!((semaphore.available(), parties(&semaphore)), (3, 0));
    }

    #[test]
    fn a_permit_grows_and_keeps_what_it_had_when_it_cannot() {
        let semaphore = FairSemaphore::new(4, 3);
        let mut one = semaphore.try_acquire(&"a", 0).unwrap();
        one.try_grow(2).unwrap();
        assert_eq!(one.try_grow(2), Err(Exhausted::Share));
        let two = semaphore.try_acquire(&"b", 2).unwrap();
        assert_eq!(one.try_grow(1), Err(Exhausted::All));
        assert_eq!((one.permits(), two.permits()), (2, 2));
        drop(two);
        one.try_grow(1).unwrap();
        assert_eq!(semaphore.available(), 1);
    }

    #[test]
    fn a_share_in_percent_is_never_less_than_the_least() {
        for (permits, percent, least, share) in [
            (2048, 50, 1, 1024),
            (1, 50, 1, 1),
            (16, 25, 10, 10),
            (7, 100, 1, 7),
            (150, 33, 1, 49),
        ] {
            let semaphore = FairSemaphore::<&str>::with_percent(permits, percent, least);
            assert_eq!(semaphore.inner.share, share, "{permits} {percent}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_share_keeps_nobody_else_waiting() {
        let semaphore = FairSemaphore::new(2, 1);
        let one = semaphore.acquire(&"a").await.unwrap();
        assert!(is_pending(semaphore.acquire(&"a")).await);
        let waiting = tokio::spawn({
            let semaphore = semaphore.clone();
            async move { semaphore.acquire(&"a").await }
        });
        tokio::task::yield_now().await;
        let two = semaphore.acquire(&"b").await.unwrap();
        drop(one);
        let three = waiting.await.unwrap().unwrap();
        drop((two, three));
        assert_eq!((semaphore.available(), parties(&semaphore)), (2, 0));
    }

    #[tokio::test]
    async fn several_permits_are_waited_for_together_and_given_back_in_part() {
        let semaphore = FairSemaphore::new(4, 3);
        assert!(semaphore.acquire_many(&"a", 4).await.is_err());
        let mut one = semaphore.acquire_many(&"a", 3).await.unwrap();
        assert!(is_pending(semaphore.acquire_many(&"b", 2)).await);
        one.shrink_to(5);
        assert_eq!(one.permits(), 3);
        one.shrink_to(1);
        let two = semaphore.acquire_many(&"b", 3).await.unwrap();
        assert_eq!((one.permits(), semaphore.available()), (1, 0));
        drop((one, two));
        assert_eq!((semaphore.available(), parties(&semaphore)), (4, 0));
    }

    #[tokio::test]
    async fn a_yielded_permit_is_free_for_others_and_waited_for_again() {
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = YieldingPermit::try_acquire(&semaphore).unwrap();
        assert!(YieldingPermit::try_acquire(&semaphore).is_none());
        let other = Mutex::new(None);
        let outside = async { *lock(&other) = YieldingPermit::try_acquire(&semaphore) };
        {
            let mut back = std::pin::pin!(permit.yielded(outside));
            assert!(is_pending(back.as_mut()).await, "the other one has it");
            assert!(lock(&other).take().is_some());
            back.await;
        }
        assert_eq!(semaphore.available_permits(), 0);
        drop(permit);
        assert_eq!(semaphore.available_permits(), 1);
    }
}
