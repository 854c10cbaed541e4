//! The grammar of the command line: what the user may type. `--help` is the manual.

pub mod serve;
pub mod serve_args;

use std::process::ExitCode;

/// Parses the arguments, runs the command, and turns its result into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
