//! Hosted files: what callers upload, and the drawn pictures of answers, under addresses that
//! nobody can guess, for a limited time, within a quota.
//!
//! * [`store`] — the one handle, [`FileStore`]: open, read, save.
//! * [`sweep`] — deletes what is over.
//! * [`upload`], [`parts`] — files that arrive piece by piece, whole or in parts.
//! * [`name`] — what a file's name in the store says: type, access, end of life. One listing after
//!   a restart therefore knows everything.
//! * [`index`] — the same in memory, and the quota.
//! * [`ticket`] — upload addresses that carry their own permission.
//!
//! The address of a file is `{base}/files/{32 hexadecimal digits}/{file name}`; the base is the
//! server's business. Objects appear under their names only when they are complete (written under
//! another name, flushed, renamed), so a crash leaves nothing half. Files lie in a directory; all
//! access goes through `object_store`, so that a bucket can take its place. This room knows no HTTP
//! and never looks into a file.

mod folder;
mod index;
mod media;
mod name;
mod parts;
mod store;
mod sweep;
mod ticket;
mod upload;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
#[cfg(test)]
use std::time::{SystemTime, UNIX_EPOCH};

pub use media::MediaType;
pub use name::{Access, FileId, Origin};
pub use parts::{ListedPart, MAX_PARTS};
pub use store::{FileStore, HostedFile};
pub use upload::{Finished, Upload};

/// Tells the time in milliseconds. A value, so that tests can move it, and so that a server gives it
/// one that goes on evenly from one process to the next, whatever is done to the calendar.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The calendar in milliseconds since the epoch.
#[cfg(test)]
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 is a broken one; nothing expires by it.
        since.map_or(0, milliseconds)
    })
}

/// Whole milliseconds, as many as fit.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why something about a file did not work.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such file, or its time is over.
    #[error("no such file")]
    NotFound,
    /// The upload address or token is forged, or its time is over.
    #[error("the upload address or token is not valid, or no longer")]
    NotPermitted,
    /// More bytes than one file may have.
    #[error("the file exceeds {max_bytes} bytes")]
    TooLarge {
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// The quota is used up.
    #[error("the quota for files is used up")]
    Full,
    /// The disk is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// Too many uploads at once.
    #[error("too many uploads at once")]
    TooManyUploads,
    /// The same file is being written by another request.
    #[error("the file is being written by another request")]
    InUse,
    /// A part's number is out of range.
    #[error("a part's number must be from 1 to {MAX_PARTS}")]
    PartNumber,
    /// The parts listed at the end are not those that arrived.
    #[error("the listed parts do not fit those that arrived: {0}")]
    Parts(String),
    /// The store failed.
    #[error("the file store failed: {0}")]
    Storage(String),
    /// The folder cannot be used.
    #[error("cannot use the folder {folder} for files: {cause}; choose another --data-dir")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system says.
        cause: String,
    },
}

/// The system's codes for too many open files, of this process (EMFILE) or of all (ENFILE), which the
/// standard library has no kind for.
const NO_HANDLES: [i32; 2] = [24, 23];

impl From<object_store::Error> for FilesError {
    fn from(error: object_store::Error) -> Self {
        if let object_store::Error::NotFound { .. } = error {
            return Self::NotFound;
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(link) = cause {
            if let Some(io) = link.downcast_ref::<io::Error>() {
                if let io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded = io.kind() {
                    return Self::DiskFull(error.to_string());
                }
                let code = io.raw_os_error().filter(|_| cfg!(unix));
                if code.is_some_and(|code| NO_HANDLES.contains(&code)) {
                    return Self::TooManyUploads;
                }
            }
            cause = link.source();
        }
        Self::Storage(error.to_string())
    }
}

/// How long a file lives and who may fetch it, as far as the caller says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Time to live; `None` for as long as this server keeps files, which is also the longest.
    pub lifetime: Option<Duration>,
    /// Who may fetch it.
    pub access: Access,
}

/// A file that does not exist yet.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Its name, in the caller's words.
    pub name: &'a str,
    /// What the caller says it is.
    pub content_type: Option<&'a str>,
    /// How long, and for whom.
    pub lifecycle: Lifecycle,
}

/// What a power cut may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the file is on the disk before anybody learns of it.
    Synced,
    /// The file, as long as the system has not written it by itself: for what nobody was promised to
    /// find again. Half of one is never served.
    Unsynced,
}

/// A file's place in the public address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFile {
    /// Path of its address, `/files/…`; to be put behind the server's base address.
    pub path: String,
    /// Its name, made harmless.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// An address to which a file may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadOffer {
    /// Path of the address that the file will have.
    pub path: String,
    /// The permission to send it: a text that needs no escape in a URL.
    pub ticket: String,
}

/// What a caller will send a file as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadKind {
    /// In one request.
    Whole,
    /// In parts.
    Parts,
}

#[cfg(test)]
mod tests;
