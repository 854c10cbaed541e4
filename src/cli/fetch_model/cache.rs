//! The cache on disk, in the layout of Python's `huggingface_hub`, so that both fill one cache.
//!
//! ```text
//! <cache>/models--owner--name/blobs/<etag>                the bytes, named by their checksum
//!                            /snapshots/<commit>/<file>   links into blobs: the checkpoint folder
//!                            /refs/<revision>             the commit that a branch or tag named last
//!                            /.no_exist/<commit>/<file>   the hub has no such file
//! <cache>/.locks/models--owner--name/<etag>.lock          held (flock) while a blob is fetched
//! ```
//!
//! Where the disk knows no links, a snapshot holds the files themselves and `blobs` stays empty, as
//! Python leaves it. A complete cache is only read. Commits and etags come from a server and become
//! file names: they are checked before they get here ([`is_plain_name`]). No network.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::FetchModelError;
use super::digest::is_hex;

/// Pause between two looks at a lock that somebody else holds.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// How long the holder of a lock may make no visible progress: longer than any sane network stall
/// or a checksum over several gigabytes, short enough for a person to be told.
const LOCK_STALL: Duration = Duration::from_secs(600);

/// One repository's part of the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    folder: String,
}

/// Held while a blob is fetched; closing the file releases it, also when the process dies.
pub(super) struct BlobLock {
    _file: File,
}

impl RepoCache {
    /// The part of `root` that belongs to the model repository `owner/name`.
    pub(super) fn new(root: &Path, repository: &str) -> Self {
        Self {
            root: root.to_owned(),
            folder: format!("models--{}", repository.replace('/', "--")),
        }
    }

    /// The folder of all repositories.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn repository(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    /// Where the bytes with this etag lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repository().join("blobs").join(etag)
    }

    /// Where the bytes with this etag grow while they are fetched.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.repository()
            .join("blobs")
            .join(format!("{etag}.incomplete"))
    }

    /// The checkpoint folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repository().join("snapshots").join(commit)
    }

    /// The commit that `revision` meant when the hub was last asked.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_hex(revision, 40) {
            return self
                .snapshot(revision)
                .is_dir()
                .then(|| revision.to_owned());
        }
        let text = fs::read_to_string(self.repository().join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_plain_name(commit).then(|| commit.to_owned())
    }

    /// Remembers what `revision` means. A commit hash needs no memory.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), FetchModelError> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.repository().join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(FetchModelError::io("write", &path))
    }

    /// Remembers that the hub has no `file` at `commit`. Only saves a question later, so that a cache
    /// that cannot be written does without.
    pub(super) fn remember_absent(&self, commit: &str, file: &str) {
        let path = self.absent_mark(commit, file);
        if path.exists() {
            return;
        }
        let written = make_parent(&path)
            .and_then(|()| fs::write(&path, b"").map_err(FetchModelError::io("write", &path)));
        if let Err(error) = written {
            tracing::debug!(%error, "the absence of a file is not remembered");
        }
    }

    /// Whether the hub is known to have no `file` at `commit`.
    pub(super) fn is_known_absent(&self, commit: &str, file: &str) -> bool {
        self.absent_mark(commit, file).exists()
    }

    fn absent_mark(&self, commit: &str, file: &str) -> PathBuf {
        self.repository().join(".no_exist").join(commit).join(file)
    }

    /// Makes `file` of the snapshot a link to its blob, or the blob itself where the disk knows no
    /// links. Does nothing where it is one already.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), FetchModelError> {
        let pointer = self.snapshot(commit).join(file);
        if self.linked_etag(commit, file).as_deref() == Some(etag) && pointer.exists() {
            return Ok(());
        }
        make_parent(&pointer)?;
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FetchModelError::io("replace", &pointer)(error));
            }
            _ => {}
        }
        match self.make_link(&pointer, file, etag) {
            // Another process that waited for the same blob was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(FetchModelError::io("link", &pointer)),
        }
    }

    #[cfg(unix)]
    fn make_link(&self, pointer: &Path, file: &str, etag: &str) -> std::io::Result<()> {
        // Relative, so that the cache can be moved or mounted elsewhere.
        let up = "../".repeat(2 + file.matches('/').count());
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), pointer) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                // Which error says "no links here" differs between file systems; where something else
                // is wrong, the file cannot be moved either, and the first reason is the one to tell.
                fs::rename(self.blob(etag), pointer).map_err(|_| error)
            }
            result => result,
        }
    }

    #[cfg(not(unix))]
    fn make_link(&self, pointer: &Path, _file: &str, etag: &str) -> std::io::Result<()> {
        // Symbolic links need a privilege there; a second name for the same bytes does not.
        fs::hard_link(self.blob(etag), pointer)
    }

    /// The etag of a snapshot's file, read off its link; none where it is a plain file.
    pub(super) fn linked_etag(&self, commit: &str, file: &str) -> Option<String> {
        let target = fs::read_link(self.snapshot(commit).join(file)).ok()?;
        let etag = target.file_name()?.to_str()?;
        (target.parent()?.file_name()? == "blobs").then(|| etag.to_owned())
    }

    /// Removes a file of the snapshot and its blob, because the bytes are bad.
    pub(super) fn discard(&self, commit: &str, file: &str) -> Result<(), FetchModelError> {
        if let Some(etag) = self.linked_etag(commit, file) {
            remove_if_there(&self.blob(&etag))?;
        }
        remove_if_there(&self.snapshot(commit).join(file))
    }

    /// Takes the lock of a blob, as Python does, and waits as long as its holder makes progress.
    ///
    /// `waiting` is called once, when somebody else holds it.
    pub(super) async fn lock(
        &self,
        etag: &str,
        waiting: impl FnOnce(),
    ) -> Result<BlobLock, FetchModelError> {
        let path = self
            .root
            .join(".locks")
            .join(&self.folder)
            .join(format!("{etag}.lock"));
        make_parent(&path)?;
        make_parent(&self.blob(etag))?;
        let mut waiting = Some(waiting);
        let mut seen = self.progress_of(etag);
        let mut since = Instant::now();
        loop {
            let file = open_lock(&path).map_err(FetchModelError::io("open", &path))?;
            match file.try_lock() {
                Ok(()) if is_still(&file, &path) => return Ok(BlobLock { _file: file }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                // A disk without locks: two processes may both fetch, and each finds out what is there.
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    return Ok(BlobLock { _file: file });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(FetchModelError::io("lock", &path)(error));
                }
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            let now = self.progress_of(etag);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > LOCK_STALL {
                let minutes = LOCK_STALL.as_secs() / 60;
                return Err(FetchModelError::LockStalled {
                    lock: path,
                    minutes,
                });
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// What changes while somebody fetches this blob. Python adds a random part to the name of its
    /// partial file, so everything that begins with the etag counts.
    fn progress_of(&self, etag: &str) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
        let Ok(entries) = fs::read_dir(self.repository().join("blobs")) else {
            return Vec::new();
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(etag))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((entry.path(), metadata.len(), metadata.modified().ok()))
            })
            .collect();
        found.sort();
        found
    }
}

