//! The bundled checkpoint says what is true of its example pictures: through `run`, over HTTP, and
//! token for token as the reference library does.
//!
//! The truth is that of the scene maker (`models/demo/train/examples.py`), not a recorded answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::child::Child;
use crate::support::pictures::data_uri;
use crate::support::server::{client, send};

/// Overlap from which a box counts as the right one.
const MIN_IOU: f64 = 0.6;
const BOX_TASKS: [&str; 2] = ["dense-region-caption", "object-detection"];

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/examples")
}

/// What is true of each example picture, by file name.
pub(crate) fn truths() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let truths: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(truths.len(), 6);
    truths
}

/// The JSON lines of `run` about these pictures, in f32 with the checkpoint's own three beams.
pub(crate) fn run(pictures: &[PathBuf], flags: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .arg("run")
        .args(pictures)
        .args([
            "--model", "demo", "--device", "cpu", "--dtype", "f32", "--json",
        ])
        .args(flags)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), pictures.len());
    lines
}

/// Intersection over union of fal's `x, y, w, h` and a true corner pair.
fn iou(found: &Value, truth: &Value) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap();
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| number(&found[key]));
    let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|i| number(&truth[i]));
    let across = (x + w).min(x2) - x.max(x1);
    let down = (y + h).min(y2) - y.max(y1);
    let shared = across.max(0.0) * down.max(0.0);
    shared / (w * h + (x2 - x1) * (y2 - y1) - shared)
}

/// Every true box was found under its label, and nothing else was.
#[track_caller]
pub(crate) fn assert_boxes(results: &Value, truth: &Value, of: &str) {
    let (found, truth) = (
        results["bboxes"].as_array().unwrap(),
        truth.as_array().unwrap(),
    );
    assert_eq!(found.len(), truth.len(), "{of}: {results}");
    for thing in truth {
        let best = found
            .iter()
            .filter(|found| found["label"] == thing["label"])
            .map(|found| iou(found, &thing["box"]))
            .fold(0.0, f64::max);
        assert!(best >= MIN_IOU, "{of}: {thing} is not in {results}");
    }
}

/// One question: the task, its input as fal takes it and as `run` takes it, and the truth.
struct Question {
    task: &'static str,
    input: Value,
    flags: Vec<String>,
    truth: Value,
}

/// Every question that an example picture has an answer to.
fn questions(truth: &Value) -> Vec<Question> {
    let mut questions: Vec<Question> = BOX_TASKS
        .into_iter()
        .chain(["caption"])
        .map(|task| (task, &truth[task]))
        .chain([("ocr", &truth["ocr"]["text"])])
        .map(|(task, truth)| Question {
            task,
            input: json!({}),
            flags: Vec::new(),
            truth: truth.clone(),
        })
        .collect();
    let grounding = &truth["caption-to-phrase-grounding"];
    let text = grounding["text"].as_str().unwrap();
    questions.push(Question {
        task: "caption-to-phrase-grounding",
        input: json!({ "text_input": text }),
        flags: vec!["--text".into(), text.into()],
        truth: grounding["boxes"].clone(),
    });
    let category = &truth["region-to-category"];
    let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|i| category["region"][i].as_u64().unwrap());
    questions.push(Question {
        task: "region-to-category",
        input: json!({ "region": { "x1": x1, "y1": y1, "x2": x2, "y2": y2 } }),
        flags: vec!["--region".into(), format!("{x1},{y1},{x2},{y2}")],
        truth: category["text"].clone(),
    });
    questions
}

#[track_caller]
fn assert_true(question: &Question, results: &Value, picture: &str) {
    let of = format!("{picture}, {}", question.task);
    if question.truth.is_string() {
        assert_eq!(results, &question.truth, "{of}");
    } else {
        assert_boxes(results, &question.truth, &of);
    }
}

#[test]
fn the_command_tells_the_truth_about_every_example_in_the_references_tokens() {
    for (picture, truth) in truths() {
        for question in questions(&truth) {
            let flags: Vec<&str> = ["--task", question.task]
                .into_iter()
                .chain(question.flags.iter().map(String::as_str))
                .collect();
            let line = run(&[folder().join(&picture)], &flags).remove(0);
            assert_eq!(
                (&line["width"], &line["height"]),
                (&truth["width"], &truth["height"])
            );
            assert_true(&question, &line["results"], &picture);
            let reference = &truth["token_ids"][question.task];
            assert_eq!(
                &line["token_ids"], reference,
                "{picture}, {}",
                question.task
            );
        }
    }
}

#[test]
fn without_a_task_every_example_is_described_in_one_call() {
    let truths = truths();
    let pictures: Vec<PathBuf> = truths.keys().map(|name| folder().join(name)).collect();
    for (line, (picture, truth)) in run(&pictures, &[]).iter().zip(&truths) {
        assert_boxes(&line["results"], &truth["dense-region-caption"], picture);
        let total = line["timings_ms"]["total"].as_f64().unwrap();
        println!("{picture}: {total:.0} ms in all");
    }
}

#[tokio::test]
async fn the_server_tells_the_truth_about_every_example() {
    let child = Child::serve(&["--model", "demo"]).await;
    for (picture, truth) in truths() {
        let image = data_uri(&std::fs::read(folder().join(&picture)).unwrap());
        for question in questions(&truth) {
            let mut body = question.input.clone();
            body["image_url"] = json!(image);
            let answer = send(client().post(child.url(question.task)).json(&body)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_true(&question, &answer.json()["results"], &picture);
        }
    }
    child.stop("-TERM").await;
}
