//! Log set-up: where lines go, how they look, what may be in them; and what a caught panic has to say
//! in one.
//!
//! Lines go to stderr, because stdout belongs to answers. They are written in the background
//! ([`non_blocking`]): a reader that stops reading loses lines and stops nothing else. Once logging
//! has begun nothing else writes to stderr, panics included. The level applies to this crate alone:
//! libraries stay at warnings, since some of them print URLs with query strings at lower levels.
//! Keys, `data:` URIs and query strings never appear in a line, whatever the level.

mod non_blocking;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::LogSettings;
use crate::contained::is_contained;
use non_blocking::NonBlockingWriter;

pub(crate) use crate::contained::panic_text;

/// How long the end of the process waits for the reader of the log.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What stands between this process and stderr once logging has begun.
static STDERR: OnceLock<NonBlockingWriter> = OnceLock::new();

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
pub fn init(format: LogFormat, level: Level, settings: LogSettings) {
    if STDERR.get().is_some() {
        return;
    }
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        // Logs every failed attempt as an error; the download room reports what comes of them.
        .with_target("hf_hub", LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), level);
    // Without a thread there is no log: writing from the threads that serve would stop them.
    let Ok(writer) = NonBlockingWriter::start(std::io::stderr(), settings.buffer_bytes) else {
        return;
    };
    let lines = fmt::layer()
        .with_writer(STDERR.get_or_init(|| writer).clone())
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Plain => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Fails only when logging was started before.
    let begun = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    if begun.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Whether logging has begun, so that stderr is written in the background.
#[must_use]
pub fn is_started() -> bool {
    STDERR.get().is_some()
}

/// Writes to stderr, through the log's buffer once logging has begun. What cannot be written is lost.
pub fn write_stderr(text: &str) {
    match STDERR.get() {
        Some(writer) => writer.push(text.as_bytes()),
        None => {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// Waits until every line is written, but not for a reader that has stopped reading.
pub fn flush() {
    if let Some(writer) = STDERR.get() {
        writer.flush_within(FLUSH_LIMIT);
    }
}

/// Log lines that were dropped because their reader was too slow, or gone.
#[must_use]
pub fn dropped_lines() -> u64 {
    STDERR.get().map_or(0, NonBlockingWriter::dropped_lines)
}

/// The standard library's own hook writes to stderr and waits for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    if is_contained() {
        return;
    }
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        panic = panic_text(panic.payload()),
        at = panic.location().map(tracing::field::display),
        thread = thread.name(),
        backtrace = backtrace.map(tracing::field::display),
        "a thread panicked"
    );
    // Its panic ends the process.
    if thread.name() == Some("main") {
        flush();
    }
}
