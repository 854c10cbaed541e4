//! Settings of the hosted files: uploads, and the drawn pictures of answers.

use std::time::Duration;

use super::{MIB, SettingError, within};

/// Hosted files: how long they are kept, and how much they may take.
#[derive(Clone, Copy, Debug)]
pub struct FilesSettings {
    /// How long a file is kept. Callers may ask for less.
    pub file_ttl: Duration,
    /// Bytes of all files together, each counted with what it takes beside its content.
    pub max_files_bytes: u64,
    /// Bytes of one file that arrives in one request, and of one part of a larger one.
    pub max_file_bytes: u64,
    /// Bytes of one file that arrives in parts. Beyond the picture limit it is of no use as a
    /// picture, but clients switch to parts at 90 MB and should meet that limit, not this one.
    pub max_multipart_bytes: u64,
    /// Files or parts received at once; more are answered with 429. Each holds up to five MiB of
    /// memory on its way to the disk.
    pub max_uploads: usize,
}

impl Default for FilesSettings {
    fn default() -> Self {
        Self {
            // fal keeps files for at least this long.
            file_ttl: Duration::from_secs(7 * 86_400),
            max_files_bytes: 10_240 * MIB as u64,
            max_file_bytes: 50 * MIB as u64,
            max_multipart_bytes: 500 * MIB as u64,
            max_uploads: 32,
        }
    }
}

impl FilesSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within("--file-ttl-s", self.file_ttl.as_secs(), 60..=31_536_000)?;
        within("--max-files-bytes", self.max_files_bytes, 1 << 20..=1 << 50)?;
        within("--max-file-bytes", self.max_file_bytes, 1024..=1 << 30)?;
        within(
            "--max-multipart-bytes",
            self.max_multipart_bytes,
            1024..=10 << 30,
        )?;
        within("--max-uploads", self.max_uploads as u64, 1..=1024)
    }
}
