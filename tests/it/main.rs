//! The one integration binary, a module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must stop"
)]

mod hub;
mod parity;
mod postprocess;
mod prompts;
mod real_weights;
mod resize;
mod support;
