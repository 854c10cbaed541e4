//! Who is ahead of whom: the numbers of all waiting jobs, by endpoint and priority, in memory.
//!
//! A status says how many jobs are ahead, and counting them in the file costs time in proportion to
//! them. This process alone writes the file, so it keeps the numbers of waiting jobs beside it, in
//! compressed bitmaps that count what is below a number without visiting it: some microseconds among
//! a million jobs, at about a bit a job. Filled from the file at the start, and after a fault that
//! leaves a doubt; in between, every transaction applies its moves once it is on disk.
//!
//! A store that several processes write needs another way, such as counts per block of numbers in a
//! table of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt;
use roaring::RoaringTreemap;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows;

/// Ranks in a line: everything of a lower rank is ahead of everything of a higher one. One for each
/// priority, and then those of jobs under suspicion.
pub(super) const RANKS: usize = PRIORITIES + SUSPECTS;

/// Priorities.
const PRIORITIES: usize = 2;

/// Ranks of jobs under suspicion: one for each number of crashes, all higher ones in the last.
const SUSPECTS: usize = 3;

/// A job's place in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) endpoint: String,
    pub(super) rank: usize,
    /// The job's number; within a rank the lower one is ahead.
    pub(super) seq: u64,
}

impl Place {
    /// The place of a job whose row has its endpoint, priority, suspicion, crashes and number.
    pub(super) fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        // A person may have written any number.
        let at_most = |column, last: usize| {
            let found = rows::count(row, column)?;
            Ok::<_, sqlx::Error>(usize::try_from(found).map_or(last, |found| found.min(last)))
        };
        let rank = if row.try_get("suspect")? {
            PRIORITIES + at_most("crashes", SUSPECTS - 1)?
        } else {
            at_most("priority", PRIORITIES - 1)?
        };
        Ok(Self {
            endpoint: row.try_get("endpoint")?,
            rank,
            seq: rows::count(row, "seq")?,
        })
    }
}

/// The lines of all endpoints, as the last commit left them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_endpoint: HashMap<String, [RoaringTreemap; RANKS]>,
}

impl Lines {
    /// Reads every waiting job's place from the file.
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let mut lines = Self::default();
        let mut rows = sqlx::query(
            "SELECT endpoint, priority, suspect, crashes, seq FROM jobs
             WHERE state = 'waiting'",
        )
        .fetch(connection);
        while let Some(row) = rows.try_next().await? {
            lines.apply(&Move::In(Place::of(&row)?));
        }
        Ok(lines)
    }

    /// Jobs that wait for an endpoint, by rank.
    pub(super) fn waiting(&self, endpoint: &str) -> [u64; RANKS] {
        let line = self.by_endpoint.get(endpoint);
        line.map_or([0; RANKS], |line| line.each_ref().map(RoaringTreemap::len))
    }

    /// Jobs ahead of a place, whether or not somebody stands there.
    pub(super) fn ahead(&self, place: &Place) -> u64 {
        let Some(line) = self.by_endpoint.get(&place.endpoint) else {
            return 0;
        };
        let lower = line.iter().take(place.rank).map(RoaringTreemap::len);
        let beside = line.get(place.rank).zip(place.seq.checked_sub(1));
        lower.sum::<u64>() + beside.map_or(0, |(rank, before)| rank.rank(before))
    }

    /// Jobs that wait for anything.
    pub(super) fn total(&self) -> u64 {
        let ranks = self.by_endpoint.values().flatten();
        ranks.map(RoaringTreemap::len).sum()
    }

    fn apply(&mut self, change: &Move) {
        let (Move::In(place) | Move::Out(place)) = change;
        if !self.by_endpoint.contains_key(&place.endpoint) {
            let line = Default::default();
            self.by_endpoint.insert(place.endpoint.clone(), line);
        }
        let line = self.by_endpoint.get_mut(&place.endpoint);
        let Some(rank) = line.and_then(|line| line.get_mut(place.rank)) else {
            return;
        };
        match change {
            Move::In(_) => rank.insert(place.seq),
            Move::Out(_) => rank.remove(place.seq),
        };
    }
}

/// A job's step into a line or out of it.
#[derive(Clone, Debug)]
enum Move {
    In(Place),
    Out(Place),
}

