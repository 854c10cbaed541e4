//! What can go wrong in this room, in its own terms.
//!
//! Whoever starts the server reads these sentences, so each says what to do; callers never see them.

use std::path::{Path, PathBuf};

use super::health::Fault;
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
    #[error("cannot open the queue in {}: {source}; {}", path.display(), way_on(source.fault()))]
    Open {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The file with the jobs is not the one that was there before, or not all of it.
    #[error("{}", damage.sentence(file, *waiting))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        damage: Damage,
        /// Jobs that waited in it when it was last used, as far as that is known.
        waiting: u64,
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

/// The way on where a queue cannot be opened. Another directory would leave accepted jobs behind, so
/// that is no way on where what hinders passes.
fn way_on(fault: Fault) -> &'static str {
    match fault {
        Fault::DiskFull => "make room on that disk: the jobs in it are kept",
        Fault::ReadOnly => "make it writable, or choose another directory with --data-dir",
        _ => "choose another directory with --data-dir",
    }
}

/// What is wrong with the file that holds the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It has no content.
    Empty,
    /// It is something else.
    Unknown,
    /// It is that of another queue.
    Foreign,
    /// Its end is missing.
    Cut {
        /// Bytes that are left.
        bytes: u64,
        /// Bytes that it had.
        expected: u64,
    },
    /// It lacks what was stored last.
    Behind {
        /// Transactions that are missing.
        commits: u64,
    },
    /// Its content makes no sense.
    Content(String),
}

impl Damage {
    /// The damage and the ways out of it, as a sentence for the person who starts the server.
    fn sentence(&self, file: &Path, waiting: u64) -> String {
        let file = file.display();
        let what = match self {
            Self::Missing => "is missing".to_owned(),
            Self::Empty => "is empty".to_owned(),
            Self::Unknown => "is not a queue's file".to_owned(),
            Self::Foreign => "belongs to another queue than the marker beside it".to_owned(),
            Self::Cut { bytes, expected } => {
                format!("is cut short: {bytes} of {expected} bytes are left")
            }
            Self::Behind { commits } => format!(
                "lacks its last {commits} changes, as when {file}-wal was removed or an old copy was put back"
            ),
            Self::Content(said) => format!("is damaged ({said})"),
        };
        let was = match waiting {
            0 => String::new(),
            waiting => format!(" ({waiting} jobs waited in it when it was last used)"),
        };
        let way_out = match self {
            Self::Foreign | Self::Behind { .. } => {
                format!("remove {file}-marker to go on with what is there")
            }
            _ => "remove every file whose name begins so, to start with an empty queue".to_owned(),
        };
        format!(
            "the queue's file {file} {what}{was}; restore it, with {file}-wal if there was one, or {way_out}"
        )
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_at_the_start_sends_nobody_to_another_directory() {
        let said = |fault| {
            let source = StoreError::new(fault, "it fails");
            let path = PathBuf::from("/data");
            QueueError::Open { path, source }.to_string()
        };
        let full = said(Fault::DiskFull);
        assert!(
            full.ends_with("; make room on that disk: the jobs in it are kept"),
            "{full}"
        );
        assert!(said(Fault::Other).ends_with("choose another directory with --data-dir"));
    }
}
