//! Places of which one party may hold only a share, so that those who are slow hold back themselves
//! and nobody else.
//!
//! A party is a name: the host that a picture is fetched from, the host that a webhook goes to. Whose
//! share is used up is not waited for. Its work is held in the store, where it keeps its place in the
//! order and costs no memory; here stands only that there is some ([`Shares::hold`]), until a place is
//! free for it again ([`Shares::ready`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Shares {
    /// Places altogether.
    total: usize,
    /// Places of one party.
    each: usize,
    state: Mutex<State>,
    /// Changes when there may be a place for held work.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    by_party: HashMap<String, usize>,
    /// Parties with held work, the one that had its turn last at the end.
    held: VecDeque<Ready>,
    /// Notes of held work so far.
    notes: u64,
}

/// A party with held work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its name.
    pub(super) party: String,
    /// The number of the last note of it.
    note: u64,
}

impl Shares {
    /// Free places. `news` changes whenever a party with held work may have one.
    pub(super) fn new(total: usize, each: usize, news: watch::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            total,
            each,
            state: Mutex::default(),
            news,
        })
    }

    /// A place for a party, or none when its share or everything is taken.
    pub(super) fn take(self: &Arc<Self>, party: &str) -> Option<Place> {
        let mut state = self.lock();
        if !self.has_room(&state, party) {
            return None;
        }
        state.taken += 1;
        *state.by_party.entry(party.to_owned()).or_default() += 1;
        Some(Place {
            party: party.to_owned(),
            shares: Arc::clone(self),
        })
    }

    /// Notes that the store holds work of a party.
    pub(super) fn hold(&self, party: String) {
        let mut state = self.lock();
        state.notes += 1;
        let note = state.notes;
        match state.held.iter_mut().find(|held| held.party == party) {
            Some(held) => held.note = note,
            None => state.held.push_back(Ready { party, note }),
        }
        drop(state);
        // A place may have become free since it was asked for.
        self.news.send_replace(());
    }

    /// A party with held work for which there is a place; another one each time.
    pub(super) fn ready(&self) -> Option<Ready> {
        let mut state = self.lock();
        let mut held = state.held.iter();
        let at = held.position(|held| self.has_room(&state, &held.party))?;
        let ready = state.held.remove(at)?;
        state.held.push_back(ready.clone());
        Some(ready)
    }

    /// Notes that the store held nothing of a party when it was asked. What was noted since stays.
    pub(super) fn release(&self, empty: &Ready) {
        self.lock().held.retain(|held| held != empty);
    }

    fn has_room(&self, state: &State, party: &str) -> bool {
        let of_party = state.by_party.get(party).copied().unwrap_or_default();
        state.taken < self.total && of_party < self.each
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
    shares: Arc<Shares>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shares.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(count) = state.by_party.get_mut(&self.party) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.by_party.remove(&self.party);
            }
        }
        let is_awaited = !state.held.is_empty();
        drop(state);
        if is_awaited {
            self.shares.news.send_replace(());
        }
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
    fn a_place_given_back_is_no_news_while_nobody_waits() {
        let (shares, seen) = shares(1, 1);
        drop(shares.take("a").unwrap());
        assert!(!seen.has_changed().unwrap());
        assert!(shares.lock().by_party.is_empty());
    }
}
