//! The grammar of the command line: what the user may type. `--help` is the manual.
//!
//! Each command has a file with its flags and its work; this one only chooses among them and turns
//! the result into an exit code: 0 success, 1 could not run, 2 wrong usage.

mod bench;
mod client_env;
pub mod data_dir;
mod face_args;
mod fetch_model;
#[cfg(unix)]
mod file_limit;
mod files_args;
mod host_names;
mod load_model;
mod log_args;
mod message;
mod model_args;
mod number_args;
mod output_file;
mod peer_args;
mod picture_error;
mod pull;
mod queue_args;
mod run;
pub mod serve;
pub mod serve_args;
mod service_links;
mod stdout;
mod terminal;
mod value_parsers;
mod variables;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{contained, telemetry};

/// Exit code of a command that was understood and could not be carried out.
const COULD_NOT_RUN: u8 = 1;
/// Exit code of a command line that cannot be understood; clap's own.
const WRONG_USAGE: u8 = 2;

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
    Serve(Box<serve::ServeCommand>),
    Run(Box<run::RunArgs>),
    Pull(pull::PullArgs),
    Bench(Box<bench::BenchArgs>),
    ClientEnv(client_env::ClientEnvArgs),
}

/// Why a command did not succeed, as one sentence for the person who typed it.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// The command line is fine and the work could not be done.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads stdout any more, as behind `| head`. Nothing is said, and it is no failure.
    #[error("nobody reads stdout any more")]
    BrokenPipe,
}

/// A sentence about work that could not be done.
impl From<String> for CommandError {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence)
    }
}

/// Parses the arguments, runs the command, and turns its result into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    contained::hush();
    let cli = variables::parse::<Cli>(service_links::command::<Cli>());
    let result = match cli.command {
        Command::Serve(command) => serve::run(&command),
        Command::Run(args) => run::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::ClientEnv(args) => client_env::run(&args),
    };
    // Makes room for the last word, too.
    telemetry::flush();
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // With stderr closed, the exit code still tells.
    let exit_code = match error {
        CommandError::BrokenPipe => return ExitCode::SUCCESS,
        CommandError::Usage(_) => WRONG_USAGE,
        CommandError::Failed(_) => COULD_NOT_RUN,
    };
    message::error(&error.to_string());
    telemetry::flush();
    ExitCode::from(exit_code)
}
