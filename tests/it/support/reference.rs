//! The tiny checkpoints in `tests/data/parity` and what the reference library answered with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use florence2_server::engine::predict::PreparedInput;
use florence2_server::florence2::generate::{EarlyStopping, GenerationOptions};
use florence2_server::florence2::processor::PixelValues;
use serde::Deserialize;

/// The answers stored beside a checkpoint.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) runs: Vec<Run>,
}

/// One prompt and its answer.
#[derive(Deserialize)]
pub(crate) struct Run {
    pub(crate) prompt: String,
    pub(crate) input_ids: Vec<u32>,
    pub(crate) num_beams: usize,
    options: Options,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) text: String,
    pub(crate) picture: String,
}

#[derive(Deserialize)]
struct Options {
    early_stopping: serde_json::Value,
    length_penalty: f32,
    no_repeat_ngram_size: usize,
    max_new_tokens: usize,
}

impl Expected {
    /// Reads what is stored beside the checkpoint in a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
    }
}

/// The answers stored beside a checkpoint about pictures in other formats.
#[derive(Deserialize)]
pub(crate) struct Formats {
    pub(crate) runs: Vec<Run>,
    /// By file: the sum of its pixel values as little-endian float32.
    pub(crate) pixel_values_sha256: HashMap<String, String>,
}

impl Formats {
    /// Reads what is stored beside the checkpoint in a folder, if anything is.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let text = std::fs::read(folder.join("formats.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

impl Run {
    /// What the model is asked in this run about a picture's pixels.
    pub(crate) fn input(&self, pixels: PixelValues) -> PreparedInput {
        PreparedInput {
            pixel_values: pixels.data,
            side: pixels.side,
            prompts: vec![self.input_ids.clone()],
            generation: self.generation(),
        }
    }

    /// The settings in force.
    pub(crate) fn generation(&self) -> GenerationOptions {
        GenerationOptions {
            num_beams: self.num_beams,
            max_new_tokens: self.options.max_new_tokens,
            min_new_tokens: 0,
            length_penalty: self.options.length_penalty,
            early_stopping: match &self.options.early_stopping {
                serde_json::Value::Bool(true) => EarlyStopping::True,
                serde_json::Value::Bool(false) => EarlyStopping::False,
                _ => EarlyStopping::Never,
            },
            no_repeat_ngram_size: self.options.no_repeat_ngram_size,
        }
    }
}

/// All folders below `root` that hold a checkpoint with stored answers.
pub(crate) fn folders_of(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").is_file())
        .collect();
    folders.sort();
    folders
}
