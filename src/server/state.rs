//! What handlers and layers share: settings, keys, the model, admission, metrics.
//!
//! One value behind one `Arc`, made when the listener opens. The only parts that change are the
//! model and the hosted files, which are set once, and the word that the server is stopping.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Keys;
use super::error::ApiError;
use super::metrics::Metrics;
use crate::config::{AuthSettings, HttpSettings};
use crate::files::FileStore;
use crate::pipeline::Pipeline;

/// Shared by everything in this room.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) http: HttpSettings,
    pub(crate) keys: Keys,
    pub(crate) metrics: Metrics,
    pipeline: OnceLock<Pipeline>,
    files: OnceLock<FileStore>,
    admission: Arc<Semaphore>,
    stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn new(http: HttpSettings, auth: &AuthSettings) -> Self {
        Self {
            keys: Keys::new(&auth.api_keys),
            metrics: Metrics::new(),
            pipeline: OnceLock::new(),
            files: OnceLock::new(),
            admission: Arc::new(Semaphore::new(http.max_calls)),
            stopping: AtomicBool::new(false),
            http,
        }
    }

    /// The model, once it is loaded and warm.
    pub(crate) fn pipeline(&self) -> Option<&Pipeline> {
        self.pipeline.get()
    }

    pub(crate) fn provide(&self, pipeline: Pipeline) {
        // A second model is a mistake of the wiring; the first keeps answering.
        let _ = self.pipeline.set(pipeline);
    }

    /// The hosted files.
    ///
    /// # Errors
    /// Before they are there.
    pub(crate) fn files(&self) -> Result<&FileStore, ApiError> {
        self.files.get().ok_or(ApiError::NotReady)
    }

    pub(crate) fn host(&self, files: FileStore) {
        let _ = self.files.set(files);
    }

    /// Whether calls are answered now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_stopping() && self.pipeline().is_some_and(Pipeline::is_open)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A place inside, or none; never waits.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.admission).try_acquire_owned().ok()
    }

    /// Calls inside now.
    pub(crate) fn calls_inside(&self) -> usize {
        self.http
            .max_calls
            .saturating_sub(self.admission.available_permits())
    }
}
