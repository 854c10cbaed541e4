//! The one integration binary, a module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on must stop, and prints the figures it measured"
)]

mod architecture;
mod auth;
mod cli;
mod client_env;
mod clients;
mod drawn;
mod errors;
mod hub;
mod images;
mod openapi;
mod overload;
mod parity;
mod postprocess;
mod prompts;
mod protocol;
mod real_weights;
mod resize;
mod run_api;
mod run_command;
mod scores;
mod scores_api;
mod shutdown;
mod ssrf;
mod storage_api;
mod storage_limits;
mod support;
mod tasks;
mod tls;
