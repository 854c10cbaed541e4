//! `run`: pictures from the shell through the same pipeline as the server, without HTTP.
//!
//! Answers go to stdout, as a table for people or as one JSON object a line; everything else goes to
//! stderr. A picture that fails is said there, and the others are answered all the same.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use image::RgbImage;
use indicatif::ProgressBar;
use tracing::Level;
use url::{Host, Url};

use super::load_model::{LoadedCheckpoint, find_model, load_from};
use super::message::{self, printable};
use super::model_args::ModelArgs;
use super::output_file::{self, Output};
use super::{CommandError, picture_error, stdout};
use crate::config::{DecodeSettings, FetchSettings, LogSettings};
use crate::engine::Engine;
use crate::engine::predict::Predict;
use crate::engine::stages::{DumpStages, Stages};
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::{AnswerKind, Task};
use crate::image_io::PictureLoader;
use crate::pipeline::{Answered, Pipeline, PipelineError, annotate};
use crate::telemetry::{self, LogFormat};

mod report;
mod values;

use values::{OutFile, help, region, task};

/// Places in the model's line: pictures are asked one after the other.
const LINE_LENGTH: usize = 1;
/// Pace of the spinner shown while the model looks at a picture.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// Answer a task about one or more pictures
#[derive(Args, Clone, Debug)]
#[command(after_help = help())]
pub(super) struct RunArgs {
    /// Picture files or http(s) URLs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// What to ask
    #[arg(long, value_name = "TASK", default_value = "dense-region-caption", value_parser = task())]
    task: Task,

    /// Text for the tasks that take one (grounding, open vocabulary, referring expression)
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    text: Option<String>,

    /// Region for the region tasks: left, upper, right and lower edge as whole numbers from 0 to 999, in
    /// thousandths of the picture's width and height and not in pixels; 0,0,999,999 is all of it
    #[arg(long, value_name = "X1,Y1,X2,Y2", allow_hyphen_values = true, value_parser = region)]
    region: Option<[u16; 4]>,

    /// In place of --task: the text as one would hand it to the reference's processor; a task token
    /// such as <OD> is expanded, any other text goes in as it is
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["task", "text", "region"])]
    prompt: Option<String>,

    /// Say how likely the model held each finding: from 0 to 1, over the tokens of its label and its
    /// place; no calibrated confidence
    #[arg(long)]
    scores: bool,

    /// Draw the found places on the picture and write it to this file, in the format of its ending: .png,
    /// .jpg, .jpeg or .webp; PNG without one. A file that is there is replaced. For one picture
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(OutFile::named))]
    out: Option<OutFile>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Write the model's intermediate tensors to this safetensors file; for one picture
    #[arg(long, value_name = "FILE")]
    dump_stages: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

/// Loads the model and answers every picture in turn.
pub(super) fn run(args: &RunArgs) -> Result<(), CommandError> {
    telemetry::init(LogFormat::Plain, Level::WARN, LogSettings::default());
    let prompt = match &args.prompt {
        Some(text) => prompt::expand(text),
        None => prompt::for_task(args.task, args.text.as_deref(), args.region),
    }
    .map_err(|error| CommandError::Usage(values::sentence(&error)))?;
    check(args, &prompt).map_err(CommandError::Usage)?;
    check_files(args)?;
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
    let folder = find_model(&args.model)?;
    output_file::check_model(&outputs(args), &folder)?;
    let checkpoint = load_from(&folder, &args.model)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    runtime.block_on(answer_all(args, &prompt, checkpoint))
}

/// What the grammar cannot say about flags that go together.
fn check(args: &RunArgs, prompt: &Prompt) -> Result<(), String> {
    let is_one = args.images.len() == 1;
    if args.dump_stages.is_some() && !is_one {
        return Err("--dump-stages takes exactly one picture".to_owned());
    }
    if args.out.is_some() && !is_one {
        return Err("--out takes exactly one picture: give one, or run once for each".to_owned());
    }
    if args.out.is_some() && prompt.answer == AnswerKind::PureText {
        return Err(
            "--out needs a task that finds places, such as dense-region-caption; this one answers \
             with a text"
                .to_owned(),
        );
    }
    Ok(())
}

