//! How `run` shows an answer: a JSON object with everything, or a table for people.

use std::fmt::Write;

use serde::Serialize;

use crate::fal::output::{Bboxes, Output, Polygon, Polygons, QuadBoxes};
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
        Output::Boxes(output) => {
            let found = output.results.bboxes.iter();
            boxes(
                &mut text,
                found.map(|b| row(&b.label, [b.x, b.y, b.w, b.h], b.score)),
            );
        }
        Output::OcrBoxes(output) => {
            let found = output.results.quad_boxes.iter();
            boxes(
                &mut text,
                found.map(|b| row(&b.label, [b.x, b.y, b.w, b.h], b.score)),
            );
        }
        Output::Polygons(output) => polygons(&mut text, &output.results.polygons),
    }
    text.truncate(text.trim_end().len());
    text
}

/// One upright box of the table.
struct Row<'a> {
    label: &'a str,
    corner_and_size: [f32; 4],
    score: Option<f32>,
}

fn row(label: &str, corner_and_size: [f32; 4], score: Option<f32>) -> Row<'_> {
    Row {
        label,
        corner_and_size,
        score,
    }
}

fn boxes<'a>(text: &mut String, rows: impl Iterator<Item = Row<'a>> + Clone) {
    let width = rows
        .clone()
        .map(|row| row.label.chars().count())
        .filter(|width| *width <= LABEL_COLUMN)
        .max()
        .unwrap_or(0);
    let before = text.len();
    for row in rows {
        let Row { label, score, .. } = row;
        let [x, y, w, h] = row.corner_and_size;
        let score = score_column(score);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{label:width$}  x {x:7.1}  y {y:7.1}  w {w:7.1}  h {h:7.1}{score}"
        );
    }
    if text.len() == before {
        text.push_str("nothing found");
    }
}

/// The last column, for whoever asked for it.
fn score_column(score: Option<f32>) -> String {
    score.map_or_else(String::new, |score| format!("  score {score:.3}"))
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
        let score = score_column(polygon.score);
        let _ = writeln!(text, "{}  {}{score}", polygon.label, points.join("  "));
    }
}
