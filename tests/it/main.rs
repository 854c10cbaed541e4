//! The one integration binary, a module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on must stop, and prints the figures it measured"
)]

mod architecture;
mod auth;
mod bench_command;
mod checkpoints;
mod cli;
mod client_env;
mod clients;
#[cfg(target_os = "linux")]
mod clock;
mod cors;
#[cfg(unix)]
mod crash;
#[cfg(unix)]
mod damaged_queue;
mod demo;
#[cfg(target_os = "linux")]
mod disk_faults;
mod drawn;
mod egress;
mod errors;
mod face;
mod flag_values;
mod fuzz;
mod golden;
mod hub;
mod images;
mod jpeg;
mod large_bodies;
#[cfg(unix)]
mod log_reader;
mod messages;
mod openapi;
mod orientation;
mod overload;
mod parity;
mod picture_memory;
mod postprocess;
mod prompts;
mod protocol;
mod queue;
mod queue_api;
mod queue_options;
mod queue_receivers;
mod queue_restart;
#[cfg(target_os = "linux")]
mod queue_sources;
mod queue_stream;
mod queue_suspects;
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
mod siege;
mod slow_peers;
mod ssrf;
mod storage_api;
mod storage_limits;
mod support;
#[cfg(unix)]
mod suspects;
mod tasks;
mod tls;
mod webhooks;
