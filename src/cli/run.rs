//! `run`: pictures from the shell through the same pipeline as the server, without HTTP.
//!
//! Answers go to stdout, as a table for people or as one JSON object a line; everything else goes to
//! stderr. The first picture that fails ends the command.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use tracing::Level;
use url::{Host, Url};

use super::CommandError;
use super::load_model::{LoadedCheckpoint, load_model};
use super::model_args::ModelArgs;
use crate::config::{DecodeSettings, FetchSettings, LogSettings};
use crate::engine::Engine;
use crate::engine::predict::Predict;
use crate::engine::stages::DumpStages;
use crate::florence2::prompt::{self, Prompt};
use crate::florence2::task::{AnswerKind, Task};
use crate::image_io::PictureLoader;
use crate::pipeline::{Answered, Pipeline, annotate};
use crate::telemetry::{self, LogFormat};

mod report;

/// Places in the model's line: pictures are asked one after the other.
const LINE_LENGTH: usize = 1;
/// Pace of the spinner shown while the model looks at a picture.
const SPINNER_TICK: Duration = Duration::from_millis(100);
/// Highest coordinate of a region; the model's grid has 1000 steps.
const GRID_END: u16 = 999;

/// Answer a task about one or more pictures
#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    /// Picture files or http(s) URLs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// One of caption, detailed-caption, more-detailed-caption, object-detection,
    /// dense-region-caption, region-proposal, ocr, ocr-with-region, caption-to-phrase-grounding,
    /// open-vocabulary-detection, referring-expression-segmentation, region-to-segmentation,
    /// region-to-category, region-to-description
    #[arg(long, value_name = "TASK", default_value = "dense-region-caption", value_parser = task)]
    task: Task,

    /// Text for the tasks that take one (grounding, open vocabulary, referring expression)
    #[arg(long, value_name = "T")]
    text: Option<String>,

    /// Region for the region tasks: four whole numbers from 0 to 999, on a grid that spans the picture
    #[arg(long, value_name = "X1,Y1,X2,Y2", value_parser = region)]
    region: Option<[u16; 4]>,

    /// In place of --task: the text as one would hand it to the reference's processor; a task token
    /// such as <OD> is expanded, any other text goes in as it is
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["task", "text", "region"])]
    prompt: Option<String>,

    /// Say how likely the model held each finding: from 0 to 1, over the tokens of its label and its
    /// place; no calibrated confidence
    #[arg(long)]
    scores: bool,

    /// Draw the found places on the picture and write it to this PNG file; for one picture
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Write the model's intermediate tensors to this safetensors file; for one picture
    #[arg(long, value_name = "FILE")]
    dump_stages: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,
}

fn task(name: &str) -> Result<Task, String> {
    let is_endpoint = |task: &Task| Task::endpoints().any(|known| known == *task);
    Task::from_name(name).filter(is_endpoint).ok_or_else(|| {
        let names: Vec<&str> = Task::endpoints().map(|task| task.spec().name).collect();
        format!("give one of {}", names.join(", "))
    })
}

fn region(text: &str) -> Result<[u16; 4], String> {
    let bins: Option<Vec<u16>> = text
        .split(',')
        .map(|bin| bin.trim().parse().ok().filter(|bin| *bin <= GRID_END))
        .collect();
    bins.and_then(|bins| bins.try_into().ok())
        .ok_or_else(|| format!("give four whole numbers from 0 to {GRID_END}: X1,Y1,X2,Y2"))
}

