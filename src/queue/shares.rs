//! Places of which one party may hold only a share, so that those who are slow hold back themselves
//! and nobody else.
//!
//! A party is a name: the host that a picture is fetched from, the host that a webhook goes to. Whose
//! share is used up is not waited for. Its work is held in the store, where it keeps its place in the
//! order and costs no memory; here stands only that there is some ([`Shares::hold`]), until a place is
//! free for it again ([`Shares::ready`]).
//!
//! A place may come with bytes of memory, of which one party has only a share too. Whatever their
//! number, a party that holds none gets them as soon as there is room; where nobody holds any there is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Parts of the memory of which one party may hold one.
const MEMORY_PARTS: usize = 4;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Shares {
    /// Places altogether.
    total: usize,
    /// Places of one party.
    each: usize,
    /// Bytes altogether.
    memory_bytes: usize,
    state: Mutex<State>,
    /// Changes when there may be a place for held work.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    taken: Taken,
    by_party: HashMap<String, Taken>,
    /// Parties with held work, the one that had its turn last at the end.
    held: VecDeque<Ready>,
    /// Notes of held work so far.
    notes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    places: usize,
    bytes: usize,
}

/// A party with held work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its name.
    pub(super) party: String,
    /// Bytes that its work asked for last, which are the guess for what comes next.
    bytes: usize,
    /// The number of the last note of it.
    note: u64,
}

impl Shares {
    /// Free places. `news` changes whenever a party with held work may have one.
    pub(super) fn new(total: usize, each: usize, news: watch::Sender<()>) -> Arc<Self> {
        Self::with_memory(total, each, usize::MAX, news)
    }

    /// The same with places that may come with so many bytes altogether.
    pub(super) fn with_memory(
        total: usize,
        each: usize,
        memory_bytes: usize,
        news: watch::Sender<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            total,
            each,
            memory_bytes,
            state: Mutex::default(),
            news,
        })
    }

    /// A place for a party, or none when its share or everything is taken.
    pub(super) fn take(self: &Arc<Self>, party: &str) -> Option<Place> {
        self.take_with(party, 0)
    }

    /// The same with so many bytes.
    pub(super) fn take_with(self: &Arc<Self>, party: &str, bytes: usize) -> Option<Place> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(held) = state.held.iter_mut().find(|held| held.party == party) {
            held.bytes = bytes;
        }
        if !self.has_room(state, party, bytes) {
            return None;
        }
        let of_party = state.by_party.entry(party.to_owned()).or_default();
        for taken in [&mut state.taken, of_party] {
            taken.places += 1;
            taken.bytes = taken.bytes.saturating_add(bytes);
        }
        Some(Place {
            party: party.to_owned(),
            bytes,
            shares: Arc::clone(self),
        })
    }

    /// Notes that the store holds work of a party.
    pub(super) fn hold(&self, party: String) {
        self.hold_with(party, 0);
    }

    /// The same, of work that asked for so many bytes.
    pub(super) fn hold_with(&self, party: String, bytes: usize) {
        let mut state = self.lock();
        state.notes += 1;
        let note = state.notes;
        match state.held.iter_mut().find(|held| held.party == party) {
            Some(held) => held.note = note,
            None => state.held.push_back(Ready { party, bytes, note }),
        }
        drop(state);
        // A place may have become free since it was asked for.
        self.news.send_replace(());
    }

    /// A party with held work for which there is a place; another one each time.
    pub(super) fn ready(&self) -> Option<Ready> {
        let mut state = self.lock();
        let mut held = state.held.iter();
        let at = held.position(|held| self.has_room(&state, &held.party, held.bytes))?;
        let ready = state.held.remove(at)?;
        state.held.push_back(ready.clone());
        Some(ready)
    }

    /// Notes that the store held nothing of a party when it was asked. What was noted since stays.
    pub(super) fn release(&self, empty: &Ready) {
        self.lock().held.retain(|held| {
            let is_same = held.party == empty.party && held.note == empty.note;
            !is_same
        });
    }

    fn has_room(&self, state: &State, party: &str, bytes: usize) -> bool {
        let of_party = state.by_party.get(party).copied().unwrap_or_default();
        let fits = |taken: Taken, limit: usize| {
            bytes == 0 || taken.bytes == 0 || taken.bytes.saturating_add(bytes) <= limit
        };
        state.taken.places < self.total
            && of_party.places < self.each
            && fits(state.taken, self.memory_bytes)
            && fits(of_party, self.memory_bytes / MEMORY_PARTS)
    }

    fn give_back(&self, party: &str, given: Taken) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for taken in std::iter::once(&mut state.taken).chain(state.by_party.get_mut(party)) {
            taken.places = taken.places.saturating_sub(given.places);
            taken.bytes = taken.bytes.saturating_sub(given.bytes);
        }
        if state.by_party.get(party) == Some(&Taken::default()) {
            state.by_party.remove(party);
        }
        let is_awaited = !state.held.is_empty();
        drop(guard);
        if is_awaited {
            self.news.send_replace(());
        }
    }

    /// Numbers change whole, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    party: String,
    bytes: usize,
    shares: Arc<Shares>,
}

