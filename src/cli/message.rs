//! Lines on stderr for the person who typed the command: errors, warnings and notes.
//!
//! Words in them may come from the name of a file, from a checkpoint or from a server, and a flag in them
//! may have been set by a variable. So every line goes through here: it loses what a terminal would act
//! on, and it names what was set.

use super::variables;
use crate::telemetry;

/// Says why something was not done.
pub(super) fn error(sentence: &str) {
    line(&format!("error: {sentence}"));
}

/// Says what is done otherwise than somebody may expect.
pub(super) fn warning(sentence: &str) {
    line(&format!("warning: {sentence}"));
}

/// Says one line as it stands. With stderr closed, nobody could read it.
pub(super) fn line(text: &str) {
    let text = printable(&variables::named_in(text));
    telemetry::write_stderr(&format!("{text}\n"));
}

/// A text without what a terminal would act on.
pub(super) fn printable(text: &str) -> String {
    let is_kept = |char: &char| !char.is_control() || *char == '\n';
    text.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printable_text_has_lines_and_no_control_characters() {
        for (text, shown) in [
            ("a\nb é 猫", "a\nb é 猫"),
            ("\x1b[31mred\x07\r\x7f", "[31mred"),
            ("\u{9b}2J\u{85}", "2J"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
