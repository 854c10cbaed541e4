//! From the signal to stop to the end: which phase it is, and which requests are still in flight.
//!
//! First, for the stop delay, readiness says no and everything is answered. Then the drain: what is
//! in flight goes on, reading goes on (a client that polls its job may see the end), and what would
//! begin something is refused with 503. The listener stays open all the while, so that nobody is
//! reset. When nothing is in flight or the time is over, the server closes: what still runs is
//! answered with 503, and connections end after their answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// How far stopping has come. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not begun.
    Serving,
    /// Readiness says no; everything is answered.
    Announced,
    /// Nothing new is begun.
    Draining,
    /// What still runs is given up; connections end.
    Closing,
    /// Connections are dropped.
    Cut,
}

/// The phase, and the requests in flight.
#[derive(Debug)]
pub(crate) struct Drain {
    phase: watch::Sender<Phase>,
    /// Every request that arrived before the drain holds a receiver.
    in_flight: watch::Sender<()>,
}

/// A request in flight, until this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    _held: watch::Receiver<()>,
}

/// Whether a connection has a request to answer. Travels with its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<()>);

impl Busy {
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            in_flight: watch::Sender::new(()),
        }
    }
}

impl Drain {
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a phase, unless it was reached before.
    pub(crate) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_later = to > *phase;
            if is_later {
                *phase = to;
            }
            is_later
        });
    }

    /// Completes when a phase is reached. Cancel-safe.
    pub(crate) async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }

    /// Counts a request that arrives now, unless the drain has begun.
    pub(crate) fn enter(&self) -> Option<InFlight> {
        // Counted before the phase is looked at: the drain looks the other way round.
        let _held = self.in_flight.subscribe();
        (self.phase() < Phase::Draining).then_some(InFlight { _held })
    }

    /// Completes when no request is in flight that arrived before the drain; says whether that was
    /// within `limit`.
    pub(crate) async fn finished(&self, limit: Duration) -> bool {
        let finished = tokio::time::timeout(limit, self.in_flight.closed()).await;
        finished.is_ok()
    }
}

/// Whether a method begins nothing, so that it is answered during the drain.
pub(crate) fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A body that keeps its request in flight, and its connection busy, until it was sent or given up.
pub(crate) struct Tracked<G> {
    body: Body,
    _guard: G,
}

impl<G> Tracked<G> {
    pub(crate) fn new(body: Body, guard: G) -> Self {
        Self {
            body,
            _guard: guard,
        }
    }
}

impl<G: Unpin> hyper::body::Body for Tracked<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_ends_with_the_last_request_that_came_before_it() {
        let drain = Drain::default();
        let soon = Duration::from_millis(20);
        let first = drain.enter().unwrap();
        drain.advance(Phase::Announced);
        let second = drain.enter().unwrap();
        drain.advance(Phase::Draining);
        assert!(drain.enter().is_none());
        drop(first);
        assert!(!drain.finished(soon).await);
        drop(Tracked::new(Body::empty(), second));
        assert!(drain.finished(soon).await);
    }

    #[tokio::test]
    async fn phases_only_go_on() {
        let drain = Drain::default();
        drain.advance(Phase::Closing);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Closing);
        drain.reached(Phase::Draining).await;
    }
}
