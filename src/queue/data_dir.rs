//! The directory that holds the queue: made on first use, for its owner's eyes alone, and locked
//! while a process uses it.
//!
//! Two processes on one directory would each take the other's running jobs for orphans, so the
//! second one does not start. The lock belongs to the open file, hence it ends with the process,
//! however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::QueueError;

/// The file that carries the lock. It stays; its presence says nothing.
const LOCK_FILE: &str = "lock";

/// A locked directory.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    lock: Mutex<Option<File>>,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, QueueError> {
        let unusable = |source| QueueError::DataDir {
            path: path.to_owned(),
            source,
        };
        create_private_dir(path).map_err(unusable)?;
        let file = for_owner_only()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock: Mutex::new(Some(file)),
            }),
            Err(TryLockError::WouldBlock) => Err(QueueError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that may still be written on its disk; none where the system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.path)
    }

    /// Lets another process use it.
    pub(super) fn release(&self) {
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// Makes a directory and those above it. What is in it is nobody else's business: callers' pictures
/// and a signing key. An existing directory keeps its permissions.
fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// How files are opened that nobody else may read.
pub(super) fn for_owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Writes a file for its owner alone: whole or not at all, and on disk when this returns.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = for_owner_only()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    // The new name is on disk only when the directory is.
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_told_who_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        let first = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
        assert!(refused.contains("--data-dir"), "{refused}");
        first.release();
        DataDir::open(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_look_inside() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(dir.free_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(&file.path().join("x")).unwrap_err();
        assert!(matches!(error, QueueError::DataDir { .. }), "{error}");
    }
}
