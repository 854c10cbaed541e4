//! The flags that say which model, where it runs and how it searches; shared by the commands.
//!
//! Ranges are checked here, so that a typing error is a usage error before anything is loaded.
//! What a flag that was not given means is decided by whoever knows the checkpoint.

use clap::Args;

use super::fetch_model::ModelSource;
use super::value_parsers::{boolean, whole};
use crate::engine::device::{DeviceChoice, DtypeChoice};
use crate::florence2::config::{MAX_BEAMS, MAX_LENGTH_PENALTY, MAX_NGRAM};
use crate::florence2::generate::{EarlyStopping, GenerationOptions};
use crate::florence2::kernels::packed::InstructionSet;

/// Most compute threads that may be asked for; more than any machine of today has cores.
const MAX_THREADS: u64 = 1024;
/// Most new tokens: the longest table of positions in a published checkpoint.
const MAX_NEW_TOKENS: u64 = 4096;

/// Which revision of a hub repository, and whether the network may be used.
#[derive(Args, Clone, Debug)]
pub(crate) struct HubArgs {
    /// Branch, tag or commit of the hub repository
    #[arg(long, value_name = "R", default_value = "main")]
    pub(crate) revision: String,

    /// Use folders and the cache only; never contact the hub. TRANSFORMERS_OFFLINE says the same where
    /// HF_HUB_OFFLINE is not set
    #[arg(
        long,
        env = "HF_HUB_OFFLINE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = transformers_offline(),
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = boolean
    )]
    pub(crate) offline: bool,
}

/// Model flags of `serve`, `run`, `bench` and `doctor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// Hub repository (owner/name), a folder in the hub's file layout, or `demo`
    #[arg(long, value_name = "M", env = "FLORENCE2_MODEL", default_value = DEFAULT_MODEL)]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) hub: HubArgs,

    /// Where to compute: auto, cpu, cuda, cuda:N or metal; a card needs a build with `--features cuda` or
    /// `--features metal`
    #[arg(long, value_name = "D", default_value = "auto")]
    pub(crate) device: DeviceChoice,

    /// Number format of the weights and products: auto, f32, f16, bf16 or int8 (CPU only); auto is f32 on the CPU, the
    /// fastest that keeps the reference's tokens, and f16 on an accelerator
    #[arg(long, value_name = "T", default_value = "auto")]
    pub(crate) dtype: DtypeChoice,

    /// Compute threads [default: the processor quota of this process]
    #[arg(long, value_name = "N", value_parser = whole(1, MAX_THREADS))]
    pub(crate) threads: Option<u64>,

    /// Vector instructions of the CPU's kernels, to try on this machine what others have: portable, avx2, avx-vnni,
    /// avx512, avx512-vnni, avx512-bf16, neon or neon-dot [default: the best that this machine has]
    #[arg(
        long,
        value_name = "SET",
        env = "FLORENCE2_INSTRUCTIONS",
        hide_env = true
    )]
    pub(crate) instructions: Option<InstructionSet>,

    /// Beams of the search; 1 is greedy [default: from the checkpoint, else 3]
    #[arg(long, value_name = "N", value_parser = whole(1, MAX_BEAMS.into()))]
    pub(crate) num_beams: Option<u64>,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = whole(1, MAX_NEW_TOKENS))]
    pub(crate) max_new_tokens: u64,

    /// When beam search stops: true, false or never [default: from the checkpoint]
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    pub(crate) early_stopping: Option<EarlyStopping>,

    /// No run of this many tokens occurs twice; 0 allows all [default: from the checkpoint]
    #[arg(long, value_name = "N", value_parser = whole(0, MAX_NGRAM.into()))]
    pub(crate) no_repeat_ngram_size: Option<u64>,

    /// Exponent of the length in a hypothesis' score [default: from the checkpoint]
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = length_penalty)]
    pub(crate) length_penalty: Option<f32>,
}

/// The checkpoint that is used when none is named.
pub(crate) const DEFAULT_MODEL: &str = "microsoft/Florence-2-large";

