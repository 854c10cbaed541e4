//! What a person sees while files come: a bar per large file on a terminal, else a line per file.
//!
//! All of it goes to stderr; stdout belongs to the command's result.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::{message, terminal};

/// Files below this many bytes come too fast to be watched.
const BAR_FROM_BYTES: u64 = 1 << 20;
/// How often a bar is drawn while nothing comes, so that its clock runs.
const TICK: Duration = Duration::from_millis(250);
const TEMPLATE: &str =
    "{msg:28} {bar:30} {bytes:>11}/{total_bytes:<11} {bytes_per_sec:>12} {eta:>5} left";

/// The reporter of one command.
pub(super) struct Progress {
    bars: MultiProgress,
    on_terminal: bool,
}

/// One file on its way.
pub(super) struct Bar {
    bar: ProgressBar,
    /// The line to print at the end where no bar was shown.
    line: Option<String>,
    bars: MultiProgress,
}

impl Progress {
    /// Looks whether somebody watches.
    pub(super) fn new() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(terminal::draw_target()),
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says one line.
    pub(super) fn note(&self, line: &str) {
        say(&self.bars, line);
    }

    /// Starts to report one file.
    pub(super) fn bar(&self, name: &str, bytes: u64) -> Bar {
        let shown = self.on_terminal && bytes >= BAR_FROM_BYTES;
        let bar = if shown {
            let bar = self.bars.add(ProgressBar::new(bytes));
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            bar.set_message(name.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        let line = (!shown).then(|| format!("{name}: {} downloaded", HumanBytes(bytes)));
        Bar {
            bar,
            line,
            bars: self.bars.clone(),
        }
    }
}

impl Bar {
    /// So many bytes are there.
    pub(super) fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// The file is whole and checked.
    pub(super) fn done(self) {
        self.bar.finish();
        if let Some(line) = &self.line {
            say(&self.bars, line);
        }
    }
}

fn say(bars: &MultiProgress, line: &str) {
    // A closed stderr is no reason to stop a download.
    bars.suspend(|| message::line(line));
}
