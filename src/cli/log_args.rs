//! What may be typed after `serve` about its log.

use clap::Args;
use tracing::Level;

use crate::config::LogSettings;
use crate::telemetry::LogFormat;

/// The log's flags.
#[derive(Args, Clone, Debug)]
pub(super) struct LogArgs {
    /// How log lines on stderr look
    #[arg(
        long,
        value_name = "FORMAT",
        env = "FLORENCE2_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub(super) log_format: LogFormat,

    /// Least important log lines to write: error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "FLORENCE2_LOG_LEVEL",
        default_value = "info"
    )]
    pub(super) log_level: Level,

    /// Bytes of log lines that wait for a slow reader of stderr; more are dropped and counted
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_LOG_BUFFER_BYTES", default_value_t = LogSettings::default().buffer_bytes)]
    log_buffer_bytes: usize,
}

impl LogArgs {
    /// What was typed, as logging takes it.
    pub(super) fn settings(&self) -> LogSettings {
        LogSettings {
            buffer_bytes: self.log_buffer_bytes,
        }
    }
}