impl ModelArgs {
    /// The checkpoint's search settings with what these flags say instead.
    pub(crate) fn generation(&self, checkpoint: GenerationOptions) -> GenerationOptions {
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        GenerationOptions {
            num_beams: self.num_beams.map_or(checkpoint.num_beams, size),
            max_new_tokens: size(self.max_new_tokens),
            early_stopping: self.early_stopping.unwrap_or(checkpoint.early_stopping),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .map_or(checkpoint.no_repeat_ngram_size, size),
            length_penalty: self.length_penalty.unwrap_or(checkpoint.length_penalty),
            ..checkpoint
        }
    }

    /// The checkpoint that these flags name.
    pub(crate) fn source(&self) -> ModelSource {
        self.hub.source(&self.model)
    }
}

impl HubArgs {
    /// The checkpoint that `model` names under these flags.
    pub(crate) fn source(&self, model: &str) -> ModelSource {
        ModelSource {
            model: model.to_owned(),
            revision: self.revision.clone(),
            offline: self.offline,
        }
    }
}

/// What the older variable of the same meaning says, as the hub's tools read it.
fn transformers_offline() -> &'static str {
    let is_on = std::env::var("TRANSFORMERS_OFFLINE").is_ok_and(|text| boolean(&text) == Ok(true));
    if is_on { "true" } else { "false" }
}

fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "true" => Ok(EarlyStopping::True),
        "false" => Ok(EarlyStopping::False),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("give true, false or never".to_owned()),
    }
}

fn length_penalty(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|value: &f32| value.is_finite() && value.abs() <= MAX_LENGTH_PENALTY)
        .ok_or_else(|| format!("give a number from -{MAX_LENGTH_PENALTY} to {MAX_LENGTH_PENALTY}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        model: ModelArgs,
        images: Vec<String>,
    }

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        Command::try_parse_from(std::iter::once("x").chain(words.iter().copied()))
    }

    #[test]
    fn offline_as_a_flag_does_not_swallow_the_picture_behind_it() {
        let command = parse(&["--offline", "cat.png"]).unwrap();
        assert!(command.model.hub.offline);
        assert_eq!(command.images, ["cat.png"]);
        assert!(!parse(&["--offline=no"]).unwrap().model.hub.offline);
        assert!(parse(&["--offline=maybe"]).is_err());
    }

    #[test]
    fn every_range_holds_at_its_limit_and_fails_one_past_it() {
        for (flag, good, bad) in [
            ("--threads", vec!["1", "1024"], vec!["0", "1025", "x"]),
            ("--num-beams", vec!["1", "64"], vec!["0", "65", "-1"]),
            ("--max-new-tokens", vec!["1", "4096"], vec!["0", "4097"]),
            ("--no-repeat-ngram-size", vec!["0", "4096"], vec!["4097"]),
            (
                "--length-penalty",
                vec!["-100", "0.5", "100"],
                vec!["100.5", "nan", "inf", ""],
            ),
            (
                "--early-stopping",
                vec!["true", "false", "never"],
                vec!["maybe"],
            ),
            (
                "--device",
                vec!["auto", "cpu", "cuda", "cuda:3", "metal"],
                vec!["gpu", "cuda:", "cuda:-1", "cuda:+1"],
            ),
            ("--instructions", vec!["portable"], vec!["avx3", "", "best"]),
            (
                "--dtype",
                vec!["auto", "f32", "f16", "bf16", "int8"],
                vec!["f64"],
            ),
        ] {
            for value in good {
                assert!(parse(&[flag, value]).is_ok(), "{flag} {value}");
            }
            for value in bad {
                assert!(parse(&[flag, value]).is_err(), "{flag} {value}");
            }
        }
    }

    #[test]
    fn flags_reach_the_source() {
        let command = parse(&["--model", "a/b", "--revision", "r", "--device", "cuda:3"]).unwrap();
        let source = command.model.source();
        assert_eq!(
            (
                source.model.as_str(),
                source.revision.as_str(),
                source.offline
            ),
            ("a/b", "r", false)
        );
        assert_eq!(command.model.device, DeviceChoice::Cuda(3));
    }
}
