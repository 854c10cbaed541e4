//! Settings of the durable queue and its webhooks.

use std::time::Duration;

use super::{MIB, SettingError, within};

/// Jobs, their results, and who is told of them.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Jobs worked on at once, those not counted whose pictures are still being fetched.
    pub workers: usize,
    /// Pictures of jobs fetched at once. Each may take as much memory as one picture file.
    pub fetches: usize,
    /// Pictures of jobs fetched at once from one host; further jobs from there wait without holding
    /// back others.
    pub fetches_per_source: usize,
    /// How long the answer of a job is kept after its end.
    pub result_ttl: Duration,
    /// Free bytes on the disk of the data directory under which no further job is taken.
    pub disk_floor_bytes: u64,
    /// Attempts at a job that ends in a failure of ours each time.
    pub max_attempts: u32,
    /// Deaths of the process, while it runs one job and no other, after which that job is not tried
    /// again.
    pub max_crashes: u32,
    /// Time after a start before a job runs again that was running when the process died; four times
    /// as long after each death while it ran alone, up to a minute.
    pub suspect_delay: Duration,
    /// Webhooks under way at once whose receivers may still answer promptly, and as many again that
    /// are waited for longer.
    pub webhooks: usize,
    /// Webhooks under way at once to one host.
    pub webhooks_per_receiver: usize,
    /// Bytes of the results above 1 MiB whose webhooks are under way at once, and as many again of those
    /// whose receivers are waited for longer. One host may have a quarter; one result always fits.
    pub webhook_memory_bytes: usize,
    /// Networks, addresses and host names that may be told of a job's end, beside every public one;
    /// names with a port if they are to open another one than 80 and 443.
    pub allowed_webhooks: Vec<String>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            workers: 2,
            fetches: 32,
            fetches_per_source: 8,
            // Longer than fal's hour: whoever fetches results after a night finds them.
            result_ttl: Duration::from_secs(86_400),
            // Several of the largest requests, each of which is written twice.
            disk_floor_bytes: 256 << 20,
            // fal's own number.
            max_attempts: 10,
            max_crashes: 3,
            suspect_delay: Duration::from_secs(1),
            webhooks: 64,
            webhooks_per_receiver: 4,
            webhook_memory_bytes: 256 * MIB,
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
        within("--max-crashes", u64::from(self.max_crashes), 1..=1000)?;
        within("--suspect-delay-s", self.suspect_delay.as_secs(), 0..=60)?;
        within("--queue-fetches", self.fetches as u64, 1..=4096)?;
        within(
            "--queue-fetches-per-source",
            self.fetches_per_source as u64,
            1..=4096,
        )?;
        within("--max-webhooks", self.webhooks as u64, 1..=4096)?;
        within(
            "--max-webhooks-per-receiver",
            self.webhooks_per_receiver as u64,
            1..=4096,
        )?;
        within(
            "--max-webhook-memory-bytes",
            self.webhook_memory_bytes as u64,
            1024..=1 << 40,
        )
    }
}
