//! How `run` shows an answer: a JSON object with everything, or a table for people.

use std::fmt::Write;

use serde::Serialize;

use crate::fal::output::{Bboxes, BoundingBox, Output, Polygon, Polygons, QuadBoxes};
use crate::florence2::prompt::Prompt;
use crate::pipeline::Answered;

/// Longest label that widens the table's first column; longer ones push their own row only.
const LABEL_COLUMN: usize = 48;

/// What is the same for all pictures of one command.
pub(super) struct Header {
    pub(super) model: String,
    pub(super) device: String,
    pub(super) dtype: &'static str,
    pub(super) threads: usize,
    pub(super) num_beams: usize,
    pub(super) prompt: Prompt,
    pub(super) load_ms: f64,
}

/// The answer as one object. The keys and their order are part of the command's contract.
#[derive(Serialize)]
struct Line<'a> {
    image: &'a str,
    width: u32,
    height: u32,
    task: Option<&'static str>,
    model: &'a str,
    device: &'a str,
    dtype: &'static str,
    threads: usize,
    num_beams: usize,
    prompt: &'a str,
    token_ids: &'a [u32],
    text: &'a str,
    results: Results<'a>,
    timings_ms: TimingsMs,
    new_tokens: usize,
}

/// The findings without fal's envelope.
#[derive(Serialize)]
#[serde(untagged)]
enum Results<'a> {
    Text(&'a str),
    Boxes(&'a Bboxes),
    Quads(&'a QuadBoxes),
    Polygons(&'a Polygons),
}

#[derive(Serialize)]
struct TimingsMs {
    load: f64,
    decode_image: f64,
    preprocess: f64,
    vision: f64,
    encoder: f64,
    prefill: f64,
    decode: f64,
    postprocess: f64,
    total: f64,
}

/// One line of JSON with everything about one answer.
///
/// # Errors
/// Never for the shapes that the pipeline makes; the serializer's signature allows it.
pub(super) fn json_line(
    header: &Header,
    image: &str,
    answered: &Answered,
) -> serde_json::Result<String> {
    let t = &answered.timings;
    serde_json::to_string(&Line {
        image,
        width: answered.width,
        height: answered.height,
        task: header.prompt.task.map(|task| task.spec().name),
        model: &header.model,
        device: &header.device,
        dtype: header.dtype,
        threads: header.threads,
        num_beams: header.num_beams,
        prompt: &header.prompt.text,
        token_ids: &answered.token_ids,
        text: &answered.text,
        results: match &answered.output {
            Output::Text(output) => Results::Text(&output.results),
            Output::Boxes(output) => Results::Boxes(&output.results),
            Output::OcrBoxes(output) => Results::Quads(&output.results),
            Output::Polygons(output) => Results::Polygons(&output.results),
        },
        timings_ms: TimingsMs {
            load: tidy(header.load_ms),
            decode_image: tidy(t.picture_ms),
            preprocess: tidy(t.preprocess_ms),
            vision: tidy(t.stages.vision_ms),
            encoder: tidy(t.stages.encoder_ms),
            prefill: tidy(t.stages.prefill_ms),
            decode: tidy(t.stages.decode_ms),
            postprocess: tidy(t.postprocess_ms),
            total: tidy(t.picture_ms + t.preprocess_ms + t.predict_ms + t.postprocess_ms),
        },
        // The decoder start token is not generated.
        new_tokens: answered.token_ids.len().saturating_sub(1),
    })
}

/// Milliseconds to the microsecond.
fn tidy(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

/// A readable answer, headed by the picture's name when there are several.
pub(super) fn table(image: &str, answered: &Answered, is_named: bool) -> String {
    let mut text = if is_named {
        format!("{image}\n")
    } else {
        String::new()
    };
    match &answered.output {
        Output::Text(output) => text.push_str(&output.results),
        Output::Boxes(output) => boxes(&mut text, &output.results.bboxes),
        Output::OcrBoxes(output) => boxes(&mut text, &output.results.quad_boxes),
        Output::Polygons(output) => polygons(&mut text, &output.results.polygons),
    }
    text.truncate(text.trim_end().len());
    text
}

fn boxes(text: &mut String, boxes: &[BoundingBox]) {
    if boxes.is_empty() {
        text.push_str("nothing found");
    }
    let width = boxes
        .iter()
        .map(|b| b.label.chars().count())
        .filter(|w| *w <= LABEL_COLUMN)
        .max()
        .unwrap_or(0);
    for BoundingBox { x, y, w, h, label } in boxes {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{label:width$}  x {x:7.1}  y {y:7.1}  w {w:7.1}  h {h:7.1}"
        );
    }
}

fn polygons(text: &mut String, polygons: &[Polygon]) {
    if polygons.is_empty() {
        text.push_str("nothing found");
    }
    for polygon in polygons {
        let points: Vec<String> = polygon
            .points
            .iter()
            .map(|p| format!("{:.1},{:.1}", p.x, p.y))
            .collect();
        let _ = writeln!(text, "{}  {}", polygon.label, points.join("  "));
    }
}
