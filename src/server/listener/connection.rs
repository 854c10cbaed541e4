//! One connection, from its handshake to its last byte.
//!
//! hyper speaks HTTP on it, with a clock for heads. What hyper cannot read is answered by
//! [`own_answer`]; who does not read is cut by [`Paced`]. When the server closes, a connection ends
//! after the answer that it is about, and at once if it is about none.
//!
//! A connection that hyper gives up on may still have bytes coming in, and closing then would make
//! the kernel reset it before the caller has read the answer. So the sending half is closed first
//! and what still arrives is thrown away, for a short time.

use std::error::Error as _;
use std::future::poll_fn;
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
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::own_answer::{self, Tap};
use super::paced::Paced;
use crate::semaphore::FairPermit;
use crate::server::caller::Peer;
use crate::server::drain::{Busy, Phase};
use crate::server::error::{ApiError, HeadFault};
use crate::server::face::Door;
use crate::server::metrics::Cut;
use crate::server::state::Shared;
use crate::server::tls::{self, Opened};

/// How long bytes are thrown away after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// The same when the server closes, and the time in which a request that was sent already may still
/// be read then.
const LAST_CALL: Duration = Duration::from_millis(100);

/// A connection, and everything that answers it.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door,
    pub(super) peer: IpAddr,
    /// Given back at its end: the place among all connections, and among those of its address.
    pub(super) _places: (OwnedSemaphorePermit, Option<FairPermit<IpAddr>>),
}

impl Connection {
    pub(super) async fn serve(self, stream: TcpStream) {
        let _counted = self.shared.metrics.connection();
        tokio::select! {
            () = self.open(stream) => {}
            () = self.shared.drain.reached(Phase::Cut) => {}
        }
    }

    async fn open(&self, stream: TcpStream) {
        // Answers are single small writes; waiting to merge them only adds delay.
        let _ = stream.set_nodelay(true);
        let http = &self.shared.http;
        let cut = self.shared.metrics.cut(Cut::SlowReader);
        let stream = Paced::new(stream, &http.peers, cut);
        let Some(acceptor) = &self.acceptor else {
            return self.answer(stream).await;
        };
        let opened = tokio::select! {
            opened = tls::open(acceptor, stream, http.header_timeout) => opened,
            // Nothing was asked yet, so nothing needs to be finished.
            () = self.shared.drain.reached(Phase::Closing) => return,
        };
        match opened {
            Ok(Opened::Encrypted(stream)) => self.answer(*stream).await,
            Ok(Opened::NotTls(stream)) => {
                let error = ApiError::Head(HeadFault::NotTls);
                self.refuse(stream, &error, b"", true).await;
            }
            Err(error) => tracing::debug!(%error, "no TLS connection came about"),
        }
    }

    async fn answer<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (http, drain) = (&self.shared.http, &self.shared.drain);
        let busy = Busy::default();
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            let extensions = request.extensions_mut();
            extensions.insert(self.door);
            extensions.insert(Peer(self.peer));
            extensions.insert(busy.clone());
            self.router.clone().oneshot(request)
        });
        let phase = drain.phase();
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(http.header_timeout)
            .max_buf_size(http.max_header_bytes)
            .max_headers(http.max_header_lines)
            .keep_alive(phase < Phase::Draining)
            .serve_connection(TokioIo::new(Tap::new(stream)), service);
        let mut closing = pin!(drain.reached(Phase::Closing));
        let mut last_call = None;
        let result = loop {
            let limit = last_call.filter(|_| busy.is_idle());
            let over = async move {
                match limit {
                    Some(limit) => tokio::time::sleep_until(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break Some(result),
                () = &mut closing, if last_call.is_none() => {
                    last_call = Some(Instant::now() + LAST_CALL);
                    // Whoever came this late may have asked already, which hyper does not know yet.
                    if phase < Phase::Closing {
                        std::pin::Pin::new(&mut connection).graceful_shutdown();
                    }
                }
                () = over => break None,
            }
        };
        let Some(result) = result else { return };
        let parts = connection.into_parts();
        let tap = parts.io.into_inner();
        let fault = result.err().and_then(|error| {
            tracing::debug!(%error, "connection ended early");
            Fault::of(&error, !parts.read_buf.is_empty(), &tap)
        });
        self.part(tap, fault).await;
    }

    /// Says what is left to say, and closes.
    async fn part<S>(&self, tap: Tap<S>, fault: Option<Fault>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let has_body = !tap.wants_head_only();
        let (mut stream, bare) = tap.into_parts();
        match fault {
            Some(Fault::Head(fault)) => {
                self.refuse(stream, &ApiError::Head(fault), &bare, has_body)
                    .await;
            }
            Some(Fault::Unwritable) => {}
            None => {
                if !bare.is_empty() && stream.write_all(&bare).await.is_err() {
                    return;
                }
                self.linger(stream).await;
            }
        }
    }

    /// Gives an answer that no route gives, and closes.
    async fn refuse<S>(&self, mut stream: S, error: &ApiError, bare: &[u8], has_body: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (answer, status) = own_answer::written(error, bare, has_body);
        self.shared.metrics.count_unrouted(status.as_u16());
        if stream.write_all(&answer).await.is_ok() {
            self.linger(stream).await;
        }
    }

    async fn linger(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut ignored = [0; 4096];
        let discard = async { while matches!(stream.read(&mut ignored).await, Ok(1..)) {} };
        let closing = async {
            self.shared.drain.reached(Phase::Closing).await;
            tokio::time::sleep(LAST_CALL).await;
        };
        tokio::select! {
            () = discard => {}
            () = closing => {}
            () = tokio::time::sleep(LINGER) => {}
        }
    }
}

/// Why hyper gave a connection up, where something follows from that.
enum Fault {
    /// What came is no request, and the answer is still to be given.
    Head(HeadFault),
    /// Nothing can be written any more.
    Unwritable,
}

impl Fault {
    fn of<S>(error: &hyper::Error, has_unread: bool, tap: &Tap<S>) -> Option<Self> {
        if is_timed_out(error) {
            return Some(Self::Unwritable);
        }
        if !tap.held().is_empty() {
            let fault = own_answer::fault_in(tap.held());
            return error.is_parse().then_some(Self::Head(fault));
        }
        // hyper has written nothing about the head that it had begun to read.
        let is_unanswered = error.is_parse_version_h2() || error.is_incomplete_message();
        if tap.is_stuck() || !has_unread {
            None
        } else if error.is_timeout() {
            Some(Self::Head(HeadFault::TooSlow))
        } else {
            is_unanswered.then_some(Self::Head(HeadFault::Malformed))
        }
    }
}

/// Whether [`Paced`] has cut the connection.
fn is_timed_out(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    cause.is_some_and(|it| it.kind() == io::ErrorKind::TimedOut)
}
