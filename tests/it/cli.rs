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

/// What a command says that must not get as far as the model: there is none.
fn run_without_model(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .args(["run", "--offline", "--model", "/no/such/model"])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn out_that_cannot_be_written_is_said_before_the_model_runs() {
    let folder = tempfile::tempdir().unwrap();
    let picture = picture();
    for (flag, file, words) in [
        ("--out", "no-such-folder/drawn.png", "no-such-folder"),
        ("--out", ".", "directory"),
        ("--dump-stages", "no-such-folder/stages", "no-such-folder"),
    ] {
        let file = folder.path().join(file);
        let output = run_without_model(&[&picture, flag, file.to_str().unwrap()]);
        assert_refused(&output, COULD_NOT_RUN, &[flag, words]);
        assert!(output.stdout.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn out_over_its_own_input_is_wrong_usage_and_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.png");
    std::fs::copy(picture(), &input).unwrap();
    let before = std::fs::read(&input).unwrap();
    let name = input.to_str().unwrap();
    for flag in ["--out", "--dump-stages"] {
        let output = run_without_model(&[name, flag, name]);
        assert_refused(&output, WRONG_USAGE, &[flag, "is read"]);
    }
    assert_eq!(std::fs::read(&input).unwrap(), before);
}

#[test]
fn outputs_that_name_one_file_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let (out, again) = (folder.path().join("b"), folder.path().join("./b"));
    let (out, again) = (out.to_str().unwrap(), again.to_str().unwrap());
    let output = run_without_model(&[&picture(), "--out", out, "--dump-stages", again]);
    let words = ["--out and --dump-stages name one file"];
    assert_refused(&output, WRONG_USAGE, &words);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_is_printed_though_out_cannot_be_written() {
    let words = [&picture(), "--task", "object-detection", "--json"];
    let output = run(&words, Path::new("/dev/full"));
    assert_refused(&output, COULD_NOT_RUN, &["--out", "/dev/full"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["results"]["bboxes"].as_array().unwrap().len(), 1);
}

#[test]
fn out_writes_the_format_of_its_ending() {
    use image::ImageFormat::{Jpeg, Png, WebP};
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("a.png", Png),
        ("a.jpg", Jpeg),
        ("a.webp", WebP),
        ("a", Png),
    ] {
        let out = folder.path().join(name);
        let output = run(&[&picture(), "--task", "object-detection"], &out);
        assert_eq!(output.status.code(), Some(SUCCESS), "{output:?}");
        let written = std::fs::read(&out).unwrap();
        assert_eq!(image::guess_format(&written).unwrap(), format, "{name}");
    }
    let output = run_without_model(&[&picture(), "--out", "a.tiff"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(WRONG_USAGE));
    assert!(
        stderr.contains("--out") && stderr.contains(".webp"),
        "{stderr}"
    );
}

/// A command on the tiny checkpoint, with more pictures than one.
fn caption(pictures: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
    command
        .env_clear()
        .arg("run")
        .args(pictures)
        .args([
            "--task",
            "caption",
            "--json",
            "--offline",
            "--device",
            "cpu",
            "--model",
        ])
        .arg(data::path(CHECKPOINT))
        .stdin(Stdio::null());
    command
}

#[test]
fn pictures_behind_a_bad_one_are_answered_and_the_end_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let (page, picture) = (folder.path().join("page.png"), picture());
    std::fs::write(&page, "<html>403</html>").unwrap();
    let pictures = [&picture, page.to_str().unwrap(), "no-such.png", &picture];
    let output = caption(&pictures).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(COULD_NOT_RUN), "{stderr}");
    let answers = String::from_utf8_lossy(&output.stdout);
    assert_eq!(answers.lines().count(), 2, "{answers}");
    let [page, missing, all] = stderr.lines().collect::<Vec<_>>()[..] else {
        panic!("{stderr}");
    };
    assert!(
        page.contains("page.png") && page.contains(".jpg, .jpeg, .png"),
        "{page}"
    );
    assert!(
        missing.contains("no-such.png: cannot read the file"),
        "{missing}"
    );
    assert_eq!(all, "error: 2 of 4 pictures were not answered");
}

#[test]
fn a_reader_of_stdout_who_leaves_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.png", "a.safetensors", "a.json", "a.html"].map(|it| folder.path().join(it));
    let [out, stages, json, html] = &files;
    let bench = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        let model = data::path(CHECKPOINT);
        command
            .env_clear()
            .args(["bench", "--runs", "1", "--new-tokens", "1", "--offline"]);
        command.arg("--json").arg(json).arg("--html").arg(html);
        command.arg("--model").arg(model).stdin(Stdio::null());
        command
    };
    let drawing = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        let words = ["--task", "object-detection", "--offline", "--device", "cpu"];
        command.env_clear().arg("run").arg(picture()).args(words);
        command.arg("--out").arg(out);
        command.arg("--dump-stages").arg(stages);
        command.arg("--model").arg(data::path(CHECKPOINT));
        command.stdin(Stdio::null());
        command
    };
    let pull = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command
            .env_clear()
            .args(["pull", "--offline"])
            .arg(data::path(CHECKPOINT));
        command
    };
    let help = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_florence2-server"));
        command.args(["serve", "--help"]);
        command
    };
    let picture = picture();
    let caption = caption(&[&picture, &picture]);
    for mut command in [caption, drawing, bench, pull, help] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(SUCCESS), "{command:?}: {stderr}");
        assert!(!stderr.contains("error"), "{command:?}: {stderr}");
    }
    // Nobody read the answers, and the files are there all the same.
    for file in &files {
        let bytes = std::fs::metadata(file).map_or(0, |it| it.len());
        assert!(bytes > 0, "{}", file.display());
    }
    assert_ne!(pixels(out), pixels(Path::new(&picture)));
}

#[cfg(unix)]
#[test]
fn the_name_of_a_picture_does_nothing_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (good, missing) = (at("\x1b[31mred\x07.png"), at("\x1b[2Jgone\u{9b}1m.png"));
    std::fs::copy(picture(), &good).unwrap();
    let model = data::path(CHECKPOINT);
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .env_clear()
        .args(["run", &good, &missing, "--task", "caption"])
        .args(["--offline", "--device", "cpu", "--model"])
        .arg(&model)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(COULD_NOT_RUN), "{output:?}");
    for (text, shown) in [
        (output.stdout, "/[31mred.png"),
        (output.stderr, "/[2Jgone1m.png: cannot read the file"),
    ] {
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(shown), "{text:?}");
        let mut lines = text.lines();
        assert!(
            !lines.any(|line| line.contains(char::is_control)),
            "{text:?}"
        );
    }
}