/// What is written at the end can be written, and over no picture that is read.
fn check_files(args: &RunArgs) -> Result<(), CommandError> {
    let pictures = args.images.iter().filter(|image| !is_url(image));
    let pictures: Vec<&Path> = pictures.map(Path::new).collect();
    output_file::check(&outputs(args), &pictures)
}

fn outputs(args: &RunArgs) -> Vec<Output<'_>> {
    let out = args.out.iter().map(|out| ("--out", &out.path));
    let stages = args.dump_stages.iter().map(|file| ("--dump-stages", file));
    let outputs = out.chain(stages);
    outputs.map(|(flag, file)| Output { flag, file }).collect()
}

async fn answer_all(
    args: &RunArgs,
    prompt: &Prompt,
    checkpoint: LoadedCheckpoint,
) -> Result<(), CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
    let LoadedCheckpoint {
        model,
        processor,
        options,
        device,
        dtype,
        instructions: _,
        threads,
        load_ms,
    } = checkpoint;
    let header = report::Header {
        model: args.model.model.clone(),
        device: device.to_string(),
        dtype,
        threads,
        num_beams: options.generation.num_beams,
        prompt: prompt.clone(),
        load_ms,
    };
    let stages = Stages::default();
    let model: Box<dyn Predict> = if args.dump_stages.is_some() {
        let stages = stages.clone();
        Box::new(DumpStages { model, stages })
    } else {
        Box::new(model)
    };
    let pictures = PictureLoader::new(&fetch_settings(&args.images), DecodeSettings::default());
    let pictures = pictures.map_err(|error| failed(&error))?;
    let engine = Engine::start(model, LINE_LENGTH).map_err(|error| failed(&error))?;
    let pipeline = Pipeline::new(pictures, std::sync::Arc::new(processor), engine, options);
    let result = answer_each(&pipeline, args, &header, &stages).await;
    pipeline.close().await;
    result
}

/// Why there is no answer about a picture.
enum Fault {
    /// It concerns this one alone.
    Picture(String),
    /// No further picture can be answered either.
    All(CommandError),
}

