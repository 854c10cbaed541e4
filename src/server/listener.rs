//! The accept loop: connection caps, back-off, and the end of it all.
//!
//! axum's own `serve` sets no clocks and bounds nothing. This loop takes callers from the kernel's
//! line as long as there is a place, and hands each to a task of its own ([`connection`]); it does
//! nothing else, so a burst is accepted as fast as the kernel gives it. One address holds only a
//! share of the places, or one party that is silent could hold them all.
//!
//! The listeners stay open during the drain, so that callers are told instead of being reset.

mod connection;
mod own_answer;
mod paced;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::caller;
use super::drain::Phase;
use super::error::ApiError;
use super::face::Door;
use super::metrics::Cut;
use super::state::Shared;
use crate::semaphore::{FairPermit, FairSemaphore};
use connection::Connection;

pub(crate) use paced::Paced;

/// Callers that may wait to be accepted. More than any system allows, which cuts it to its own
/// limit: `net.core.somaxconn` on Linux.
const BACKLOG: u32 = i32::MAX as u32;

/// Pause after the system refused to accept, for instance because all file handles are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for one more of those who wait in the kernel's line when the listener closes.
const LAST_ACCEPT: Duration = Duration::from_millis(5);

/// Time for all of them: somebody may connect without a pause.
const LAST_ACCEPTS: Duration = Duration::from_millis(500);

/// Time for the last answers to be sent and read.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Callers beyond their share who are told so at once; more are dropped without a word.
const REFUSALS: usize = 32;

/// Time for one of them to read that.
const REFUSAL_TIME: Duration = Duration::from_millis(500);

/// An open listener, and what is known of every request that comes through it.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) listener: TcpListener,
    pub(crate) door: Door,
}

/// Opens a listener with the longest line that the system allows.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Elsewhere it would let two programs have the same port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves connections of both listeners, encrypted when there is an acceptor, until the server
/// closes; then ends them.
pub(crate) async fn serve(
    (main, queue): (Entrance, Option<Entrance>),
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shared: &Arc<Shared>,
) {
    let entry = Entry::new(acceptor, router, shared);
    let mut closing = pin!(shared.drain.reached(Phase::Closing));
    loop {
        // First a place, then a caller for it; else each listener would keep a place of its own.
        let accepted = async {
            let place = Arc::clone(&entry.places).acquire_owned().await;
            (place, accept(&main, queue.as_ref()).await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut closing => break,
            accepted = accepted => accepted,
        };
        match (place, accepted) {
            (Ok(place), Ok(caller)) => entry.let_in(place, caller),
            (_, Err(error)) if is_callers_fault(&error) => {}
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    // Who came before the door closes is told, not reset.
    let end = tokio::time::Instant::now() + LAST_ACCEPTS;
    let next = || tokio::time::timeout(LAST_ACCEPT, accept(&main, queue.as_ref()));
    while tokio::time::Instant::now() < end
        && let Ok(place) = Arc::clone(&entry.places).try_acquire_owned()
        && let Ok(Ok(caller)) = next().await
    {
        entry.let_in(place, caller);
    }
    drop((main, queue));
    let all = u32::try_from(shared.http.max_connections).unwrap_or(u32::MAX);
    let ended = tokio::time::timeout(CLOSING_TIME, entry.places.acquire_many(all)).await;
    if ended.is_err() {
        let open = shared.http.max_connections - entry.places.available_permits();
        tracing::warn!(open, "connections are cut");
        shared.drain.advance(Phase::Cut);
    }
}

/// Somebody who has connected.
struct Arrival {
    stream: TcpStream,
    address: SocketAddr,
    door: Door,
}

/// The next connection, whichever listener it comes through.
async fn accept(main: &Entrance, queue: Option<&Entrance>) -> io::Result<Arrival> {
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
    let (stream, address) = accepted?;
    Ok(Arrival {
        stream,
        address,
        door,
    })
}

/// Errors that belong to one caller who left again, not to the listener.
fn is_callers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// What lets callers in, and what they find inside.
struct Entry {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    /// Places for all connections.
    places: Arc<Semaphore>,
    /// The same by address. None where a proxy in front has all connections.
    addresses: Option<FairSemaphore<IpAddr>>,
    refusals: Arc<Semaphore>,
}

impl Entry {
    fn new(acceptor: Option<TlsAcceptor>, router: Router, shared: &Arc<Shared>) -> Self {
        let (max, percent) = (
            shared.http.max_connections,
            shared.http.peers.max_share_percent,
        );
        let is_shared = !shared.face.trust_forwarded;
        Self {
            router,
            acceptor,
            shared: Arc::clone(shared),
            places: Arc::new(Semaphore::new(max)),
            addresses: is_shared.then(|| FairSemaphore::with_percent(max, percent, 1)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }

    /// Hands a connection to a task of its own.
    fn let_in(&self, place: OwnedSemaphorePermit, arrival: Arrival) {
        let Arrival {
            stream,
            address,
            door,
        } = arrival;
        let peer = address.ip();
        let Ok(share) = self.share_of(peer) else {
            return self.turn_away(stream);
        };
        let connection = Connection {
            router: self.router.clone(),
            acceptor: self.acceptor.clone(),
            shared: Arc::clone(&self.shared),
            door,
            peer,
            _places: (place, share),
        };
        tokio::spawn(connection.serve(stream));
    }

    fn share_of(
        &self,
        peer: IpAddr,
    ) -> Result<Option<FairPermit<IpAddr>>, crate::semaphore::Exhausted> {
        let Some(addresses) = &self.addresses else {
            return Ok(None);
        };
        addresses.try_acquire(&caller::network(peer), 1).map(Some)
    }

    /// Tells somebody who holds too many connections so, where that can be said in few words.
    fn turn_away(&self, mut stream: TcpStream) {
        let metrics = &self.shared.metrics;
        metrics.cut(Cut::Share).inc();
        let turn = Arc::clone(&self.refusals).try_acquire_owned();
        let Some(turn) = turn.ok().filter(|_| self.acceptor.is_none()) else {
            return;
        };
        let (answer, status) = own_answer::written(&ApiError::Busy, b"", true);
        metrics.count_unrouted(status.as_u16());
        tokio::spawn(async move {
            let _turn = turn;
            let told = async {
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // The end comes when the caller has read it; what else comes is not looked at.
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, told).await;
        });
    }
}
