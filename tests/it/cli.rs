//! The `run` command as a process of its own: what it writes, and how it ends.
//!
//! The model is one of the tiny random checkpoints of the parity data; its answers mean nothing, but
//! they go all the way through.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use image::RgbImage;

use crate::support::data;

const CHECKPOINT: &str = "parity/01-original-f16";
const SUCCESS: i32 = 0;
const COULD_NOT_RUN: i32 = 1;
const WRONG_USAGE: i32 = 2;

fn run(words: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .arg("run")
        .args(words)
        .arg("--out")
        .arg(out)
        .args(["--offline", "--device", "cpu", "--dtype", "f32", "--model"])
        .arg(data::path(CHECKPOINT))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn picture() -> String {
    let path = data::path(CHECKPOINT).join("picture.png");
    path.to_str().unwrap().to_owned()
}

fn pixels(path: &Path) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word} is missing in: {stderr}");
    }
}

#[test]
fn out_draws_what_was_found_on_a_picture_of_the_same_size() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drawn.png");
    let words = [&picture(), "--task", "object-detection", "--json"];
    let output = run(&words, &out);
    assert_eq!(output.status.code(), Some(SUCCESS), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["results"]["bboxes"].as_array().unwrap().len(), 1);
    let (original, drawn) = (pixels(Path::new(&picture())), pixels(&out));
    assert_eq!(drawn.dimensions(), original.dimensions());
    assert_ne!(drawn, original);
}

#[test]
fn out_writes_the_picture_as_it_is_when_nothing_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drawn.png");
    let output = run(&[&picture(), "--task", "region-proposal"], &out);
    assert_eq!(output.status.code(), Some(SUCCESS), "{output:?}");
    assert_eq!(pixels(&out), pixels(Path::new(&picture())));
}

#[test]
fn out_is_wrong_usage_where_the_answer_is_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drawn.png");
    for words in [["--task", "caption"], ["--prompt", "What is this?"]] {
        let output = run(&[&picture(), words[0], words[1]], &out);
        assert_refused(&output, WRONG_USAGE, &["--out", "dense-region-caption"]);
    }
    assert!(!out.exists());
}

#[test]
fn out_is_wrong_usage_with_several_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drawn.png");
    let output = run(&[&picture(), &picture()], &out);
    assert_refused(&output, WRONG_USAGE, &["--out", "give one"]);
}

#[test]
fn a_drawn_picture_that_cannot_be_written_is_said_after_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("no-such-folder/drawn.png");
    let output = run(&[&picture(), "--task", "object-detection"], &out);
    assert_refused(&output, COULD_NOT_RUN, &["--out", "no-such-folder"]);
    assert!(!output.stdout.is_empty());
}
