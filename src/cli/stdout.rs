//! What commands print: to stdout, whose reader may leave early.
//!
//! `… | head` closes the pipe as soon as it has what it wants. That is no failure: the command stops
//! there, says nothing and ends as if all had been read; so whatever else it writes, it writes before.
//! Anything else that keeps an answer from its reader, a full disk for one, is said.

use std::io::{self, Write};

use super::CommandError;

/// Prints a text at once; `what` names it in the sentence about a failure.
pub(super) fn write(what: &str, text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| refused(what, &error))
}

fn refused(what: &str, error: &io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError::BrokenPipe,
        _ => CommandError::Failed(format!("cannot write {what} to stdout: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_left_is_no_failure_and_a_full_disk_is() {
        let left = refused("the answer", &io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(left, CommandError::BrokenPipe));
        let full = refused("the answer", &io::Error::from(io::ErrorKind::StorageFull));
        let sentence = full.to_string();
        assert!(
            sentence.starts_with("cannot write the answer to stdout: "),
            "{sentence}"
        );
    }
}