async fn answer_each(
    pipeline: &Pipeline,
    args: &RunArgs,
    header: &report::Header,
    stages: &Stages,
) -> Result<(), CommandError> {
    let (mut failed, all) = (0_usize, args.images.len());
    for image in &args.images {
        match answer_one(pipeline, args, header, image, stages).await {
            Ok(()) => {}
            Err(Fault::Picture(sentence)) if all > 1 && pipeline.is_open() => {
                failed += 1;
                message::error(&sentence);
            }
            Err(Fault::Picture(sentence)) => return Err(CommandError::Failed(sentence)),
            Err(Fault::All(CommandError::BrokenPipe)) if failed > 0 => break,
            Err(Fault::All(error)) => return Err(error),
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(CommandError::Failed(format!(
            "{failed} of {all} pictures were not answered"
        ))),
    }
}

async fn answer_one(
    pipeline: &Pipeline,
    args: &RunArgs,
    header: &report::Header,
    image: &str,
    stages: &Stages,
) -> Result<(), Fault> {
    let spinner =
        ProgressBar::new_spinner().with_message(format!("looking at {}", printable(image)));
    spinner.enable_steady_tick(SPINNER_TICK);
    let asked = ask(pipeline, args, &header.prompt, image).await;
    spinner.finish_and_clear();
    let (answered, pixels) = asked.map_err(|error| Fault::Picture(format!("{image}: {error}")))?;
    let drawn = match (&args.out, pixels) {
        (Some(out), Some(mut pixels)) => write_drawn(out, &mut pixels, &answered),
        _ => Ok(()),
    };
    let dumped = match &args.dump_stages {
        Some(file) => output_file::write("--dump-stages", file, &stages.take()),
        None => Ok(()),
    };
    // A file that failed keeps no answer from its reader, and a reader who left no file.
    let printed = print(args, header, image, &answered);
    drawn.and(dumped).and(printed).map_err(Fault::All)
}

/// The answer about a picture, and its pixels if they are to be drawn on.
async fn ask(
    pipeline: &Pipeline,
    args: &RunArgs,
    prompt: &Prompt,
    image: &str,
) -> Result<(Answered, Option<RgbImage>), String> {
    let begun = Instant::now();
    let loaded = if is_url(image) {
        pipeline.load(image).await
    } else {
        pipeline.decode(read(image).await?).await
    };
    let picture = loaded.map_err(|error| sentence(&error))?;
    let picture_ms = begun.elapsed().as_secs_f64() * 1e3;
    // The pipeline frees the picture before the model begins.
    let pixels = args.out.is_some().then(|| picture.pixels().clone());
    let mut answered = pipeline
        .answer(picture, prompt, args.scores, None)
        .await
        .map_err(|error| sentence(&error))?;
    answered.timings.picture_ms = picture_ms;
    Ok((answered, pixels))
}

async fn read(image: &str) -> Result<Vec<u8>, String> {
    if Path::new(image).is_dir() {
        return Err("this is a folder; name the pictures in it".to_owned());
    }
    let read = tokio::fs::read(image).await;
    read.map_err(|error| format!("cannot read the file: {error}"))
}

fn sentence(error: &PipelineError) -> String {
    match error {
        PipelineError::Picture(error) => picture_error::sentence(error),
        other => other.to_string(),
    }
}

fn write_drawn(
    out: &OutFile,
    pixels: &mut RgbImage,
    answered: &Answered,
) -> Result<(), CommandError> {
    let drawn = annotate::file(pixels, &answered.answer, out.format)
        .map_err(|error| CommandError::Failed(format!("--out: {error}")))?;
    output_file::write("--out", &out.path, &drawn)
}

fn is_url(image: &str) -> bool {
    ["http://", "https://", "data:"]
        .iter()
        .any(|scheme| image.starts_with(scheme))
}

/// Whoever types a URL wants it fetched: the hosts of the given URLs may be contacted, and whatever
/// public host they redirect to.
fn fetch_settings(images: &[String]) -> FetchSettings {
    let hosts = images
        .iter()
        .filter(|image| is_url(image))
        .filter_map(|image| {
            let url = Url::parse(image).ok()?;
            Some(match (url.host()?, url.port()) {
                (Host::Domain(name), Some(port)) => format!("{name}:{port}"),
                (Host::Domain(name), None) => name.to_owned(),
                (Host::Ipv4(address), _) => address.to_string(),
                (Host::Ipv6(address), _) => address.to_string(),
            })
        });
    let allowed_sources = hosts.chain(std::iter::once("public".to_owned())).collect();
    FetchSettings {
        allowed_sources,
        ..FetchSettings::default()
    }
}

fn print(
    args: &RunArgs,
    header: &report::Header,
    image: &str,
    answered: &Answered,
) -> Result<(), CommandError> {
    let text = if args.json {
        report::json_line(header, image, answered)
            .map_err(|error| CommandError::Failed(error.to_string()))?
    } else {
        printable(&report::table(image, answered, args.images.len() > 1))
    };
    stdout::write("the answer", &format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_url_permits_its_own_host_and_no_other() {
        let images = [
            "cat.png",
            "https://pictures.example.com/a.png?b",
            "http://[::1]:8/x",
            "http://localhost:8000/x",
        ]
        .map(str::to_owned);
        assert_eq!(
            fetch_settings(&images).allowed_sources,
            ["pictures.example.com", "::1", "localhost:8000", "public"]
        );
    }
}
