//! The programs that the README shows, run as they stand there. Only the server's port is another.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::install::{Js, Python};
use super::served::Served;
use crate::demo;

/// The picture that the README's programs ask about.
const PICTURE: &str = "portrait.png";
/// Where the README's server listens.
const BASE: &str = "http://127.0.0.1:8000";

/// The README's program in this language: the first block after the heading that stands over them.
fn block(language: &str, base: &str) -> String {
    let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let (_, section) = readme.split_once("## From a fal client").unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(block.contains(BASE), "{block}");
    block.replace(BASE, base)
}

/// Runs a program in the source tree; gives what it printed, a line each.
async fn printed(mut command: Command) -> Vec<String> {
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Each of these lines is the endpoint's output, and true of the picture.
fn assert_true<'a>(lines: impl IntoIterator<Item = &'a String>) {
    let truths = demo::truths();
    let mut count = 0;
    for line in lines {
        let output: Value = serde_json::from_str(line).unwrap();
        let truth = &truths[PICTURE]["dense-region-caption"];
        demo::assert_boxes(&output["results"], truth, PICTURE);
        count += 1;
    }
    assert_eq!(count, 2, "one answer at once, one through the queue");
}

fn outputs(lines: &[String]) -> impl Iterator<Item = &String> {
    lines.iter().filter(|line| line.starts_with("{\"results\""))
}

#[tokio::test]
async fn the_readmes_python_program_runs_as_it_stands() {
    let python = Python::installed(None).await;
    let served = Served::start(&[]).await;
    let mut command = python.command();
    command.arg("-c").arg(block("python", served.base()));
    let lines = printed(command).await;
    assert_true(outputs(&lines));
    assert!(
        lines.iter().any(|line| line.contains("Completed")),
        "{lines:?}"
    );
    served.stop().await;
}

#[tokio::test]
async fn the_readmes_javascript_program_runs_as_it_stands() {
    let js = Js::installed(None).await;
    let served = Served::start(&[]).await;
    let command = js.program("readme.mjs", &block("js", served.base()));
    let lines = printed(command).await;
    assert_true(outputs(&lines));
    assert!(lines.iter().any(|line| line == "COMPLETED"), "{lines:?}");
    served.stop().await;
}

#[tokio::test]
async fn the_readmes_curl_lines_run_as_they_stand() {
    let served = Served::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let call = folder.path().join("call.json");
    let lines = block("sh", served.base()).replace("call.json", call.to_str().unwrap());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &lines]);
    let lines = printed(command).await;
    assert_true(outputs(&lines));
    assert!(Path::new(&call).exists());
    served.stop().await;
}
