//! The accept loop: connection cap, TLS, header clock, back-off, lingering close, drain.
//!
//! axum's own `serve` sets no header clock, so a caller who never finishes a header line would hold
//! a connection for ever. This loop hands each connection to hyper with a clock, and waits in the
//! kernel's queue while the cap is reached. A TLS handshake is the connection's own affair, under the
//! same clock: a caller who never finishes one costs a place, and no other caller any time.
//!
//! A connection that hyper gives up on may still have bytes coming in, and closing then would make
//! the kernel reset it before the caller has read the answer. So the sending half is closed first
//! and what still arrives is thrown away, for a short time.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::caller::Peer;
use super::face::Door;
use super::state::Shared;
use super::tls::{self, Opened};

/// Pause after the system refused to accept, for instance because all file handles are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long bytes are thrown away after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Said when the header clock runs out in the middle of a header.
const HEADER_TIMEOUT_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Said to a caller who speaks plain HTTP where TLS is expected.
const NOT_TLS_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 67\r\n\r\n{\"detail\":\"This port speaks TLS: its address begins with https://\"}";

/// An open listener, and what is known of every request that comes through it.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) listener: TcpListener,
    pub(crate) door: Door,
}

/// Serves connections of both listeners, encrypted when there is an acceptor, until `stop` completes,
/// then drains.
pub(crate) async fn serve(
    (main, queue): (Entrance, Option<Entrance>),
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shared: &Arc<Shared>,
    stop: impl Future<Output = ()>,
) {
    let cap = shared.http.max_connections;
    let places = Arc::new(Semaphore::new(cap));
    // Every connection holds a receiver; the sender learns when the last one is gone.
    let (announce, phase) = watch::channel(Phase::Serving);
    let mut stop = pin!(stop);
    loop {
        // First a place, then a caller for it; else each listener would keep a place of its own.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&main, queue.as_ref()).await)
        };
        let (place, stream, peer, door) = tokio::select! {
            () = &mut stop => break,
            (place, accepted) = accepted => match (place, accepted) {
                (Ok(place), Ok((stream, peer, door))) => (place, stream, peer, door),
                (_, Err(error)) if is_callers_fault(&error) => continue,
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                (Err(_), _) => break,
            },
        };
        let connection = Connection {
            router: router.clone(),
            acceptor: acceptor.clone(),
            shared: Arc::clone(shared),
            phase: phase.clone(),
            door,
            peer,
            _place: place,
        };
        tokio::spawn(connection.serve(stream));
    }
    // Whoever finds the door closed can be sure that nothing is begun any more.
    shared.stop();
    drop((main, queue));
    drop(phase);
    // Sending fails only when no connection is left to hear it.
    let _ = announce.send(Phase::Draining);
    let drained = tokio::time::timeout(shared.http.drain_timeout, announce.closed()).await;
    if drained.is_err() {
        let open = cap.saturating_sub(places.available_permits());
        tracing::warn!(open, "the drain time is over; connections are cut");
        let _ = announce.send(Phase::Cut);
    }
}

/// The next connection, whichever listener it comes through.
async fn accept(
    main: &Entrance,
    queue: Option<&Entrance>,
) -> io::Result<(TcpStream, IpAddr, Door)> {
    let second = async {
        match queue {
            Some(queue) => (queue.listener.accept().await, queue.door),
            None => std::future::pending().await,
        }
    };
    let (accepted, door) = tokio::select! {
        accepted = main.listener.accept() => (accepted, main.door),
        accepted = second => accepted,
    };
    accepted.map(|(stream, address)| (stream, address.ip(), door))
}

/// What connections are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Answer.
    Serving,
    /// Finish the request in flight and take no further one.
    Draining,
    /// End now.
    Cut,
}

/// Errors that belong to one caller who left again, not to the listener.
fn is_callers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

struct Connection {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    door: Door,
    peer: IpAddr,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let _counted = self.shared.metrics.connection();
        let mut cut = self.phase.clone();
        tokio::select! {
            () = self.open(stream) => {}
            // An error means that nobody is left to say so, which comes to the same.
            _ = cut.wait_for(|phase| *phase == Phase::Cut) => {}
        }
    }

    async fn open(&self, stream: TcpStream) {
        // Answers are single small writes; waiting to merge them only adds delay.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.acceptor else {
            return self.answer(stream).await;
        };
        let mut phase = self.phase.clone();
        let opened = tokio::select! {
            opened = tls::open(acceptor, stream, self.shared.http.header_timeout) => opened,
            // Nothing was asked yet, so nothing needs to be finished.
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
        };
        match opened {
            Ok(Opened::Encrypted(stream)) => self.answer(*stream).await,
            Ok(Opened::NotTls(mut stream)) => {
                let _ = stream.write_all(NOT_TLS_ANSWER).await;
                linger(stream).await;
            }
            Err(error) => tracing::debug!(%error, "no TLS connection came about"),
        }
    }

    async fn answer<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let http = &self.shared.http;
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(self.door);
            request.extensions_mut().insert(Peer(self.peer));
            self.router.clone().oneshot(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(http.header_timeout)
            .max_buf_size(http.max_header_bytes)
            .max_headers(http.max_header_lines)
            .serve_connection(TokioIo::new(stream), service);
        let mut phase = self.phase.clone();
        let mut is_draining = false;
        let result = loop {
            tokio::select! {
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
                _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !is_draining => {
                    is_draining = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended early");
            if error.is_timeout() && !parts.read_buf.is_empty() {
                let _ = stream.write_all(HEADER_TIMEOUT_ANSWER).await;
            }
        }
        linger(stream).await;
    }
}

async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut ignored = [0; 4096];
    let discard = async { while matches!(stream.read(&mut ignored).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
