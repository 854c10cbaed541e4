//! Sockets, routes, keys and HTTP errors. The only room that knows status codes.
//!
//! A request passes, in this order: [`listener`] (connection caps, [`tls`], clocks), [`layers`]
//! ([`face`], [`caller`], id, span, metrics, [`cors`], panics, [`drain`]), [`routes`], [`auth`] (before
//! any body byte), [`extract`] (body caps), [`chunks`] (their clock), admission, then its handler. Whatever goes wrong on the way
//! becomes an answer in one table, [`error`]. A job from the queue comes in through [`answerer`]
//! instead, and meets the same [`call`] as a synchronous one.
//!
//! The listener opens before the model is loaded; until a model is given to [`ModelSlot::provide`],
//! synchronous calls are answered with 503, the queue takes jobs without beginning any, and
//! `/health/ready` says so.

mod answerer;
mod auth;
mod call;
mod caller;
mod chunks;
mod cors;
mod drain;
mod error;
mod extract;
mod face;
mod handlers;
mod health;
mod job_view;
mod json_body;
mod layers;
mod lifecycle;
mod listener;
mod metrics;
mod openapi;
mod routes;
mod shutdown;
mod state;
mod tls;
mod tokens;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{AuthSettings, FaceSettings, HttpSettings};
use crate::files::FileStore;
use crate::pipeline::Pipeline;
use crate::queue::Queue;
use answerer::QueueAnswerer;
use face::Door;
use listener::Entrance;
use state::Shared;
use tls::Tls;

pub use answerer::refusals;
pub use face::FAL_HOSTS;
pub use shutdown::signalled;
pub use tls::TlsError;
pub(crate) use tls::{is_local_authority, write_whole};

/// Why the listener is not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses the address.
    #[error("port {port}: {source}")]
    Address {
        /// The port that was asked for.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What serving needs to be told.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// Sockets, bodies, admission.
    pub http: HttpSettings,
    /// How callers reach the server.
    pub face: FaceSettings,
    /// Who may call.
    pub auth: AuthSettings,
}

/// The rooms to which requests lead, beside the model.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// Takes what is not to be answered at once.
    pub queue: Queue,
    /// Keeps uploads and drawn pictures.
    pub files: FileStore,
}

/// Open listeners with their routes.
#[derive(Debug)]
pub struct Server {
    main: Entrance,
    queue: Option<Entrance>,
    tls: Option<Tls>,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the listeners. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// When there is no certificate, or an address cannot be bound.
    pub async fn bind(settings: ServerSettings, rooms: Rooms) -> Result<Self, BindError> {
        let tls = Tls::open(&settings.http.tls)?;
        let scheme = settings.http.tls.scheme();
        let (host, port) = (settings.http.host, settings.http.port);
        let main = open(host, port, false, scheme)?;
        let queue = match settings.face.queue_port {
            Some(port) => Some(open(host, port, true, scheme)?),
            None => None,
        };
        let shared =
            Shared::new(settings, rooms).map_err(|source| BindError::Address { port, source })?;
        Ok(Self {
            main,
            queue,
            tls,
            shared: Arc::new(shared),
        })
    }

    /// Where the listener is open; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.main.door.address
    }

    /// Where the queue's own listener is open, if there is one.
    #[must_use]
    pub fn queue_address(&self) -> Option<SocketAddr> {
        self.queue.as_ref().map(|queue| queue.door.address)
    }

    /// The address as callers write it, scheme included.
    #[must_use]
    pub fn base(&self) -> String {
        self.main.door.base()
    }

    /// The same of the queue's own listener, if there is one.
    #[must_use]
    pub fn queue_base(&self) -> Option<String> {
        self.queue.as_ref().map(|queue| queue.door.base())
    }

    /// A handle through which the model is provided once it is ready.
    #[must_use]
    pub fn slot(&self) -> ModelSlot {
        ModelSlot(Arc::clone(&self.shared))
    }

    /// All routes with all layers, as the main listener calls them: for tests that need no socket.
    #[doc(hidden)]
    pub fn service(&self) -> axum::Router {
        routes::router(&self.shared).layer(axum::Extension(self.main.door))
    }

    /// Answers until `stop` completes, then finishes what is in flight, requests and jobs together
    /// for at most the drain time, refuses what is new, and closes the queue and the model.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            main,
            queue,
            tls,
            shared,
        } = self;
        let router = routes::router(&shared);
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let serving = listener::serve((main, queue), acceptor, router, &shared);
        let stopping = async {
            stop.await;
            shutdown::stop(&shared).await;
        };
        let both = async { tokio::join!(serving, stopping) };
        match tls {
            None => drop(both.await),
            Some(tls) => tokio::select! {
                _ = both => {}
                () = tls.keep_fresh() => {}
            },
        }
    }
}

fn open(
    host: IpAddr,
    port: u16,
    is_queue: bool,
    scheme: &'static str,
) -> Result<Entrance, BindError> {
    let failed = |source| BindError::Address { port, source };
    let listener = listener::listen((host, port).into()).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let door = Door {
        is_queue,
        scheme,
        address,
    };
    Ok(Entrance { listener, door })
}

/// Where a running server gets its model from.
#[derive(Clone, Debug)]
pub struct ModelSlot(Arc<Shared>);

impl ModelSlot {
    /// Makes the server ready and begins with the jobs that wait. The first model stays; a second
    /// one, which is a mistake of the wiring, is dropped.
    pub fn provide(&self, pipeline: Pipeline) {
        if self.0.provide(pipeline) {
            let answerer = QueueAnswerer::new(Arc::clone(&self.0));
            self.0.queue.run(Arc::new(answerer));
        }
    }
}
