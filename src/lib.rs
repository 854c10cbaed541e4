//! Florence-2 served from your own machine, as a drop-in for fal's hosted endpoints.
//!
//! The rooms, in the order in which a request passes them:
//!
//! * `server` — sockets, routes, keys, HTTP errors. The only room that knows status codes.
//! * `fal` — the wire shapes: what a request may say and what an answer looks like.
//! * `pipeline` — one prediction from validated input to fal output, as named steps.
//! * `image_io` — from the `image_url` string to an upright 8-bit RGB picture.
//! * `queue` — the same journey started by a durable job in place of a socket.
//! * `engine` — the model thread and the handle that everybody else holds.
//! * `florence2` — the model itself: synchronous, no network, no clock.
//! * `annotate` — the answer drawn on the picture, as PNG.
//! * `files` — hosted files: uploads and drawn pictures, under addresses nobody can guess.
//! * `semaphore` — permits of which no party may hold more than its share.
//! * `cli` — the commands; the only place that wires rooms together.
//! * `telemetry` — log format and level.
//! * `config` — every setting with its default, unit and allowed range.
//!
//! Long texts are in [`docs`]: [JPEG](docs::jpeg), [performance](docs::performance), [security](docs::security).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test that cannot go on must stop"
    )
)]

#[cfg(feature = "server")]
pub mod annotate;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
mod contained;
pub mod docs;
pub mod engine;
#[cfg(feature = "server")]
pub mod fal;
#[cfg(feature = "server")]
pub mod files;
pub mod florence2;
#[cfg(feature = "server")]
pub mod image_io;
#[cfg(feature = "server")]
pub mod pipeline;
#[cfg(feature = "server")]
pub mod queue;
#[cfg(feature = "server")]
pub mod semaphore;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod telemetry;