impl Place {
    /// Gives back the bytes and keeps the place.
    pub(super) fn give_back_memory(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.shares
            .give_back(&self.party, Taken { places: 0, bytes });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (places, bytes) = (1, self.bytes);
        self.shares.give_back(&self.party, Taken { places, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(total: usize, each: usize) -> (Arc<Shares>, watch::Receiver<()>) {
        let (news, seen) = watch::channel(());
        (Shares::new(total, each, news), seen)
    }

    #[test]
    fn a_party_gets_its_share_and_all_together_the_total() {
        let (shares, _seen) = shares(3, 2);
        let first = shares.take("a").unwrap();
        let _second = shares.take("a").unwrap();
        assert!(shares.take("a").is_none());
        let _third = shares.take("b").unwrap();
        assert!(shares.take("c").is_none());
        drop(first);
        assert!(shares.take("c").is_some());
        assert!(shares.take("a").is_some());
    }

    #[test]
    fn parties_with_held_work_take_turns_when_there_is_room() {
        let (shares, mut seen) = shares(9, 1);
        let places = ["a", "b"].map(|party| shares.take(party).unwrap());
        for party in ["a", "b", "a"] {
            shares.hold(party.into());
        }
        seen.mark_unchanged();
        assert_eq!(shares.ready(), None);
        drop(places);
        assert!(seen.has_changed().unwrap());
        let ready: Vec<_> = (0..4).map(|_| shares.ready().unwrap()).collect();
        let parties: Vec<_> = ready.iter().map(|ready| &ready.party).collect();
        assert_eq!(parties, ["a", "b", "a", "b"]);
        // Noted while the store was asked.
        shares.hold("b".into());
        shares.release(&ready[0]);
        shares.release(&ready[1]);
        let left = shares.ready().unwrap();
        assert_eq!(left.party, "b");
        shares.release(&left);
        assert_eq!(shares.ready(), None);
    }

    #[test]
    fn a_party_gets_a_share_of_the_memory_and_all_together_the_whole() {
        let shares = Shares::with_memory(9, 9, 12, watch::Sender::new(()));
        let mut first = shares.take_with("a", 2).unwrap();
        assert!(shares.take_with("a", 2).is_none());
        let _small = shares.take("a").unwrap();
        let _more_than_a_share = shares.take_with("b", 9).unwrap();
        assert!(shares.take_with("c", 2).is_none());
        first.give_back_memory();
        let again = shares.take_with("a", 3).unwrap();
        drop((first, again));
        assert_eq!(
            shares.lock().taken,
            Taken {
                places: 2,
                bytes: 9
            }
        );
    }

    #[test]
    fn work_held_for_memory_is_ready_when_there_is_as_much() {
        let (news, mut seen) = watch::channel(());
        let shares = Shares::with_memory(9, 9, 8, news);
        let taken = shares.take_with("a", 6).unwrap();
        assert!(shares.take_with("b", 4).is_none());
        shares.hold_with("b".into(), 4);
        assert_eq!(shares.ready(), None);
        shares.hold_with("c".into(), 1);
        assert_eq!(shares.ready().unwrap().party, "c");
        // The store gave larger work than was expected.
        assert!(shares.take_with("c", 3).is_none());
        assert_eq!(shares.ready(), None);
        seen.mark_unchanged();
        drop(taken);
        assert!(seen.has_changed().unwrap());
        let ready = shares.ready().unwrap();
        assert_eq!(ready.party, "b");
        let _place = shares.take_with("b", 2).unwrap();
        shares.release(&ready);
        assert_eq!(shares.ready().unwrap().party, "c");
    }

    #[test]
    fn a_place_given_back_is_no_news_while_nobody_waits() {
        let (shares, seen) = shares(1, 1);
        drop(shares.take("a").unwrap());
        assert!(!seen.has_changed().unwrap());
        assert!(shares.lock().by_party.is_empty());
    }
}
