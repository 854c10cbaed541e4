//! Checkpoints that lie: numbers that are none, files that do not fit each other, things that are no
//! checkpoint. Each is refused with a sentence that names the place, or made harmless.

mod finite;
mod forms;
mod ranges;
mod words;

use std::process::{Command, Output};

use candle_core::Device;
use florence2_server::engine::predict::{Predict, PredictError, PreparedInput};
use florence2_server::florence2::config::Florence2Config;
use florence2_server::florence2::processor::Processor;
use florence2_server::florence2::tokenizer::Tokenizer;
use florence2_server::florence2::{Dtype, Florence2};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::support::checkpoint::Checkpoint;
use crate::support::data;

const WEIGHTS: &str = "model.safetensors";
const ORIGINAL: &str = "01-original-f16";
const NATIVE: &str = "02-native-f16";
const F32: &str = "29-original-logits-bias-f32";
const ALL_DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8];

fn load_error(checkpoint: &Checkpoint, dtype: Dtype) -> String {
    match Florence2::load(checkpoint.path(), &Device::Cpu, dtype) {
        Ok(_) => panic!("{dtype:?}: it was loaded"),
        Err(error) => error.to_string(),
    }
}

fn assert_names(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_florence2-server"))
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

/// Runs `run` on a checkpoint's own picture; exit code and all of stderr.
fn run(checkpoint: &Checkpoint, more: &[&str]) -> (Option<i32>, String) {
    let (picture, folder) = (checkpoint.file("picture.png"), checkpoint.path());
    let fixed = [
        "run",
        picture.to_str().unwrap(),
        "--model",
        folder.to_str().unwrap(),
    ];
    let output = program(&[&fixed, more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}
