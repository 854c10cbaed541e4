//! From the model flags to a model in memory: resolve the checkpoint, open the device, load the
//! processor and the weights. One place for all commands, so that they cannot differ.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fetch_model::{self, CheckpointFolder};
use super::message::printable;
use super::model_args::ModelArgs;
use super::terminal;
use crate::engine::device::{DeviceChoice, DtypeChoice, Placement, use_instructions, use_threads};
use crate::florence2::Florence2;
use crate::florence2::config::Florence2Config;
use crate::florence2::kernels::packed::InstructionSet;
use crate::florence2::processor::Processor;
use crate::pipeline::AskOptions;

/// Pace of the spinner shown while weights are read.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// A checkpoint in memory, ready to be asked.
pub(super) struct LoadedCheckpoint {
    pub(super) model: Florence2,
    pub(super) processor: Processor,
    pub(super) options: AskOptions,
    /// What `auto` came to.
    pub(super) device: DeviceChoice,
    /// The number format of the weights in memory.
    pub(super) dtype: &'static str,
    /// The vector instructions of the CPU's kernels, where these compute.
    pub(super) instructions: Option<InstructionSet>,
    /// Threads of the compute pool.
    pub(super) threads: usize,
    /// Time to read and place the weights, the download not counted.
    pub(super) load_ms: f64,
}

/// Loads the checkpoint that the flags name. The error is one sentence that says what to do.
pub(super) fn load_model(args: &ModelArgs) -> Result<LoadedCheckpoint, String> {
    load_from(&find_model(args)?, args)
}

/// Finds the checkpoint that the flags name, fetching what is missing.
pub(super) fn find_model(args: &ModelArgs) -> Result<CheckpointFolder, String> {
    fetch_model::resolve(&args.source()).map_err(|error| error.about(Some("--model")))
}

/// Loads the checkpoint that [`find_model`] found for the same flags.
pub(super) fn load_from(
    folder: &CheckpointFolder,
    args: &ModelArgs,
) -> Result<LoadedCheckpoint, String> {
    let threads = use_threads(
        args.threads
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    );
    use_instructions(args.instructions);
    let placement = Placement::open(args.device, args.dtype).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let spinner = terminal::spinner(format!("loading {}", printable(&args.model)));
    spinner.enable_steady_tick(SPINNER_TICK);
    let loaded = read(&folder.path, &placement, args);
    let quantised = loaded.as_ref().ok().and_then(|loaded| loaded.0.quantised());
    let described = placement.describe(quantised);
    // Which dtype `auto` came to, and why, where somebody looks.
    let dtype = match args.dtype {
        DtypeChoice::Auto if placement.device() == DeviceChoice::Cpu => {
            format!("{described} (auto: the fastest that keeps the reference's tokens)")
        }
        _ => described,
    };
    spinner.println(format!("computing in {dtype}"));
    spinner.finish_and_clear();
    let (model, processor, options) = loaded?;
    if let Some(quantised) = model.quantised() {
        tracing::debug!(layers = ?quantised.kept_in_bf16, "kept in bf16");
    }
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    tracing::info!(model = args.model, device = %placement.device(), computing = dtype, threads, load_ms, "model loaded");
    Ok(LoadedCheckpoint {
        model,
        processor,
        options,
        device: placement.device(),
        dtype: placement.dtype(),
        instructions: placement.instructions(),
        threads,
        load_ms,
    })
}

fn read(
    folder: &Path,
    placement: &Placement,
    args: &ModelArgs,
) -> Result<(Florence2, Processor, AskOptions), String> {
    let say =
        |error: &dyn std::fmt::Display| format!("--model: cannot load {}: {error}", args.model);
    let rows = Florence2Config::load(folder)
        .map_err(|error| say(&error))?
        .text
        .vocab_size;
    let processor = Processor::load_for(folder, rows).map_err(|error| say(&error))?;
    let words: Vec<&str> = processor.tokenizer().words_without_rows().collect();
    if let Some(first) = words.first() {
        tracing::warn!(
            words = words.len(),
            first,
            "the tokenizer has added tokens for which the weights have no row; they are read as ordinary text"
        );
    }
    let model = placement.load(folder).map_err(|error| say(&error))?;
    let image_tokens = model
        .image_tokens(processor.side())
        .map_err(|error| say(&error))?;
    let options = AskOptions {
        generation: args.generation(model.config().generation),
        max_text_tokens: model.config().text.max_position_embeddings - image_tokens,
    };
    Ok((model, processor, options))
}
