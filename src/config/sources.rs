//! Settings of how many pictures are fetched at once.

use super::{DEFAULT_SHARE_PERCENT, MIB, SettingError, within};

/// Downloads at once, of synchronous calls and jobs together.
#[derive(Clone, Copy, Debug)]
pub struct SourceSettings {
    /// Downloads at once; a call that comes on top is answered with 429, a job waits.
    pub max_fetches: usize,
    /// Bytes of all fetched files in memory at once; one file of the largest size always fits.
    pub max_fetch_memory_bytes: usize,
    /// Percent of both that one caller may hold, and of the first that one source may.
    pub max_share_percent: usize,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            max_fetches: 64,
            max_fetch_memory_bytes: 512 * MIB,
            max_share_percent: DEFAULT_SHARE_PERCENT,
        }
    }
}

impl SourceSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within("--max-fetches", self.max_fetches as u64, 1..=65_536)?;
        within(
            "--max-fetch-memory-bytes",
            self.max_fetch_memory_bytes as u64,
            1024..=1 << 40,
        )?;
        within(
            "--max-share-percent",
            self.max_share_percent as u64,
            1..=100,
        )
    }
}
