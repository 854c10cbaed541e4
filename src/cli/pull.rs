//! `pull`: have a checkpoint complete and checked in the cache, and say what it consists of.
//!
//! Unlike a start of the model, which trusts cached files by name and length, this reads every
//! byte. The table goes to stdout, progress and errors to stderr.

use std::io::{self, Write};

use super::fetch_model::{self, FetchModelError};
use super::model_args::{DEFAULT_MODEL, HubArgs};

/// Download and verify a checkpoint
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PullArgs {
    /// Hub repository (owner/name), a folder in the hub's file layout, or `demo`
    #[arg(env = "FLORENCE2_MODEL", default_value = DEFAULT_MODEL)]
    model: String,

    #[command(flatten)]
    hub: HubArgs,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// There is no checkpoint, or a bad one.
    #[error(transparent)]
    Fetch(#[from] FetchModelError),
    /// Nobody reads the table.
    #[error("the table cannot be written to stdout: {0}; the checkpoint itself is complete")]
    Stdout(#[from] io::Error),
}

/// Fetches, verifies, prints the table.
pub(crate) fn run(args: &PullArgs) -> Result<(), PullError> {
    let (folder, files) = fetch_model::resolve_and_verify(&args.hub.source(&args.model))?;
    let names = files.iter().map(|file| file.name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    writeln!(out, "{:names$}  {:>13}  sha256", "file", "bytes")?;
    for file in &files {
        writeln!(
            out,
            "{:names$}  {:>13}  {}",
            file.name, file.bytes, file.sha256
        )?;
    }
    writeln!(out, "{}", folder.path.display())?;
    out.flush()?;
    Ok(())
}
