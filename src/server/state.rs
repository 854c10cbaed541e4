//! What handlers and layers share: settings, keys, the model, the queue, files, admission, metrics.
//!
//! One value behind one `Arc`, made when the listener opens. The only parts that change are the
//! model, which is set once, and the word that the server is stopping.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::auth::Keys;
use super::cors::Pages;
use super::extract::BodyMemory;
use super::metrics::Metrics;
use super::tokens::Tokens;
use super::{Rooms, ServerSettings};
use crate::config::{FaceSettings, HttpSettings};
use crate::files::FileStore;
use crate::pipeline::Pipeline;
use crate::queue::Queue;

/// Shared by everything in this room.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) http: HttpSettings,
    pub(crate) face: FaceSettings,
    pub(crate) keys: Keys,
    pub(crate) tokens: Tokens,
    pub(crate) pages: Pages,
    pub(crate) metrics: Metrics,
    pub(crate) bodies: BodyMemory,
    pub(crate) queue: Queue,
    pub(crate) files: FileStore,
    pipeline: OnceLock<Pipeline>,
    admission: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// # Errors
    /// When the system has no randomness for the tokens' secret.
    pub(crate) fn new(settings: ServerSettings, rooms: Rooms) -> io::Result<Self> {
        let ServerSettings { http, face, auth } = settings;
        Ok(Self {
            keys: Keys::new(&auth.api_keys),
            tokens: Tokens::new()?,
            pages: Pages::new(&face, !auth.api_keys.is_empty()),
            metrics: Metrics::new(),
            bodies: BodyMemory::new(http.max_body_memory_bytes),
            queue: rooms.queue,
            files: rooms.files,
            pipeline: OnceLock::new(),
            admission: Arc::new(Semaphore::new(http.max_calls)),
            stopping: watch::Sender::new(false),
            http,
            face,
        })
    }

    /// The model, once it is loaded and warm.
    pub(crate) fn pipeline(&self) -> Option<&Pipeline> {
        self.pipeline.get()
    }

    /// Sets the model, and says whether it is the first one, which stays.
    pub(crate) fn provide(&self, pipeline: Pipeline) -> bool {
        self.pipeline.set(pipeline).is_ok()
    }

    /// Whether there is a model, and its thread is up.
    pub(crate) fn has_model(&self) -> bool {
        self.pipeline().is_some_and(Pipeline::is_open)
    }

    /// Whether calls of every kind are answered now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_stopping() && self.has_model() && self.queue.store_health().fault.is_none()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends streams and has the queue begin no further job.
    pub(crate) fn stop(&self) {
        self.queue.drain();
        self.stopping.send_replace(true);
    }

    /// Completes when the server begins to stop. Cancel-safe.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as `self`.
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
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