/// Loads the model and answers every picture in turn.
pub(super) fn run(args: &RunArgs) -> Result<(), CommandError> {
    telemetry::init(LogFormat::Plain, Level::WARN, LogSettings::default());
    let prompt = match &args.prompt {
        Some(text) => prompt::expand(text),
        None => prompt::for_task(args.task, args.text.as_deref(), args.region),
    }
    .map_err(|error| CommandError::Usage(error.to_string()))?;
    check(args, &prompt).map_err(CommandError::Usage)?;
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
    let checkpoint = load_model(&args.model).map_err(|error| failed(&error))?;
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
    let model: Box<dyn Predict> = match &args.dump_stages {
        Some(file) => Box::new(DumpStages {
            model,
            file: file.clone(),
        }),
        None => Box::new(model),
    };
    let pictures = PictureLoader::new(&fetch_settings(&args.images), DecodeSettings::default());
    let pictures = pictures.map_err(|error| failed(&error))?;
    let engine = Engine::start(model, LINE_LENGTH).map_err(|error| failed(&error))?;
    let pipeline = Pipeline::new(pictures, std::sync::Arc::new(processor), engine, options);
    let mut result = Ok(());
    for image in &args.images {
        result = answer_one(&pipeline, args, &header, image).await;
        if result.is_err() {
            break;
        }
    }
    pipeline.close().await;
    result
}

async fn answer_one(
    pipeline: &Pipeline,
    args: &RunArgs,
    header: &report::Header,
    image: &str,
) -> Result<(), CommandError> {
    let spinner = ProgressBar::new_spinner().with_message(format!("looking at {image}"));
    spinner.enable_steady_tick(SPINNER_TICK);
    let asked = ask(pipeline, args, &header.prompt, image).await;
    spinner.finish_and_clear();
    let (answered, pixels) =
        asked.map_err(|error| CommandError::Failed(format!("{image}: {error}")))?;
    print(args, header, image, &answered)?;
    match (&args.out, pixels) {
        (Some(file), Some(mut pixels)) => write_drawn(file, &mut pixels, &answered),
        _ => Ok(()),
    }
}

/// The answer about a picture, and its pixels if they are to be drawn on.
async fn ask(
    pipeline: &Pipeline,
    args: &RunArgs,
    prompt: &Prompt,
    image: &str,
) -> Result<(Answered, Option<RgbImage>), String> {
    let begun = Instant::now();
    let picture = if is_url(image) {
        pipeline
            .load(image)
            .await
            .map_err(|error| error.to_string())?
    } else {
        let bytes = tokio::fs::read(image)
            .await
            .map_err(|error| format!("cannot read the file: {error}"))?;
        pipeline
            .decode(bytes)
            .await
            .map_err(|error| error.to_string())?
    };
    let picture_ms = begun.elapsed().as_secs_f64() * 1e3;
    // The pipeline frees the picture before the model begins.
    let pixels = args.out.is_some().then(|| picture.pixels().clone());
    let mut answered = pipeline
        .answer(picture, prompt, args.scores, None)
        .await
        .map_err(|error| error.to_string())?;
    answered.timings.picture_ms = picture_ms;
    Ok((answered, pixels))
}

fn write_drawn(
    file: &Path,
    pixels: &mut RgbImage,
    answered: &Answered,
) -> Result<(), CommandError> {
    let drawn = annotate::png(pixels, &answered.answer)
        .map_err(|error| CommandError::Failed(format!("--out: {error}")))?;
    std::fs::write(file, drawn).map_err(|error| {
        let file = file.display();
        CommandError::Failed(format!("--out: cannot write {file}: {error}"))
    })
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
        report::table(image, answered, args.images.len() > 1)
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| {
            CommandError::Failed(format!("cannot write the answer to stdout: {error}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_four_steps_of_the_grid() {
        assert_eq!(region("52, 332,932,999").unwrap(), [52, 332, 932, 999]);
        for text in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,3,1000",
            "-1,2,3,4",
            "1.5,2,3,4",
            "a,b,c,d",
        ] {
            assert!(region(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_endpoint_names_are_tasks() {
        assert_eq!(task("object-detection").unwrap(), Task::ObjectDetection);
        assert!(task("region-to-ocr").is_err() && task("<OD>").is_err());
    }

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
