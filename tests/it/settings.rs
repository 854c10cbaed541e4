//! Generation settings in the files of a checkpoint: 400 random combinations over both layouts, against
//! the tokens that the reference library gives (`tests/reference/make_settings.py`).

use candle_core::Device;
use florence2_server::florence2::config::Florence2Config;
use florence2_server::florence2::generate::{GenerationOptions, generate};
use florence2_server::florence2::processor::Processor;
use florence2_server::florence2::{Dtype, Florence2, prompt};
use serde_json::{Map, Value};

use crate::support::checkpoint::Checkpoint;
use crate::support::data;

/// The keys that are drawn; nothing else of the stored configuration is changed.
const KEYS: [&str; 9] = [
    "num_beams",
    "early_stopping",
    "length_penalty",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "decoder_start_token_id",
    "bos_token_id",
    "eos_token_id",
];

fn say(place: &mut Value, said: &Value) {
    let place = place.as_object_mut().unwrap();
    place.retain(|key, _| !KEYS.contains(&key.as_str()));
    let none = Map::new();
    place.extend(said.as_object().unwrap_or(&none).clone());
}

/// Writes a combination into the files, and reads them.
fn config_of(checkpoint: &Checkpoint, case: &Value) -> Florence2Config {
    checkpoint.edit("config.json", |config| {
        say(config, &case["outer"]);
        say(&mut config["text_config"], &case["text"]);
    });
    match &case["file"] {
        Value::Null => drop(std::fs::remove_file(
            checkpoint.file("generation_config.json"),
        )),
        said => checkpoint.write("generation_config.json", said.to_string()),
    }
    Florence2Config::load(checkpoint.path()).unwrap_or_else(|error| panic!("{case}: {error}"))
}

#[test]
fn random_settings_in_files_give_the_reference_tokens() {
    let stored = data::json("settings.json");
    let text = prompt::expand(stored["prompt"].as_str().unwrap())
        .unwrap()
        .text;
    let max_new_tokens = stored["max_new_tokens"].as_u64().unwrap() as usize;
    let (mut cases, mut wrong) = (0, Vec::new());
    for (layout, stored) in stored["layouts"].as_object().unwrap() {
        let checkpoint = Checkpoint::copy_of(stored["checkpoint"].as_str().unwrap());
        let model = Florence2::load(checkpoint.path(), &Device::Cpu, Dtype::F32).unwrap();
        let processor = Processor::load(checkpoint.path()).unwrap();
        let picture = image::open(checkpoint.file("picture.png"))
            .unwrap()
            .to_rgb8();
        let pixels = processor.pixel_values(&picture);
        let features = model.see(&pixels.data, pixels.side).unwrap();
        let input_ids = processor.input_ids(&text, usize::MAX).unwrap();
        let states = model.encode(&features.image_features, &input_ids).unwrap();
        for case in stored["cases"].as_array().unwrap() {
            let config = config_of(&checkpoint, case);
            let options = GenerationOptions {
                max_new_tokens,
                ..config.generation
            };
            let cache = model.start(&states).unwrap();
            let found = generate(&model, cache, &options, &config.text.special).unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["token_ids"].clone()).unwrap();
            cases += 1;
            if found.token_ids != expected {
                wrong.push(format!("{layout}: {case}\n  found {:?}", found.token_ids));
            }
        }
    }
    assert!(cases >= 400, "{cases}");
    assert!(
        wrong.is_empty(),
        "{} of {cases}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
