//! `bench`: what this box can do, by stage and end to end, for each number of pictures and callers.
//!
//! The model is asked through the same engine as the server's, with a picture that is prepared once:
//! downloads, decoding and HTTP are not in the figures. The table goes to stdout, progress to stderr.

use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, FromArgMatches};
use tracing::Level;

use super::model_args::ModelArgs;
use super::output_file::{self, Output};
use super::value_parsers::whole;
use super::{CommandError, stdout};
use crate::config::LogSettings;
use crate::engine::Engine;
use crate::florence2::config::PublishedSize;
use crate::telemetry::{self, LogFormat};

mod html;
mod machine;
mod measure;
mod nvidia;
mod report;
mod subject;
mod table;

use measure::{Case, Plan};
use report::Report;
use subject::Subject;

/// Most pictures of one call, most callers, and most calls of each.
const MAX_COUNT: u64 = 1024;
/// Most new tokens: the longest table of positions in a published checkpoint.
const MAX_NEW_TOKENS: u64 = 4096;

/// Measure this box: by stage and end to end, by pictures at once and callers
///
/// vision is the tower and the projector, encoder the text encoder, prefill the decoder's
/// cross-attention keys and values with its first step, "per token" every further step with the beam
/// search between, "end to end" one call from prepared pixels to tokens. Stages are those of one
/// picture. The engine answers one picture at a time: with --batch 4 the four pictures of a call wait
/// for each other, as with --concurrency 4 the four callers do, and end to end counts the waiting.
#[derive(Args, Clone, Debug)]
pub(super) struct BenchArgs {
    // Before the model flags: they take their values out of the matches.
    #[command(flatten)]
    typed: TypedModel,

    /// In place of --model: the real architecture of that size, base or large, with random weights in
    /// memory; needs no download
    #[arg(long, value_name = "SIZE", value_parser = size)]
    random: Option<PublishedSize>,

    /// Seed of the random weights and of the random picture
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Pictures that a call submits together; a list makes a case of each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = whole(1, MAX_COUNT))]
    batch: Vec<u64>,

    /// Callers, each with its next call as soon as its last is answered; a list makes a case of each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = whole(1, MAX_COUNT))]
    concurrency: Vec<u64>,

    /// Tokens that every answer has, exactly; --max-new-tokens has no effect here
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole(1, MAX_NEW_TOKENS))]
    new_tokens: u64,

    /// Ask about this picture [default: random pixels; the time does not depend on them]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// Calls of each caller that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole(1, MAX_COUNT))]
    runs: u64,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the figures to this file as a page with bars
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

/// Whether `--model` stands on the command line, rather than in the environment or nowhere: only then
/// does it contradict `--random`.
#[derive(Clone, Copy, Debug, Default)]
struct TypedModel(bool);

impl FromArgMatches for TypedModel {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let source = matches.value_source("model");
        Ok(Self(source == Some(clap::parser::ValueSource::CommandLine)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for TypedModel {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

fn size(name: &str) -> Result<PublishedSize, String> {
    [PublishedSize::Base, PublishedSize::Large]
        .into_iter()
        .find(|size| size.name() == name)
        .ok_or_else(|| "give base or large".to_owned())
}

/// Loads or makes the model, measures every case, and reports.
pub(super) fn run(args: &BenchArgs) -> Result<(), CommandError> {
    telemetry::init(LogFormat::Plain, Level::WARN, LogSettings::default());
    if args.random.is_some() && args.typed.0 {
        return Err(CommandError::Usage(
            "--random stands in place of --model: give one of them".to_owned(),
        ));
    }
    // A bench takes minutes: what cannot be written is said before.
    let image: Vec<&Path> = args.image.iter().map(PathBuf::as_path).collect();
    output_file::check(&args.outputs(), &image)?;
    let report = measured(args)?;
    // One that fails keeps no other from its reader.
    let json = args.json.as_ref().map_or(Ok(()), |file| {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        output_file::write("--json", file, (json + "\n").as_bytes())
    });
    let html = args.html.as_ref().map_or(Ok(()), |file| {
        output_file::write("--html", file, html::page(&report).as_bytes())
    });
    let table = stdout::write("the table", &table::text(&report));
    json.and(html).and(table)
}

impl BenchArgs {
    fn outputs(&self) -> Vec<Output<'_>> {
        let json = self.json.iter().map(|file| ("--json", file));
        let html = self.html.iter().map(|file| ("--html", file));
        let outputs = json.chain(html);
        outputs.map(|(flag, file)| Output { flag, file }).collect()
    }
}

fn measured(args: &BenchArgs) -> Result<Report, CommandError> {
    let index = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let Subject {
        model,
        input,
        about,
    } = Subject::load(args)?;
    let plan = Plan {
        cases: cases(&args.batch, &args.concurrency),
        runs: index(args.runs),
        new_tokens: index(args.new_tokens),
        device: about.device,
    };
    let say = |error: io::Error| format!("cannot start: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(say)?;
    let engine = Engine::start(Box::new(model), plan.most_at_once()).map_err(say)?;
    let measured = runtime.block_on(async {
        let measured = measure::all(&engine, &input, &plan).await;
        engine.close().await;
        measured
    })?;
    Ok(Report::new(&about, plan.new_tokens, measured))
}

/// Every number of pictures with every number of callers, each once, in the order given.
fn cases(batches: &[u64], callers: &[u64]) -> Vec<Case> {
    let index = |value: &u64| usize::try_from(*value).unwrap_or(usize::MAX);
    let mut cases = Vec::new();
    for batch in batches {
        for concurrency in callers {
            let case = Case {
                batch: index(batch),
                concurrency: index(concurrency),
            };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(words: &[&str]) -> Result<BenchArgs, clap::Error> {
        Command::try_parse_from(std::iter::once("x").chain(words.iter().copied()))
            .map(|command| command.bench)
    }

    #[test]
    fn lists_become_cases_each_once() {
        let args = parse(&["--batch", "1,2,2", "--concurrency", "1,4"]).unwrap();
        let pairs: Vec<_> = cases(&args.batch, &args.concurrency)
            .iter()
            .map(|case| (case.batch, case.concurrency))
            .collect();
        assert_eq!(pairs, [(1, 1), (1, 4), (2, 1), (2, 4)]);
    }

    #[test]
    fn only_a_typed_model_contradicts_random() {
        assert!(
            parse(&["--random", "base", "--model", "a/b"])
                .unwrap()
                .typed
                .0
        );
        let args = parse(&["--random", "large"]).unwrap();
        assert!(!args.typed.0);
        assert_eq!(args.random, Some(PublishedSize::Large));
    }

    #[test]
    fn every_range_holds_at_its_limit_and_fails_one_past_it() {
        for (flag, good, bad) in [
            ("--random", vec!["base", "large"], vec!["huge", ""]),
            ("--batch", vec!["1", "1,1024"], vec!["0", "1025", "1,", "a"]),
            ("--concurrency", vec!["1", "4,1"], vec!["0", "1025", "-1"]),
            ("--new-tokens", vec!["1", "4096"], vec!["0", "4097"]),
            ("--runs", vec!["1", "1024"], vec!["0", "1025"]),
        ] {
            for value in good {
                assert!(parse(&[flag, value]).is_ok(), "{flag} {value}");
            }
            for value in bad {
                assert!(parse(&[flag, value]).is_err(), "{flag} {value}");
            }
        }
    }
}
