//! The grammar of the command line: what the user may type. `--help` is the manual.
//!
//! Each command has a file with its flags and its work; this one only chooses among them and turns
//! the result into an exit code: 0 success, 1 could not run, 2 wrong usage.

pub(crate) mod fetch_model;
pub(crate) mod model_args;
mod pull;
pub mod serve;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code of a command that was understood and could not be carried out.
const COULD_NOT_RUN: u8 = 1;

/// Serves Microsoft's Florence-2 vision model from your own machine, as a drop-in for fal's
/// hosted endpoints
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pull(pull::PullArgs),
}

/// Parses the arguments, runs the command, and turns its result into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let result: Result<(), Box<dyn std::error::Error>> = match Cli::parse().command {
        Command::Pull(args) => pull::run(&args).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr closed, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}
