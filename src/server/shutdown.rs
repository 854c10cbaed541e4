//! Signals that stop the server, and how long stopping may take.

use std::future::Future;
use std::io;
use std::time::Duration;

/// Time for the model thread to end after the last call was answered or given up.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Completes on SIGINT (Ctrl-C) or SIGTERM. The handlers are installed before this returns, so a
/// signal during start-up is not lost.
///
/// # Errors
/// When the system refuses a handler.
#[cfg(unix)]
pub fn signalled() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        }
    })
}

/// Completes on Ctrl-C.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn signalled() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a handler there is nothing to wait for, so the server runs until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
