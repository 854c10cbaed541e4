//! Sockets, routes, keys and HTTP errors. The only room that knows status codes.
//!
//! A request passes, in this order: [`listener`] (connection cap, [`tls`], header clock), [`layers`] (id,
//! span, metrics, panics), [`routes`], [`auth`] (before any body byte), admission, [`extract`]
//! (body cap and clock), then its handler. Whatever goes wrong on the way becomes an answer in one
//! table, [`error`].
//!
//! The listener opens before the model is loaded; until [`Server::provide`] is called, model routes
//! answer 503 and `/health/ready` says so.

mod auth;
mod error;
mod extract;
mod handlers;
mod health;
mod layers;
mod listener;
mod metrics;
mod openapi;
mod routes;
mod shutdown;
mod state;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::{AuthSettings, HttpSettings};
use crate::pipeline::Pipeline;
use state::Shared;
use tls::Tls;

pub use shutdown::signalled;
pub use tls::{FAL_HOSTS, TlsError};

/// Why the listener is not open.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses the address.
    #[error("cannot be listened on: {0}")]
    Address(#[from] io::Error),
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An open listener with its routes.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the listener. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// When there is no certificate, or the address cannot be bound.
    pub async fn bind(http: HttpSettings, auth: &AuthSettings) -> Result<Self, BindError> {
        let tls = Tls::open(&http.tls)?;
        let listener = TcpListener::bind((http.host, http.port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(http, auth));
        Ok(Self {
            listener,
            address,
            tls,
            shared,
        })
    }

    /// Where the listener is open; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as callers write it, scheme included.
    #[must_use]
    pub fn base(&self) -> String {
        format!("{}://{}", self.shared.http.tls.scheme(), self.address)
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
        let acceptor = self.tls.as_ref().map(Tls::acceptor);
        let serving = listener::serve(self.listener, acceptor, router, &self.shared, stop);
        match self.tls {
            None => serving.await,
            Some(tls) => tokio::select! {
                () = serving => {}
                () = tls.keep_fresh() => {}
            },
        }
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
