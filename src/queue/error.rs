//! What can go wrong in this room, in its own terms.
//!
//! Whoever starts the server reads these sentences, so each says what to do; callers never see them.

use std::path::PathBuf;

use super::store::StoreError;
use crate::image_io::fetch::FetchSetupError;

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process works there.
    #[error("another server uses the data directory {}; stop it, or choose another with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The jobs in the directory cannot be read.
    #[error("cannot open the queue in {}: {source}; choose another directory with --data-dir", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The file with the signing key is damaged.
    #[error("the webhook key {} cannot be read; move it away to have a new one made", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Webhooks cannot be sent as asked.
    #[error(transparent)]
    Webhooks(#[from] FetchSetupError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// More jobs wait for the endpoint than the caller's own limit allows.
    #[error("{waiting} jobs wait for the endpoint")]
    Full {
        /// Jobs that wait for it.
        waiting: u64,
    },
    /// The disk is nearly full.
    #[error("only {free_bytes} bytes are free on the disk of the data directory")]
    NoRoom {
        /// Bytes left.
        free_bytes: u64,
    },
    /// The store failed, or the queue is closed.
    #[error(transparent)]
    Storage(#[from] StoreError),
}
