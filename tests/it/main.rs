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
mod bench_command;
mod checkpoints;
mod cli;
mod client_env;
mod clients;
mod cors;
#[cfg(unix)]
mod crash;
mod demo;
mod drawn;
mod errors;
mod face;
mod golden;
mod hub;
mod images;
mod openapi;
mod overload;
mod parity;
mod postprocess;
mod prompts;
mod protocol;
mod queue;
mod queue_api;
mod queue_options;
mod queue_restart;
mod queue_stream;
mod queue_webhook;
mod real_weights;
mod resize;
mod run_api;
mod run_command;
mod scores;
mod scores_api;
mod service_links;
mod settings;
mod shutdown;
mod ssrf;
mod storage_api;
mod storage_limits;
mod support;
mod tasks;
mod tls;
mod webhooks;