/// The lines, shared by the writer and those who ask for positions.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLines(Arc<Mutex<Lines>>);

impl SharedLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self(Arc::new(Mutex::new(lines)))
    }

    /// Held for moments only, and never while waiting. A panic elsewhere leaves no move half made.
    pub(super) fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moves of an open transaction, and the lines as it sees them.
pub(super) struct Moves {
    lines: SharedLines,
    made: Vec<Move>,
    /// What they come to, by endpoint and rank.
    change: HashMap<String, [i64; RANKS]>,
}

impl Moves {
    /// None so far.
    pub(super) fn on(lines: &SharedLines) -> Self {
        Self {
            lines: lines.clone(),
            made: Vec::new(),
            change: HashMap::new(),
        }
    }

    /// Jobs that wait for an endpoint, by rank, those of this transaction included.
    pub(super) fn waiting(&self, endpoint: &str) -> [u64; RANKS] {
        let mut waiting = self.lines.lock().waiting(endpoint);
        if let Some(change) = self.change.get(endpoint) {
            for (count, change) in waiting.iter_mut().zip(change) {
                *count = count.saturating_add_signed(*change);
            }
        }
        waiting
    }

    /// A job steps into line.
    pub(super) fn enter(&mut self, place: Place) {
        self.count(&place, 1);
        self.made.push(Move::In(place));
    }

    /// A job leaves the line.
    pub(super) fn leave(&mut self, place: Place) {
        self.count(&place, -1);
        self.made.push(Move::Out(place));
    }

    /// Makes all moves for good: the transaction is on disk.
    pub(super) fn committed(self) {
        let mut lines = self.lines.lock();
        for change in &self.made {
            lines.apply(change);
        }
    }

    fn count(&mut self, place: &Place, by: i64) {
        let change = self.change.entry(place.endpoint.clone()).or_default();
        if let Some(count) = change.get_mut(place.rank) {
            *count += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rank: usize, seq: u64) -> Place {
        let endpoint = "ocr".into();
        Place {
            endpoint,
            rank,
            seq,
        }
    }

    #[test]
    fn positions_are_those_of_a_count_at_any_depth() {
        let lines = SharedLines::default();
        let mut standing = Vec::new();
        let mut state = 7_u64;
        for round in 0..200 {
            let mut moves = Moves::on(&lines);
            for _ in 0..20 {
                // A generator without a library: the order only has to be without order.
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                let (rank, seq) = ((state >> 40) as usize % RANKS, (state >> 33) % 300_000);
                let at = standing.iter().position(|other| *other == (rank, seq));
                match at {
                    Some(at) => {
                        standing.swap_remove(at);
                        moves.leave(place(rank, seq));
                    }
                    None => {
                        standing.push((rank, seq));
                        moves.enter(place(rank, seq));
                    }
                }
            }
            let counted = |rank| standing.iter().filter(|it| it.0 == rank).count() as u64;
            let expected = std::array::from_fn(counted);
            assert_eq!(moves.waiting("ocr"), expected, "{round}");
            if round % 5 == 4 {
                // Undone: nothing of it is seen.
                let before = lines.lock().waiting("ocr");
                drop(moves);
                assert_eq!(lines.lock().waiting("ocr"), before);
                return_to(&lines, &mut standing);
            } else {
                moves.committed();
            }
            for &(rank, seq) in &standing {
                let ahead = standing
                    .iter()
                    .filter(|other| **other < (rank, seq))
                    .count();
                assert_eq!(lines.lock().ahead(&place(rank, seq)), ahead as u64);
            }
            assert_eq!(lines.lock().total(), standing.len() as u64);
        }
    }

    /// Takes back what an undone transaction did to the model.
    fn return_to(lines: &SharedLines, standing: &mut Vec<(usize, u64)>) {
        let lines = lines.lock();
        let line = &lines.by_endpoint["ocr"];
        standing.clear();
        for (rank, seqs) in line.iter().enumerate() {
            standing.extend(seqs.iter().map(|seq| (rank, seq)));
        }
    }

    #[test]
    fn a_line_that_nobody_stands_in_has_nobody_ahead() {
        let lines = Lines::default();
        assert_eq!(lines.ahead(&place(1, u64::MAX)), 0);
        assert_eq!(lines.waiting("ocr"), [0; RANKS]);
    }
}
