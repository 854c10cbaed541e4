//! The files of a checkpoint: weights with their headers, and the JSON files beside them.
//!
//! The input is the name of one file, a line break, and its content; the other files are those of
//! `tiny-checkpoint`. Promised: no panic and no allocation by what a file merely says; an error of a
//! settings file names it; what is taken has ids below its rows, finite pixels, and a search within its
//! bounds; and what such a model answers are tokens that it has.

use std::fs;
use std::path::Path;

use candle_core::Device;
use florence2_server::engine::predict::{Predict, PredictError, PreparedInput};
use florence2_server::florence2::config::Florence2Config;
use florence2_server::florence2::processor::Processor;
use florence2_server::florence2::{Dtype, Florence2};

/// The whole checkpoint, of which one file is exchanged.
const TINY: [(&str, &[u8]); 5] = [
    (
        "config.json",
        include_bytes!("../tiny-checkpoint/config.json"),
    ),
    (
        "generation_config.json",
        include_bytes!("../tiny-checkpoint/generation_config.json"),
    ),
    (
        "preprocessor_config.json",
        include_bytes!("../tiny-checkpoint/preprocessor_config.json"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../tiny-checkpoint/tokenizer.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../tiny-checkpoint/model.safetensors"),
    ),
];

const WEIGHTS: [&str; 3] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
];
/// What an index may name.
const SHARD: &str = "shard.safetensors";
const MODEL_SETTINGS: [&str; 2] = ["config.json", "generation_config.json"];
const PROCESSOR: [&str; 3] = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
];

/// Rows of the matrix for which the tokenizer is read: some more than the tiny one needs.
const ROWS: usize = 1400;
/// Side of the tiny checkpoint's pictures in pixels, and most that are computed here.
const SIDE: usize = 1;
const MAX_SIDE: usize = 64;

/// Weight files.
pub(super) fn weights(data: &[u8]) {
    if let Some((name, content)) = named(data, &WEIGHTS) {
        with_file(name, content, answer);
    }
}

/// The JSON files beside the weights.
pub(super) fn checkpoint_json(data: &[u8]) {
    if let Some((name, content)) = named(data, &MODEL_SETTINGS) {
        with_file(name, content, |folder| {
            match Florence2Config::load(folder) {
                Ok(config) => {
                    check_config(&config);
                    answer(folder);
                }
                Err(error) => assert_names(&error.to_string(), name),
            }
        });
    }
    if let Some((name, content)) = named(data, &PROCESSOR) {
        let load = |folder: &Path| match Processor::load_for(folder, ROWS) {
            Ok(processor) => check_processor(&processor),
            Err(error) => assert_names(&error.to_string(), name),
        };
        with_file(name, content, load);
    }
}

/// The name in the input's first line, if it is one of these, and what follows it.
fn named<'a>(data: &'a [u8], names: &[&'static str]) -> Option<(&'static str, &'a [u8])> {
    let at = data.iter().position(|byte| *byte == b'\n')?;
    let (name, content) = (&data[..at], &data[at + 1..]);
    let name = names.iter().find(|known| known.as_bytes() == name)?;
    Some((name, content))
}

/// Exchanges a file of the tiny checkpoint, and puts it back afterwards.
fn with_file(name: &str, content: &[u8], run: impl FnOnce(&Path)) {
    thread_local!(static FOLDER: tempfile::TempDir = tiny_checkpoint());
    let put = |name: &str, folder: &Path, content: Option<&[u8]>| match content {
        Some(content) => fs::write(folder.join(name), content).unwrap(),
        None => fs::remove_file(folder.join(name)).unwrap(),
    };
    FOLDER.with(|folder| {
        let folder = folder.path();
        // Weights under another name are looked for where there are none under this.
        let is_other = WEIGHTS[1..].contains(&name);
        if is_other {
            put(WEIGHTS[0], folder, None);
        }
        put(name, folder, Some(content));
        run(folder);
        put(name, folder, tiny(name));
        if is_other {
            put(WEIGHTS[0], folder, tiny(WEIGHTS[0]));
        }
    });
}

fn tiny_checkpoint() -> tempfile::TempDir {
    // In memory where that is possible: a disk is slower than everything that is tried here.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.unwrap();
    for (name, content) in TINY {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::write(folder.path().join(SHARD), tiny(WEIGHTS[0]).unwrap()).unwrap();
    folder
}

fn tiny(name: &str) -> Option<&'static [u8]> {
    let file = TINY.into_iter().find(|(known, _)| *known == name);
    file.map(|(_, content)| content)
}

fn assert_names(error: &str, name: &str) {
    assert!(error.contains(name), "{error:?} does not name {name}");
}

fn check_config(config: &Florence2Config) {
    let (text, options) = (&config.text, &config.generation);
    let special = &text.special;
    let forced = [special.forced_bos_token_id, special.forced_eos_token_id];
    let ids = [special.decoder_start_token_id, special.eos_token_id];
    for id in ids.into_iter().chain(forced.into_iter().flatten()) {
        assert!((id as usize) < text.vocab_size, "{special:?}");
    }
    assert!((1..=64).contains(&options.num_beams), "{options:?}");
    assert!(options.length_penalty.is_finite(), "{options:?}");
}

fn check_processor(processor: &Processor) {
    if processor.side() <= MAX_SIDE {
        let picture = image::RgbImage::from_fn(2, 2, |x, _| image::Rgb([x as u8 * 255, 0, 128]));
        let pixels = processor.pixel_values(&picture);
        assert!(pixels.data.iter().all(|value| value.is_finite()));
    }
    for text in ["", "a car <loc_7><image> thé", "<s></s><mask> <x>\u{0}"] {
        // A tokenizer that lacks a letter may refuse the text.
        let Ok(ids) = processor.input_ids(text, 100) else {
            continue;
        };
        assert!(ids.iter().all(|id| (*id as usize) < ROWS), "{ids:?}");
        if let Ok(text) = processor.decode(&ids) {
            let _ = processor.token_ends(&ids, &text);
        }
    }
    let every: Vec<u32> = (0..ROWS as u32 + 2).collect();
    let _ = processor.decode(&every);
}

/// Loads the model, and lets it answer where the tiny picture fits it.
fn answer(folder: &Path) {
    let Ok(mut model) = Florence2::load(folder, &Device::Cpu, Dtype::F32) else {
        return;
    };
    if model.image_tokens(SIDE).is_err() {
        return;
    }
    let (vocab, mut generation) = (model.config().text.vocab_size, model.config().generation);
    generation.max_new_tokens = 3;
    let input = PreparedInput {
        pixel_values: vec![0.5; 3 * SIDE * SIDE],
        side: SIDE,
        prompts: vec![vec![0, 2]],
        generation,
    };
    match model.predict(&input, &|| true) {
        Ok(answers) => {
            let ids = answers.iter().flat_map(|answer| &answer.token_ids);
            assert!(ids.into_iter().all(|id| (*id as usize) < vocab));
            let mut chosen = answers.iter().flat_map(|answer| &answer.log_probabilities);
            assert!(chosen.all(|value| *value <= 1e-3), "{answers:?}");
        }
        Err(PredictError::NotFinite { .. }) => {}
        Err(error) => panic!("a model that was loaded fails: {error}"),
    }
}
