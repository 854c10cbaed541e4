//! Prompts become the reference library's texts and token ids, with the real tokenizer files.

use std::path::Path;
use std::sync::Arc;

use florence2_server::florence2::processor::{Processor, ProcessorError};
use florence2_server::florence2::prompt::{PromptError, expand};
use florence2_server::florence2::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::support::data;

const LAYOUTS: [&str; 2] = ["original", "native"];

/// Ids of the published checkpoints.
const FIRST_LOCATION: u32 = 50_269;

fn tokenizer(layout: &str) -> Tokenizer {
    Tokenizer::open(&data::path(&format!("tokenizer/{layout}/tokenizer.json"))).unwrap()
}

/// A checkpoint folder with a changed copy of a published tokenizer.
fn folder_with_tokenizer(layout: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let mut tokenizer = data::json(&format!("tokenizer/{layout}/tokenizer.json"));
    change(&mut tokenizer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    std::fs::write(file, tokenizer.to_string()).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    Processor::load(folder).unwrap_err().to_string()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn every_golden_prompt_gives_the_native_text_and_ids() {
    let golden = data::json("golden/prompts.json");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 34);
    for tokenizer in LAYOUTS.map(tokenizer) {
        for case in cases {
            let native = &case["native"];
            match expand(case["prompt"].as_str().unwrap()) {
                Ok(prompt) => {
                    assert_eq!(json!(prompt.text), native["text"], "{case}");
                    assert_eq!(
                        tokenizer.encode(&prompt.text).unwrap(),
                        ids(&native["ids"]),
                        "{case}"
                    );
                }
                Err(PromptError::TokenNotAlone { token }) => {
                    let error = native["error"].as_str().unwrap();
                    assert!(error.contains(token), "{case}");
                }
                Err(other) => panic!("{case}: {other}"),
            }
            // The original's texts differ in whitespace; its ids must follow from its texts.
            if let Some(text) = case["original"]["text"].as_str() {
                assert_eq!(
                    tokenizer.encode(text).unwrap(),
                    ids(&case["original"]["ids"]),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn published_prompts_give_the_published_ids() {
    const PAD: u32 = 1;
    let published = data::json("golden/published_outputs.json");
    let tokenizer = tokenizer("native");
    for case in published["cases"].as_array().unwrap() {
        let prompts = case["prompts"].as_array().unwrap();
        for (prompt, expected) in prompts.iter().zip(case["text_ids"].as_array().unwrap()) {
            let text = expand(prompt.as_str().unwrap()).unwrap().text;
            let mut expected = ids(expected);
            expected.retain(|id| *id != PAD);
            assert_eq!(tokenizer.encode(&text).unwrap(), expected, "{prompt}");
        }
    }
}

#[test]
fn both_layouts_number_and_spell_the_task_tokens_alike() {
    let [original, native] = LAYOUTS.map(tokenizer);
    for tokenizer in [&original, &native] {
        assert_eq!(tokenizer.location_token_id(0), Some(FIRST_LOCATION));
        assert_eq!(tokenizer.location_token_id(999), Some(FIRST_LOCATION + 999));
        assert_eq!(tokenizer.location_token_id(1000), None);
    }
    for id in 0..51_289 {
        let text = original.decode(&[id]).unwrap();
        assert_eq!(text, native.decode(&[id]).unwrap(), "{id}");
        assert!(!text.is_empty(), "{id}");
    }
    assert_eq!(native.decode(&[51_289]).unwrap(), "<image>");
}

#[test]
fn ids_without_a_token_decode_to_nothing() {
    for tokenizer in LAYOUTS.map(tokenizer) {
        let rows_of_padding: Vec<u32> = (51_290..51_328).chain([u32::MAX]).collect();
        assert_eq!(tokenizer.decode(&rows_of_padding).unwrap(), "");
        assert_eq!(
            tokenizer.decode(&[2, 0, 51_300, 2264, 2]).unwrap(),
            "</s><s>What</s>"
        );
    }
}

#[test]
fn decoding_neither_cleans_up_nor_adds_spaces() {
    for tokenizer in LAYOUTS.map(tokenizer) {
        for text in [
            "Hello , world !",
            "a  b",
            "car<loc_1><loc_2> dog",
            "中文 🙂",
            "I 'm",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), format!("<s>{text}</s>"));
        }
        // Bytes that are no UTF-8: half of an emoji.
        let ids = tokenizer.encode("🙂").unwrap();
        assert_eq!(tokenizer.decode(&ids[1..2]).unwrap(), "\u{fffd}");
    }
}

#[test]
fn a_prompt_beyond_the_position_table_is_refused_with_its_length() {
    let processor = Processor::load(&data::path("tokenizer/original")).unwrap();
    let text = "cat ".repeat(445);
    let text = text.trim_end();
    assert_eq!(processor.input_ids(text, 447).unwrap().len(), 447);
    let error = processor
        .input_ids(&format!("{text} cat"), 447)
        .unwrap_err();
    assert!(matches!(
        error,
        ProcessorError::PromptTooLong {
            tokens: 448,
            max_tokens: 447
        }
    ));
    assert!(error.to_string().contains("448") && error.to_string().contains("447"));
}

#[test]
fn a_prompt_whose_bytes_cannot_fit_is_refused_without_a_look_at_them() {
    for layout in ["original", "native"] {
        let processor = Processor::load(&data::path(&format!("tokenizer/{layout}"))).unwrap();
        let longest = processor.tokenizer().longest_token_bytes();
        // The tokens of the vocabulary, the longest of which are rows of one character.
        assert!((24..=256).contains(&longest), "{longest}");
        let at_most = "cat ".repeat(2 * longest);
        let at_most = &at_most[..4 * longest];
        assert!(matches!(
            processor.input_ids(at_most, 4),
            Err(ProcessorError::PromptTooLong { max_tokens: 4, .. })
        ));
        let begun = std::time::Instant::now();
        let long = "1".repeat(30 << 20);
        let error = processor.input_ids(&long, 447).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::PromptTooManyBytes {
                bytes: 31_457_280,
                max_tokens: 447
            }
        ));
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }
}

#[test]
fn a_processor_is_shared_between_threads() {
    let processor = Arc::new(Processor::load(&data::path("tokenizer/native")).unwrap());
    assert_eq!(processor.image_seq_length(), 577);
    let threads = [0_u16, 1, 2, 3].map(|bin| {
        let processor = Arc::clone(&processor);
        std::thread::spawn(move || {
            let ids = processor.input_ids(&format!("<loc_{bin}>"), 3).unwrap();
            assert_eq!(ids, [0, FIRST_LOCATION + u32::from(bin), 2]);
            assert_eq!(
                processor.decode(&ids).unwrap(),
                format!("<s><loc_{bin}></s>")
            );
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn lengths_saved_in_a_tokenizer_file_do_not_cut_or_pad_prompts() {
    let folder = folder_with_tokenizer("original", |tokenizer| {
        tokenizer["truncation"] = json!({
            "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
        });
        tokenizer["padding"] = json!({
            "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>",
        });
    });
    let processor = Processor::load(folder.path()).unwrap();
    let ids = processor
        .input_ids("What does the image describe?", 447)
        .unwrap();
    assert_eq!(ids, [0, 2264, 473, 5, 2274, 6190, 116, 2]);
}

#[test]
fn a_smaller_base_vocabulary_moves_the_location_tokens_with_it() {
    // The last base entry is `<mask>`, 50264; without it everything after moves up by one.
    let folder = folder_with_tokenizer("original", |tokenizer| {
        tokenizer["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .remove("<mask>");
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["content"] != "<mask>");
    });
    let processor = Processor::load(folder.path()).unwrap();
    assert_eq!(
        processor.tokenizer().location_token_id(0),
        Some(FIRST_LOCATION - 1)
    );
}

/// Asserts that a changed tokenizer is refused, and for which reason.
fn assert_unfit(layout: &str, reason: &str, change: impl FnOnce(&mut Value)) {
    let folder = folder_with_tokenizer(layout, change);
    let refusal = refusal(folder.path());
    assert!(refusal.contains("tokenizer.json does not fit"), "{refusal}");
    assert!(refusal.contains(reason), "{refusal}");
}

#[test]
fn task_tokens_are_not_added_where_they_would_get_other_ids() {
    assert_unfit("original", "<od> gets id 50266", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let mut own = added[0].clone();
        own["id"] = json!(50_265);
        own["content"] = json!("<mine>");
        added.push(own);
    });
    assert_unfit("original", "gaps", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.remove("madeupword0002").unwrap();
    });
    assert_unfit("native", "<poly> is the first of 1", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["content"] != "<poly>" && token["content"] != "<image>");
    });
}

#[test]
fn a_tokenizer_that_would_answer_nonsense_is_refused() {
    assert_unfit("native", "not consecutive: <loc_5>", |tokenizer| {
        for token in tokenizer["added_tokens"].as_array_mut().unwrap() {
            match token["content"].as_str() {
                Some("<loc_5>") => token["content"] = json!("<loc_6>"),
                Some("<loc_6>") => token["content"] = json!("<loc_5>"),
                _ => {}
            }
        }
    });
    assert_unfit("native", "does not put <s> and </s>", |tokenizer| {
        tokenizer["post_processor"] = Value::Null;
    });
    assert_unfit("native", "without spaces", |tokenizer| {
        tokenizer["decoder"] = Value::Null;
    });
}

#[test]
fn a_missing_or_broken_tokenizer_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refusal(folder.path());
    assert!(
        missing.contains("tokenizer.json") && missing.contains("cannot read"),
        "{missing}"
    );
    std::fs::write(folder.path().join("tokenizer.json"), "<html>").unwrap();
    let broken = refusal(folder.path());
    assert!(
        broken.contains("tokenizer.json") && broken.contains("cannot understand"),
        "{broken}"
    );
}
