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

    /// Jobs answered at once; with two, one job's picture is fetched while the other is computed
    #[arg(long, value_name = "N", env = "FLORENCE2_QUEUE_WORKERS", default_value_t = QueueSettings::default().workers)]
    queue_workers: usize,

    /// Seconds for which a job's result is kept after its end
    #[arg(long, value_name = "S", env = "FLORENCE2_RESULT_TTL_S", default_value_t = QueueSettings::default().result_ttl.as_secs())]
    result_ttl_s: u64,

    /// Free bytes on the disk of the data directory under which no further job is taken
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_DISK_FLOOR_BYTES", default_value_t = QueueSettings::default().disk_floor_bytes)]
    disk_floor_bytes: u64,

    /// Attempts at a job that fails by no fault of its caller
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_ATTEMPTS", default_value_t = QueueSettings::default().max_attempts)]
    max_attempts: u32,

    /// Deaths of the server, while it works on one job, after which that job counts as failed
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_CRASHES", default_value_t = QueueSettings::default().max_crashes)]
    max_crashes: u32,

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
        // An empty variable, as compose files produce it, says nothing.
        self.data_dir
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
    }

    /// What was typed, as the room takes it.
    pub(super) fn settings(&self) -> QueueSettings {
        let receivers = self.allow_webhook.iter().filter(|rule| !rule.is_empty());
        QueueSettings {
            workers: self.queue_workers,
            result_ttl: Duration::from_secs(self.result_ttl_s),
            disk_floor_bytes: self.disk_floor_bytes,
            max_attempts: self.max_attempts,
            max_crashes: self.max_crashes,
            allowed_webhooks: receivers.cloned().collect(),
        }
    }
}
