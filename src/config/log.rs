//! Settings of the log.

use super::{SettingError, within};

/// What stands between the server and the reader of its log.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Bytes of log lines that may wait for their reader; what comes on top is dropped and counted.
    /// As many again may be on their way.
    pub buffer_bytes: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            // Some six thousand lines.
            buffer_bytes: 1 << 20,
        }
    }
}

impl LogSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within(
            "--log-buffer-bytes",
            self.buffer_bytes as u64,
            4096..=1 << 30,
        )
    }
}
