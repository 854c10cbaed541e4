//! The flags of `serve` that bound what slow and greedy parties may hold up.
//!
//! Like [`super::serve_args`], of which this is a part: each flag has the same name as an environment
//! variable with one prefix and as a field in [`crate::config`]. Nothing is checked here.

use std::time::Duration;

use clap::Args;

use crate::config::{HttpSettings, PeerSettings, SourceSettings};

/// Bounds on slow and greedy parties.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(super) struct PeerArgs {
    /// Percent of the connections, arriving bodies, body memory, uploads and downloads that one caller may hold, and of the downloads that one source of pictures may. Callers are told apart by key and address; behind a trusted proxy connections are not counted by caller
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_SHARE_PERCENT", default_value_t = PeerSettings::default().max_share_percent)]
    max_share_percent: usize,

    /// Request bodies that may be arriving at once; more are answered with 429
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_BODIES", default_value_t = PeerSettings::default().max_bodies)]
    max_bodies: usize,

    /// Seconds for which a caller may hold up an answer by not reading
    #[arg(long, value_name = "S", env = "FLORENCE2_ANSWER_GRACE_S", default_value_t = PeerSettings::default().answer_grace.as_secs())]
    answer_grace_s: u64,

    /// Bytes a second at which a caller must read an answer after that
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MIN_ANSWER_RATE_BYTES", default_value_t = PeerSettings::default().min_answer_rate_bytes)]
    min_answer_rate_bytes: usize,

    /// Pictures fetched at once; a call on top is answered with 429, a job waits
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_FETCHES", default_value_t = SourceSettings::default().max_fetches)]
    max_fetches: usize,

    /// Bytes of all fetched picture files in memory at once
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_FETCH_MEMORY_BYTES", default_value_t = SourceSettings::default().max_fetch_memory_bytes)]
    max_fetch_memory_bytes: usize,

    /// Seconds after SIGTERM or SIGINT in which readiness says 503 and calls are still answered, so that load balancers can look elsewhere
    #[arg(long, visible_alias = "stop-delay", value_name = "S", env = "FLORENCE2_STOP_DELAY_S", default_value_t = HttpSettings::default().stop_delay.as_secs())]
    stop_delay_s: u64,
}

impl PeerArgs {
    /// What was typed, as the server takes it.
    pub(super) fn peers(&self) -> PeerSettings {
        PeerSettings {
            max_share_percent: self.max_share_percent,
            max_bodies: self.max_bodies,
            answer_grace: Duration::from_secs(self.answer_grace_s),
            min_answer_rate_bytes: self.min_answer_rate_bytes,
        }
    }

    /// What was typed, as the loader of pictures takes it.
    pub(super) fn sources(&self) -> SourceSettings {
        SourceSettings {
            max_fetches: self.max_fetches,
            max_fetch_memory_bytes: self.max_fetch_memory_bytes,
            max_share_percent: self.max_share_percent,
        }
    }

    /// The time between the signal to stop and the drain.
    pub(super) fn stop_delay(&self) -> Duration {
        Duration::from_secs(self.stop_delay_s)
    }
}
