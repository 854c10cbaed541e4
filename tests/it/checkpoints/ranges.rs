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
        let error = if file == "preprocessor_config.json" {
            Processor::load(checkpoint.path()).unwrap_err().to_string()
        } else {
            load_error(&checkpoint, Dtype::F32)
        };
        assert_names(&error, &[file, keys[keys.len() - 1]]);
    }
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
