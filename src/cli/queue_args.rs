//! What may be typed after `serve` about the queue, its directory and its webhooks.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::QueueSettings;

/// The queue's flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Queue")]
pub(super) struct QueueArgs {
    /// Directory for everything that outlives the server: jobs, their results, files, keys; one server at a time may use it [default: florence2-server in $XDG_DATA_HOME, else in ~/.local/share]
    #[arg(long, value_name = "DIR", env = "FLORENCE2_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Jobs worked on at once; fetching their pictures comes on top
    #[arg(long, value_name = "N", env = "FLORENCE2_QUEUE_WORKERS", default_value_t = QueueSettings::default().workers)]
    queue_workers: usize,

    /// Pictures of jobs fetched at once
    #[arg(long, value_name = "N", env = "FLORENCE2_QUEUE_FETCHES", default_value_t = QueueSettings::default().fetches)]
    queue_fetches: usize,

    /// Pictures of jobs fetched at once from one host; further jobs from there wait without holding back others
    #[arg(long, value_name = "N", env = "FLORENCE2_QUEUE_FETCHES_PER_SOURCE", default_value_t = QueueSettings::default().fetches_per_source)]
    queue_fetches_per_source: usize,

    /// Seconds for which a job's result is kept after its end
    #[arg(long, value_name = "S", env = "FLORENCE2_RESULT_TTL_S", default_value_t = QueueSettings::default().result_ttl.as_secs())]
    result_ttl_s: u64,

    /// Free bytes on the disk of the data directory under which no further job is taken
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_DISK_FLOOR_BYTES", default_value_t = QueueSettings::default().disk_floor_bytes)]
    disk_floor_bytes: u64,

    /// Attempts at a job that fails by no fault of its caller
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_ATTEMPTS", default_value_t = QueueSettings::default().max_attempts)]
    max_attempts: u32,

    /// Server crashes while it ran one job alone, after which that job is marked failed
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_CRASHES", default_value_t = QueueSettings::default().max_crashes)]
    max_crashes: u32,

    /// Seconds after a start before a job runs again that was running when the server crashed; four times as long after each crash while it ran alone, up to a minute
    #[arg(long, value_name = "S", env = "FLORENCE2_SUSPECT_DELAY_S", default_value_t = QueueSettings::default().suspect_delay.as_secs())]
    suspect_delay_s: u64,

    /// Webhooks under way at once whose receivers may still answer promptly; as many again are waited for longer
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_WEBHOOKS", default_value_t = QueueSettings::default().webhooks)]
    max_webhooks: usize,

    /// Webhooks under way at once to one host; further ones wait without holding back others
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_WEBHOOKS_PER_RECEIVER", default_value_t = QueueSettings::default().webhooks_per_receiver)]
    max_webhooks_per_receiver: usize,

    /// Bytes of results above 1 MiB whose webhooks are under way at once; as many again are waited for longer. One host may have a quarter; one result always fits
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_WEBHOOK_MEMORY_BYTES", default_value_t = QueueSettings::default().webhook_memory_bytes)]
    max_webhook_memory_bytes: usize,

    /// Send webhooks to this network, address or host name too, such as 10.0.0.0/8, hooks.example.com or *.example.com; may be given several times. Host names open the ports 80 and 443, and one more when it follows, such as hooks.example.com:8443 or public:8443; networks and addresses open all ports. Without any, only public addresses are told, at 80 and 443
    #[arg(
        long = "allow-webhook",
        value_name = "NET_OR_HOST",
        env = "FLORENCE2_ALLOW_WEBHOOK",
        value_delimiter = ','
    )]
    allow_webhook: Vec<String>,
}

impl QueueArgs {
    /// The directory, if one was named.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone()
    }

    /// What was typed, as the room takes it.
    pub(super) fn settings(&self) -> QueueSettings {
        let receivers = self.allow_webhook.iter().filter(|rule| !rule.is_empty());
        QueueSettings {
            workers: self.queue_workers,
            fetches: self.queue_fetches,
            fetches_per_source: self.queue_fetches_per_source,
            result_ttl: Duration::from_secs(self.result_ttl_s),
            disk_floor_bytes: self.disk_floor_bytes,
            max_attempts: self.max_attempts,
            max_crashes: self.max_crashes,
            suspect_delay: Duration::from_secs(self.suspect_delay_s),
            webhooks: self.max_webhooks,
            webhooks_per_receiver: self.max_webhooks_per_receiver,
            webhook_memory_bytes: self.max_webhook_memory_bytes,
            allowed_webhooks: receivers.cloned().collect(),
        }
    }
}
