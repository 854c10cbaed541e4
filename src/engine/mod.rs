//! The engine: one model thread, and the cloneable handle through which everybody else reaches it.
//!
//! [`Engine::submit`] puts a prepared input in a bounded line and waits for the answer. Cancellation
//! is ownership: the caller holds the receiving end, and an item whose receiver is gone is skipped
//! before it costs anything. Closing the engine finishes what waits and joins the thread.
//!
//! The handle needs an async runtime and comes with the `server` feature; without it this room is
//! [`predict`] and [`device`] alone.

pub mod device;
mod florence2;
#[cfg(feature = "server")]
mod handle;
pub mod predict;
pub mod stages;
#[cfg(feature = "server")]
mod worker;

#[cfg(feature = "server")]
pub use handle::{Engine, EngineError};
