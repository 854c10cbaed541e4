//! What handlers and layers share: settings, keys, the model, the queue, files, admission, metrics.
//!
//! One value behind one `Arc`, made when the listener opens. The only parts that change are the
//! model, which is set once, and how far stopping has come ([`Drain`]).

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use super::auth::Keys;
use super::chunks::RateLimiter;
use super::cors::Pages;
use super::drain::{Drain, Phase};
use super::extract::Bodies;
use super::json_body::Readers;
use super::metrics::Metrics;
use super::tokens::Tokens;
use super::{Rooms, ServerSettings};
use crate::config::{FaceSettings, HttpSettings};
use crate::files::FileStore;
use crate::pipeline::Pipeline;
use crate::queue::Queue;
use crate::semaphore::{Caller, FairSemaphore, YieldingPermit};

/// Shared by everything in this room.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) http: HttpSettings,
    pub(crate) face: FaceSettings,
    pub(crate) keys: Keys,
    pub(crate) open_metrics: bool,
    pub(crate) tokens: Tokens,
    pub(crate) pages: Pages,
    pub(crate) metrics: Metrics,
    pub(crate) drain: Drain,
    pub(crate) bodies: Bodies,
    pub(crate) readers: Readers,
    pub(crate) long_bodies: RateLimiter,
    /// Uploads at once, which the file store bounds too, but not by caller.
    pub(crate) uploads: FairSemaphore<Caller>,
    pub(crate) queue: Queue,
    pub(crate) files: FileStore,
    pipeline: OnceLock<Pipeline>,
    admission: Arc<Semaphore>,
}

impl Shared {
    /// # Errors
    /// When the system has no randomness for the tokens' secret, or starts no threads.
    pub(crate) fn new(settings: ServerSettings, rooms: Rooms) -> io::Result<Self> {
        let ServerSettings { http, face, auth } = settings;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            keys: Keys::new(&auth.api_keys),
            open_metrics: auth.open_metrics,
            tokens: Tokens::new()?,
            pages: Pages::new(&face, !auth.api_keys.is_empty()),
            metrics: Metrics::new(),
            drain: Drain::default(),
            bodies: Bodies::new(&http),
            long_bodies: RateLimiter::new(cores),
            readers: Readers::new(cores).map_err(io::Error::other)?,
            uploads: FairSemaphore::with_percent(
                rooms.files.max_uploads(),
                http.peers.max_share_percent,
                1,
            ),
            queue: rooms.queue,
            files: rooms.files,
            pipeline: OnceLock::new(),
            admission: Arc::new(Semaphore::new(http.max_calls)),
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
        self.drain.phase() > Phase::Serving
    }

    /// Ends streams and has the queue begin no further job.
    pub(crate) fn begin_drain(&self) {
        self.queue.drain();
        self.drain.advance(Phase::Draining);
    }

    /// Completes when the drain begins. Cancel-safe.
    pub(crate) async fn stopped(&self) {
        self.drain.reached(Phase::Draining).await;
    }

    /// A permit to work on a call, or none; never waits.
    pub(crate) fn admit(&self) -> Option<YieldingPermit> {
        YieldingPermit::try_acquire(&self.admission)
    }

    /// Whether a call that came now would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.admission.available_permits() == 0
    }

    /// Whether the model has a call or a job to work on.
    pub(crate) fn is_working(&self) -> bool {
        self.calls_inside() > 0 || self.queue.jobs_inside() > 0
    }

    /// Calls being worked on now.
    pub(crate) fn calls_inside(&self) -> usize {
        self.http
            .max_calls
            .saturating_sub(self.admission.available_permits())
    }
}
