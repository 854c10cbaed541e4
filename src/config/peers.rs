//! Settings of what slow and greedy callers may hold up.

use std::time::Duration;

use super::{DEFAULT_SHARE_PERCENT, SettingError, within};

/// Bounds on callers who send slowly, read slowly or take everything.
#[derive(Clone, Copy, Debug)]
pub struct PeerSettings {
    /// Percent of the connections, arriving bodies, body memory and uploads that one caller may hold.
    pub max_share_percent: usize,
    /// Request bodies that may be arriving at once; more are answered with 429.
    pub max_bodies: usize,
    /// Time for which a caller may hold up an answer by not reading.
    pub answer_grace: Duration,
    /// Bytes per second at which a caller must read after that.
    pub min_answer_rate_bytes: usize,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            max_share_percent: DEFAULT_SHARE_PERCENT,
            // Half of the connections: one that sends a body holds little else.
            max_bodies: 1024,
            // The same as for bodies.
            answer_grace: Duration::from_secs(30),
            min_answer_rate_bytes: 64 << 10,
        }
    }
}

impl PeerSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within(
            "--max-share-percent",
            self.max_share_percent as u64,
            1..=100,
        )?;
        within("--max-bodies", self.max_bodies as u64, 1..=1 << 20)?;
        within("--answer-grace-s", self.answer_grace.as_secs(), 1..=3600)?;
        within(
            "--min-answer-rate-bytes",
            self.min_answer_rate_bytes as u64,
            1..=1 << 30,
        )
    }
}
