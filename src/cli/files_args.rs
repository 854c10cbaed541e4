//! What may be typed after `serve` about hosted files and drawn pictures.

use std::time::Duration;

use clap::Args;

use super::value_parsers::boolean;
use crate::config::{FilesSettings, PipelineSettings};

/// The files' flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Files")]
pub(super) struct FilesArgs {
    /// Answer without a picture that has the findings drawn on it
    #[arg(long, env = "FLORENCE2_NO_DRAWN_IMAGE", value_parser = boolean)]
    no_drawn_image: bool,

    /// Seconds for which uploaded files and drawn pictures are kept; callers may ask for less
    #[arg(long, value_name = "S", env = "FLORENCE2_FILE_TTL_S", default_value_t = FilesSettings::default().file_ttl.as_secs())]
    file_ttl_s: u64,

    /// Bytes of all files together; old drawn pictures give way to new files, uploads are refused when nothing else is left
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_FILES_BYTES", default_value_t = FilesSettings::default().max_files_bytes)]
    max_files_bytes: u64,

    /// Bytes of a file that is uploaded in one request, and of one part of a larger one
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_FILE_BYTES", default_value_t = FilesSettings::default().max_file_bytes)]
    max_file_bytes: u64,

    /// Bytes of a file that is uploaded in parts
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_MULTIPART_BYTES", default_value_t = FilesSettings::default().max_multipart_bytes)]
    max_multipart_bytes: u64,

    /// Files and parts received at once; more are answered with 429
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_UPLOADS", default_value_t = FilesSettings::default().max_uploads)]
    max_uploads: usize,
}

impl FilesArgs {
    /// What was typed about files, as the room takes it.
    pub(super) fn settings(&self) -> FilesSettings {
        FilesSettings {
            file_ttl: Duration::from_secs(self.file_ttl_s),
            max_files_bytes: self.max_files_bytes,
            max_file_bytes: self.max_file_bytes,
            max_multipart_bytes: self.max_multipart_bytes,
            max_uploads: self.max_uploads,
        }
    }

    /// What was typed about answers.
    pub(super) fn pipeline(&self) -> PipelineSettings {
        PipelineSettings {
            draws_image: !self.no_drawn_image,
        }
    }
}
