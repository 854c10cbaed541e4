//! The best entries of a score table, without sorting it. Equal scores go to the lower index.

use crate::florence2::kernels::first_above;

/// One continuation of one beam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Summed log-probability.
    pub(super) score: f32,
    /// The token's share of it.
    pub(super) log_probability: f32,
    /// The beam it continues.
    pub(super) beam: u32,
    /// The token it adds.
    pub(super) token: u32,
}

/// The best `capacity` candidates offered so far, best first.
pub(super) struct Best {
    entries: Vec<Candidate>,
    capacity: usize,
}

impl Best {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity + 1),
            capacity,
        }
    }

    /// Offers a beam's whole row: `scores[token] + offset` for every token. Beams must be offered in
    /// ascending order for ties to be decided by the lower index.
    pub(super) fn offer_row(&mut self, beam: u32, scores: &[f32], offset: f32) {
        let mut from = 0;
        while let Some(rest) = scores.get(from..).filter(|rest| !rest.is_empty()) {
            let next = match self.entries.last() {
                Some(worst) if self.entries.len() == self.capacity => {
                    first_above(rest, offset, worst.score)
                }
                _ => Some(0),
            };
            let Some(token) = next.map(|next| from + next) else {
                return;
            };
            self.insert(Candidate {
                score: scores[token] + offset,
                log_probability: scores[token],
                beam,
                token: token as u32,
            });
            from = token + 1;
        }
    }

    fn insert(&mut self, candidate: Candidate) {
        let rank = self
            .entries
            .partition_point(|entry| entry.score >= candidate.score);
        self.entries.insert(rank, candidate);
        self.entries.truncate(self.capacity);
    }

    pub(super) fn into_entries(self) -> Vec<Candidate> {
        self.entries
    }
}

/// The index of the largest score; NaN never wins.
pub(super) fn argmax(scores: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (token, score) in scores.iter().enumerate() {
        if *score > best.0 {
            best = (*score, token as u32);
        }
    }
    best.1
}
