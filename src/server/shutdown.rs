//! Signals that stop the server, and what is done in which order between the first and the end.
//!
//! SIGINT and SIGTERM stop; a second one of either ends the process at once. SIGHUP is read over.
//! Signals are heard on a thread of their own, so that the second one is heard even when nothing
//! else in the process moves.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::drain::Phase;
use super::state::Shared;

/// Time for what ends by itself once it was told to, when the drain has left none.
const LAST_GRACE: Duration = Duration::from_millis(100);

/// Time beyond the drain for the queue to store what it was about.
const STORE_GRACE: Duration = Duration::from_secs(2);

/// Takes the server from serving to closed. Everything that is in flight, requests and jobs together,
/// has the drain time.
pub(super) async fn stop(shared: &Shared) {
    let http = &shared.http;
    if !http.stop_delay.is_zero() {
        shared.drain.advance(Phase::Announced);
        tracing::info!(
            seconds = http.stop_delay.as_secs(),
            "stopping after a delay"
        );
        tokio::time::sleep(http.stop_delay).await;
    }
    let deadline = Instant::now() + http.drain_timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    shared.begin_drain();
    // Requests first: one that is being answered may still hand a job in.
    if !shared.drain.finished(http.drain_timeout).await {
        tracing::warn!("the drain time is over; what still runs is given up");
        shared.drain.advance(Phase::Closing);
    }
    let (grace, limit) = (left(), left() + STORE_GRACE);
    // What is cut off here is found by the next start.
    if tokio::time::timeout(limit, shared.queue.close(grace))
        .await
        .is_err()
    {
        tracing::warn!("the queue did not close in time");
    }
    shared.drain.advance(Phase::Closing);
    if let Some(pipeline) = shared.pipeline() {
        // A forward that is still running cannot be stopped; its thread ends with the process.
        let limit = left().max(LAST_GRACE);
        let _ = tokio::time::timeout(limit, pipeline.close()).await;
    }
}

/// Completes on the first signal to stop. The handlers are installed before this returns, so a
/// signal during start-up is not lost. Not to be called on an async thread.
///
/// # Errors
/// When the system refuses a handler or a thread.
pub fn signalled() -> io::Result<impl Future<Output = ()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let signals = {
        let _inside = runtime.enter();
        Signals::install()?
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(hear(signals, tell)))?;
    Ok(async move {
        // Logged here and not where signals are heard: a log that is stuck must not be in their way.
        loop {
            match told.recv().await {
                Some(Signal { name, ends: None }) => tracing::info!("{name} is ignored"),
                Some(Signal { name, .. }) => return tracing::info!("{name}: stopping"),
                // The thread ends only with the process.
                None => std::future::pending().await,
            }
        }
    })
}

/// A signal that came.
#[derive(Clone, Copy)]
struct Signal {
    name: &'static str,
    /// What a process that it ends exits with; none for one that ends nothing.
    ends: Option<i32>,
}

/// Passes signals on until one ends the process.
async fn hear(mut signals: Signals, tell: mpsc::UnboundedSender<Signal>) {
    let mut is_stopping = false;
    loop {
        let signal = signals.next().await;
        match signal.ends {
            Some(exit_code) if is_stopping => std::process::exit(exit_code),
            ends => is_stopping |= ends.is_some(),
        }
        // Once it stops nobody listens any more.
        let _ = tell.send(signal);
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        // 128 and the signal's number, as shells report a process that it ended.
        let (name, ends) = tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", Some(130)),
            _ = self.terminate.recv() => ("SIGTERM", Some(143)),
            _ = self.hangup.recv() => ("SIGHUP", None),
        };
        Signal { name, ends }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without a handler there is nothing to wait for, so the server runs until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        // STATUS_CONTROL_C_EXIT.
        let ends = Some(0xC000_013A_u32.cast_signed());
        Signal {
            name: "Ctrl-C",
            ends,
        }
    }
}
