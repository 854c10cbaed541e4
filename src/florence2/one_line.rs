//! Errors of the tensor library as one line.
//!
//! The library appends a backtrace to its errors where `RUST_BACKTRACE` is set, and writes contexts on
//! lines of their own. Our errors are one sentence that somebody reads in a terminal or a log line.

use std::fmt::Display;

/// The text of an error without a backtrace, its lines joined.
pub(crate) fn one_line(error: &dyn Display) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let message = lines
        .take_while(|line| !is_frame(line))
        .filter(|line| !line.is_empty());
    message.collect::<Vec<_>>().join(": ")
}

/// Whether a line is a backtrace's: a number, a colon, and a function's name.
fn is_frame(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(number, _)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_with_a_backtrace_is_its_message_alone() {
        let error = candle_core::Error::WithBacktrace {
            inner: Box::new(candle_core::Error::Msg("no such card".into())),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert!(error.to_string().lines().count() > 3);
        assert_eq!(one_line(&error), "no such card");
        let error = error.context("placing `a.weight`");
        assert_eq!(one_line(&error), "placing `a.weight`: no such card");
    }

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        assert_eq!(one_line(&"first\n\n  second: 2\n"), "first: second: 2");
        assert_eq!(one_line(&"3 of 4: not finite"), "3 of 4: not finite");
    }
}
