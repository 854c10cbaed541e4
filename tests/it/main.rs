//! The one integration binary, a module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must stop"
)]

mod architecture;
mod auth;
mod errors;
mod images;
mod overload;
mod postprocess;
mod prompts;
mod protocol;
mod resize;
mod run_api;
mod shutdown;
mod ssrf;
mod support;
