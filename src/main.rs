//! The program: parse arguments, run the command, turn the result into an exit code.
//!
//! Exit codes: 0 success, 1 could not run, 2 wrong usage.

use std::process::ExitCode;

fn main() -> ExitCode {
    florence2_server::cli::main()
}
