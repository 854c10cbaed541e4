//! `pull`: have a checkpoint complete and checked in the cache, and say what it consists of.
//!
//! Unlike a start of the model, which trusts cached files by name and length, this reads every
//! byte. The table goes to stdout, progress and errors to stderr.

use super::model_args::{DEFAULT_MODEL, HubArgs};
use super::{CommandError, fetch_model, stdout};

/// The variable that names the model where nobody does on the command line.
const MODEL_VARIABLE: &str = "FLORENCE2_MODEL";

/// Download and verify a checkpoint
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PullArgs {
    /// Hub repository (owner/name), a folder in the hub's file layout, or `demo`
    #[arg(env = MODEL_VARIABLE, default_value = DEFAULT_MODEL)]
    model: String,

    #[command(flatten)]
    hub: HubArgs,
}

/// Fetches, verifies, prints the table.
pub(super) fn run(args: &PullArgs) -> Result<(), CommandError> {
    let resolved = fetch_model::resolve_and_verify(&args.hub.source(&args.model));
    // What stands on the command line is in sight.
    let from_variable = std::env::var(MODEL_VARIABLE).is_ok_and(|model| model == args.model);
    let origin = from_variable.then_some(MODEL_VARIABLE);
    let (folder, files) = resolved.map_err(|error| CommandError::Failed(error.about(origin)))?;
    let names = files.iter().map(|file| file.name.len()).max().unwrap_or(0);
    let mut text = format!("{:names$}  {:>13}  sha256\n", "file", "bytes");
    for file in &files {
        let line = format!(
            "{:names$}  {:>13}  {}\n",
            file.name, file.bytes, file.sha256
        );
        text.push_str(&line);
    }
    text.push_str(&format!("{}\n", folder.path.display()));
    stdout::write("the table", &text).map_err(|error| match error {
        CommandError::Failed(sentence) => {
            CommandError::Failed(format!("{sentence}; the checkpoint itself is complete"))
        }
        other => other,
    })
}
