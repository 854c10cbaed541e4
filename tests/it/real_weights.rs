//! The published checkpoints against the answers that the transformers project's own integration
//! tests expect of them. Ignored, because it downloads 2 GB:
//!
//! ```sh
//! cargo test --release -- --ignored real_weights --nocapture
//! ```
//!
//! Weights come from the hub's cache or the hub. The two pictures come from the folder in
//! `FLORENCE2_PICTURES` (`australia.jpg`, `car.jpg`) or from the hub's documentation data set.
//!
//! The answers were recorded on a GPU, and a later version of the same
//! tests expects other tokens in one case: a difference is printed with its text, and only a
//! majority of equal answers is demanded.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::support::data;

/// The folder of the data set that both pictures are published in.
const PICTURES: &str = "https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/transformers/tasks";
/// `<pad>`, with which shorter answers of a batch are filled up.
const PAD: u32 = 1;

#[derive(Deserialize)]
struct Published {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    prompts: Vec<String>,
    tokens: Vec<Vec<u32>>,
    images: Vec<String>,
    max_new_tokens: usize,
}

#[derive(Deserialize)]
struct Answer {
    token_ids: Vec<u32>,
    text: String,
}

#[test]
#[ignore = "downloads the published base and large checkpoints and two pictures (2 GB)"]
fn real_weights_give_the_published_answers() {
    let published: Published =
        serde_json::from_value(data::json("golden/published_outputs.json")).unwrap();
    let (mut equal, mut all) = (0, 0);
    for case in &published.cases {
        for ((prompt, image), tokens) in case.prompts.iter().zip(&case.images).zip(&case.tokens) {
            let length = tokens
                .iter()
                .rposition(|token| *token != PAD)
                .map_or(0, |last| last + 1);
            let answer = ask(case, prompt, image);
            all += 1;
            if answer.token_ids == tokens[..length] {
                equal += 1;
                println!("{} {prompt}: equal, {length} tokens", case.name);
            } else {
                println!(
                    "{} {prompt}: DIFFERS\n  ours      {:?}\n  published {tokens:?}\n  {}",
                    case.name, answer.token_ids, answer.text
                );
            }
        }
    }
    println!("{equal} of {all} answers have the published tokens");
    assert!(
        2 * equal > all,
        "only {equal} of {all} answers have the published tokens"
    );
}

fn ask(case: &Case, prompt: &str, image: &str) -> Answer {
    let image = match std::env::var("FLORENCE2_PICTURES") {
        Ok(folder) => format!("{folder}/{image}"),
        Err(_) => format!("{PICTURES}/{image}"),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .args([
            "run",
            &image,
            "--json",
            "--dtype",
            "f32",
            "--model",
            &case.model,
            "--prompt",
            prompt,
        ])
        .args(["--max-new-tokens", &case.max_new_tokens.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: the command failed", case.name);
    serde_json::from_slice(&output.stdout).unwrap()
}
