//! Numbers in the small files of a checkpoint.

use super::*;

#[test]
fn every_number_of_every_file_has_a_range() {
    let cases: [(&str, &[&str], Value); 24] = [
        ("config.json", &["text_config", "vocab_size"], json!(0)),
        (
            "config.json",
            &["text_config", "d_model"],
            json!(1_000_000_000_000_u64),
        ),
        ("config.json", &["text_config", "encoder_layers"], json!(-1)),
        (
            "config.json",
            &["text_config", "decoder_layers"],
            json!(1e9),
        ),
        (
            "config.json",
            &["text_config", "decoder_attention_heads"],
            json!(0),
        ),
        (
            "config.json",
            &["text_config", "encoder_ffn_dim"],
            json!(u64::MAX),
        ),
        (
            "config.json",
            &["text_config", "max_position_embeddings"],
            json!(1_u64 << 40),
        ),
        (
            "config.json",
            &["text_config", "num_beams"],
            json!(1_000_000_000),
        ),
        (
            "config.json",
            &["text_config", "decoder_start_token_id"],
            json!(999_999),
        ),
        (
            "config.json",
            &["text_config", "forced_eos_token_id"],
            json!(u64::MAX),
        ),
        (
            "config.json",
            &["vision_config", "embed_dim"],
            json!([8, 8, 16, 1_u64 << 50]),
        ),
        (
            "config.json",
            &["vision_config", "depths"],
            json!([1, 1, 1_000_000, 1]),
        ),
        (
            "config.json",
            &["vision_config", "patch_stride"],
            json!([4, 0, 2, 2]),
        ),
        ("config.json", &["vision_config", "window_size"], json!(65)),
        ("config.json", &["vision_config", "mlp_ratio"], json!(1e300)),
        (
            "config.json",
            &["vision_config", "max_temporal_embeddings"],
            json!(1_u64 << 40),
        ),
        (
            "generation_config.json",
            &["num_beams"],
            json!(1_000_000_000),
        ),
        ("generation_config.json", &["num_beams"], json!(0)),
        ("generation_config.json", &["length_penalty"], json!(100.5)),
        (
            "generation_config.json",
            &["no_repeat_ngram_size"],
            json!(1_u64 << 40),
        ),
        (
            "generation_config.json",
            &["decoder_start_token_id"],
            json!(1_000_000),
        ),
        (
            "generation_config.json",
            &["forced_bos_token_id"],
            json!(-2),
        ),
        ("preprocessor_config.json", &["rescale_factor"], json!(1e30)),
        ("preprocessor_config.json", &["image_seq_length"], json!(0)),
    ];
    for (file, keys, value) in cases {
        let checkpoint = Checkpoint::copy_of(NATIVE);
        checkpoint.edit(file, |json| {
            let mut at = json;
            for key in keys {
                at = &mut at[*key];
            }
            *at = value.clone();
        });
        let error = error_of(&checkpoint, file);
        assert_names(&error, &[file, keys[keys.len() - 1]]);
    }
}

/// What is said about a checkpoint, one file of which cannot be used.
fn error_of(checkpoint: &Checkpoint, file: &str) -> String {
    match file {
        "config.json" | "generation_config.json" => load_error(checkpoint, Dtype::F32),
        _ => Processor::load(checkpoint.path()).unwrap_err().to_string(),
    }
}

#[test]
fn a_value_of_another_type_is_named_by_file_and_key() {
    let config = "config.json";
    let generation = "generation_config.json";
    let preprocessor = "preprocessor_config.json";
    for (file, pointer, value) in [
        (config, "/text_config/d_model", json!([16])),
        (config, "/text_config/vocab_size", json!("1408")),
        (config, "/text_config/scale_embedding", json!("yes")),
        (config, "/vision_config/patch_prenorm", json!([0, 0, 0, 0])),
        (config, "/vision_config/mlp_ratio", json!({"of": 4})),
        (config, "/vision_config/image_feature_source", json!([])),
        (config, "/vision_config/image_feature_source", json!([7])),
        (generation, "/num_beams", json!(true)),
        (generation, "/eos_token_id", json!([2, 3])),
        (generation, "/early_stopping", json!("always")),
        (preprocessor, "/image_mean", json!(0.5)),
        (preprocessor, "/size", json!([48, 48])),
        (preprocessor, "/do_resize", json!("no")),
        (preprocessor, "/resample", json!([3])),
        ("tokenizer.json", "/added_tokens/0/id", json!(-1)),
        (
            "tokenizer.json",
            "/model/vocab",
            json!({"a": 4_294_967_295_u32}),
        ),
    ] {
        let checkpoint = Checkpoint::copy_of(NATIVE);
        checkpoint.edit(file, |json| {
            *json.pointer_mut(pointer).unwrap() = value.clone()
        });
        let error = error_of(&checkpoint, file);
        let key = pointer.rsplit('/').next().unwrap();
        assert_names(&error, &[file, key]);
    }
}

#[test]
fn a_vocabulary_smaller_than_the_usual_ids_is_refused() {
    let checkpoint = Checkpoint::copy_of(ORIGINAL);
    checkpoint.edit("config.json", |config| {
        let text = config["text_config"].as_object_mut().unwrap();
        text.retain(|key, _| !key.ends_with("token_id"));
        text.insert("vocab_size".into(), json!(2));
    });
    let error = load_error(&checkpoint, Dtype::F32);
    assert_names(&error, &["config.json", "`vocab_size`", "the token 2"]);
}

#[test]
fn names_in_a_checkpoint_cannot_act_on_a_terminal() {
    let checkpoint = Checkpoint::copy_of(NATIVE);
    checkpoint.edit_weights(WEIGHTS, |header, _| {
        let entries = header.as_object_mut().unwrap();
        let entry = entries.remove("model.vision_tower.convs.0.norm.bias");
        entries.insert("a\u{1b}[2Jb".to_owned(), entry.unwrap());
    });
    let (code, said) = run(&checkpoint, &["--task", "caption"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    checkpoint.edit("config.json", |config| {
        config["vision_config"]["image_feature_source"] = json!(["\u{1b}[2J"]);
    });
    let (code, said) = run(&checkpoint, &["--task", "caption"]);
    assert_eq!(code, Some(1), "{said}");
    assert_names(&said, &["image_feature_source"]);
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn numbers_of_the_combined_file_have_the_same_ranges() {
    let checkpoint = Checkpoint::copy_of(NATIVE);
    checkpoint.edit("processor_config.json", |json| {
        *json = json!({"image_processor": {"size": {"height": 1 << 30, "width": 1 << 30}}});
    });
    let error = Processor::load(checkpoint.path()).unwrap_err().to_string();
    assert_names(
        &error,
        &[
            "processor_config.json",
            "`height` of `image_processor.size`",
            "4096",
        ],
    );
}
