//! Deletes what is over, and tries again what could not be deleted.
//!
//! The index forgets a file before its object is deleted, so nobody sees it meanwhile. A disk that
//! fails for a while must not leave objects behind that nobody knows of until the next start: their
//! paths are kept until they are gone.

use std::sync::PoisonError;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::store::FileStore;

/// Pause between two looks for files whose time is over.
const PAUSE: Duration = Duration::from_secs(30);

impl FileStore {
    /// Deletes what has expired, and what could not be deleted before.
    pub async fn sweep(&self) {
        let now_ms = self.now_ms();
        let mut paths = std::mem::take(&mut *self.undeleted());
        paths.extend(self.index().remove_expired(now_ms));
        self.delete(paths).await;
    }

    /// Sweeps for ever.
    pub async fn keep_swept(self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            self.sweep().await;
        }
    }

    /// Deletes objects of which the index does not know any more, without waiting for it.
    pub(super) fn delete_later(&self, paths: Vec<String>) {
        if !paths.is_empty() {
            let store = self.clone();
            tokio::spawn(async move { store.delete(paths).await });
        }
    }

    async fn delete(&self, paths: Vec<String>) {
        let mut failed = Vec::new();
        let mut failure = None;
        for path in paths {
            match self.inner.objects.delete(&Path::from(path.as_str())).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    failure = Some(error);
                    failed.push(path);
                }
            }
        }
        if let Some(error) = failure {
            let files = failed.len();
            tracing::warn!(files, %error, "files could not be deleted; they are tried again");
        }
        self.undeleted().extend(failed);
    }

    /// Held for moments only, and never while waiting.
    fn undeleted(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        let paths = &self.inner.undeleted;
        paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
