//! Settings of the durable queue and its webhooks.

use std::time::Duration;

use super::{SettingError, within};

/// Jobs, their results, and who is told of them.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Jobs answered at once. With two, the picture of one is fetched while the model works on the
    /// other.
    pub workers: usize,
    /// How long the answer of a job is kept after its end.
    pub result_ttl: Duration,
    /// Free bytes on the disk of the data directory under which no further job is taken.
    pub disk_floor_bytes: u64,
    /// Attempts at a job that ends in a failure of ours each time.
    pub max_attempts: u32,
    /// Deaths of the process, while it works on one job, after which that job is not tried again.
    pub max_crashes: u32,
    /// Networks, addresses and host names that may be told of a job's end, beside every public one;
    /// names with a port if they are to open another one than 80 and 443.
    pub allowed_webhooks: Vec<String>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            workers: 2,
            // Longer than fal's hour: whoever fetches results after a night finds them.
            result_ttl: Duration::from_secs(86_400),
            // Several of the largest requests, each of which is written twice.
            disk_floor_bytes: 256 << 20,
            // fal's own number.
            max_attempts: 10,
            max_crashes: 3,
            allowed_webhooks: Vec::new(),
        }
    }
}

impl QueueSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within("--queue-workers", self.workers as u64, 1..=1024)?;
        within(
            "--result-ttl-s",
            self.result_ttl.as_secs(),
            60..=366 * 86_400,
        )?;
        within("--disk-floor-bytes", self.disk_floor_bytes, 0..=1 << 50)?;
        within("--max-attempts", u64::from(self.max_attempts), 1..=100)?;
        within("--max-crashes", u64::from(self.max_crashes), 1..=1000)
    }
}
