//! Log set-up: where lines go, how they look, what may be in them; and what a caught panic has to say
//! in one.
//!
//! Lines go to stderr, because stdout belongs to answers. The level applies to this crate alone:
//! libraries stay at warnings, since some of them print URLs with query strings at lower levels.
//! Keys, `data:` URIs and query strings never appear in a line, whatever the level.

use std::any::Any;
use std::io::IsTerminal;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Starts logging. A second call changes nothing, so that tests may start several servers.
pub fn init(format: LogFormat, level: Level) {
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        // Logs every failed attempt as an error; the download room reports what comes of them.
        .with_target("hf_hub", LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Plain => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Fails only when logging was started before.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
}

/// What a caught panic said, for the log.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
