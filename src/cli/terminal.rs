//! Where progress bars are drawn: on stderr, but through the log's buffer once logging has begun, so
//! that a terminal which is held does not hold the loading of the model.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};

use crate::telemetry;

/// Columns that a bar may fill. The real number would have to be asked of the terminal each time.
const COLUMNS: u16 = 80;
/// How often a second a bar is drawn at most.
const DRAWS_PER_S: u8 = 20;

/// Where bars are drawn; nowhere when nobody watches.
pub(super) fn draw_target() -> ProgressDrawTarget {
    if !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else if telemetry::is_started() {
        ProgressDrawTarget::term_like_with_hz(Box::new(BufferedTerminal), DRAWS_PER_S)
    } else {
        ProgressDrawTarget::stderr()
    }
}

/// A spinner with a message.
pub(super) fn spinner(message: String) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, draw_target());
    spinner.set_style(indicatif::ProgressStyle::default_spinner());
    spinner.with_message(message)
}

/// A terminal whose bytes wait in the log's buffer, in order with the lines of the log.
#[derive(Debug)]
struct BufferedTerminal;

impl BufferedTerminal {
    /// Moves the cursor: `code` is the final letter of the control sequence.
    fn cursor(by: usize, code: char) -> io::Result<()> {
        // To the terminal, zero means one.
        if by > 0 {
            telemetry::write_stderr(&format!("\x1b[{by}{code}"));
        }
        Ok(())
    }
}

impl TermLike for BufferedTerminal {
    fn width(&self) -> u16 {
        COLUMNS
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        Self::cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        Self::cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        Self::cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        Self::cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        telemetry::write_stderr(&format!("{text}\n"));
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        telemetry::write_stderr(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        telemetry::write_stderr("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