/// Opens the lock file, which is made once and never removed.
fn open_lock(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            share_with_group(&file);
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the file system has no locks.
fn is_unsupported(error: &std::io::Error) -> bool {
    // ENOLCK has no kind of its own.
    const NO_LOCKS: i32 = if cfg!(target_os = "macos") { 77 } else { 37 };
    error.kind() == std::io::ErrorKind::Unsupported
        || cfg!(unix) && error.raw_os_error() == Some(NO_LOCKS)
}

/// Makes a lock group-writable whatever the umask, as Python does: users who share a cache must be
/// able to wait for each other. Not every file system knows groups.
#[cfg(unix)]
fn share_with_group(file: &File) {
    use std::os::unix::fs::PermissionsExt;
    let _ = file.set_permissions(fs::Permissions::from_mode(0o664));
}

#[cfg(not(unix))]
fn share_with_group(_file: &File) {}

/// Whether the locked file is still the one under its name: a lock on a file that somebody has
/// removed in the meantime excludes nobody.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_file: &File, _path: &Path) -> bool {
    true
}

/// Creates the folder in which `path` will stand.
pub(super) fn make_parent(path: &Path) -> Result<(), FetchModelError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(FetchModelError::io("create the folder", parent))
}

/// Removes a file; that there is none is as good.
pub(super) fn remove_if_there(path: &Path) -> Result<(), FetchModelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FetchModelError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether a commit or etag may become a file name as it is.
pub(super) fn is_plain_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_server_cannot_leave_the_cache() {
        for good in ["a", "4f38ce741c6b7118", "d41d8cd9-12", "x_y.z"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            "\"q\"",
            &"a".repeat(129),
        ] {
            assert!(!is_plain_name(bad), "{bad}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_a_subfolder_reaches_its_blob() {
        let root = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(root.path(), "o/n");
        let blob = cache.blob("e1");
        make_parent(&blob).unwrap();
        fs::write(&blob, "bytes").unwrap();
        for file in ["config.json", "part/a/x.safetensors"] {
            cache.link("c", file, "e1").unwrap();
            assert_eq!(
                fs::read_to_string(cache.snapshot("c").join(file)).unwrap(),
                "bytes"
            );
            assert_eq!(cache.linked_etag("c", file).as_deref(), Some("e1"));
        }
    }
}
