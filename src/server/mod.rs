//! Sockets, routes, keys and HTTP errors. The only room that knows status codes.
//!
//! A request passes, in this order: [`listener`] (connection cap, header clock), [`layers`] (id,
//! span, metrics, panics), [`routes`], [`auth`] (before any body byte), admission, [`extract`]
//! (body cap and clock), then its handler. Whatever goes wrong on the way becomes an answer in one
//! table, [`error`].
//!
//! The listener opens before the model is loaded; until [`Server::provide`] is called, model routes
//! answer 503 and `/health/ready` says so.

mod auth;
mod base;
mod error;
mod extract;
mod handlers;
mod health;
mod layers;
mod lifecycle;
mod listener;
mod metrics;
mod routes;
mod shutdown;
mod state;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::{AuthSettings, HttpSettings};
use crate::files::FileStore;
use crate::pipeline::Pipeline;
use state::Shared;

pub use shutdown::signalled;

/// An open listener with its routes.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the listener. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(http: HttpSettings, auth: &AuthSettings) -> io::Result<Self> {
        let listener = TcpListener::bind((http.host, http.port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(http, auth));
        Ok(Self {
            listener,
            address,
            shared,
        })
    }

    /// Takes uploads and serves files from this store.
    #[must_use]
    pub fn hosting(self, files: FileStore) -> Self {
        self.shared.host(files);
        self
    }

    /// Where the listener is open; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle through which the model is provided once it is ready.
    #[must_use]
    pub fn slot(&self) -> ModelSlot {
        ModelSlot(Arc::clone(&self.shared))
    }

    /// Answers until `stop` completes, then finishes what is in flight, for at most the drain time,
    /// and closes the model.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let router = routes::router(&self.shared);
        listener::serve(self.listener, router, &self.shared, stop).await;
        if let Some(pipeline) = self.shared.pipeline() {
            // A forward that is still running cannot be stopped; its thread ends with the process.
            let _ = tokio::time::timeout(shutdown::CLOSE_GRACE, pipeline.close()).await;
        }
    }
}

/// Where a running server gets its model from.
#[derive(Clone, Debug)]
pub struct ModelSlot(Arc<Shared>);

impl ModelSlot {
    /// Makes the server ready. The first model stays; a second one is dropped.
    pub fn provide(&self, pipeline: Pipeline) {
        self.0.provide(pipeline);
    }
}
